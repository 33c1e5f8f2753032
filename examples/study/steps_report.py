"""Makes the tables of steps.py's runs, and puts them between their markers into docs/steps.md.

python examples/study/steps_report.py benchmarks/results/study-steps.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

from intervals import Runs, difference
from report import Metric, fill, made_by_note
from steps import METHODS, OPTIMIZERS

METRIC = Metric("cifar")
TITLES = {
    "uniform": "`RandomPruning(0.6)`",
    "importance": "`ImportanceSampling(0.6)`",
    "mean": "`MeanThreshold(0.5)`",
    "fewer": "full data, fewer epochs",
    "full": "full data",
}
CHANGES = {  # what is compared with what, the rest being as it is
    "step instead of epoch, by epochs": ("step-epochs", "epoch-epochs"),
    "step instead of epoch, by visits": ("step-visits", "epoch-visits"),
    "visits instead of epochs, rescale epoch": ("epoch-visits", "epoch-epochs"),
    "visits instead of epochs, rescale step": ("step-visits", "step-epochs"),
    "both": ("step-visits", "epoch-epochs"),
}


def group(results: dict[str, Any], optimizer: str, draw: str) -> dict[str, Runs]:
    """The runs that draw alike, by method and seed. A seed counts where no method lacks it that has been run at all."""
    methods = {
        name: {run["seed"]: run for run in results["runs"] if (run["optimizer"], run["method"]) == (optimizer, name)}
        for name, method in METHODS.items()
        if method.draw == draw
    }
    methods = {name: runs for name, runs in methods.items() if runs}
    return {
        name: {seed: run for seed, run in runs.items() if all(seed in other for other in methods.values())}
        for name, runs in methods.items()
    }


def levels_table(results: dict[str, Any]) -> str:
    """One row a method."""
    budget = results["train_size"] * results["config"]["epochs"]
    lines = [
        "| optimiser | samples | `rescale` | `by` | seeds | visits | test accuracy, % | to fewer epochs, points (95 % interval) |",
        "|:--|:--|:--|:--|--:|--:|--:|--:|",
    ]
    for optimizer in OPTIMIZERS:
        fewer = group(results, optimizer, "fewer").get("fewer", {})
        for draw, title in TITLES.items():
            for name, runs in group(results, optimizer, draw).items():
                method, visits = METHODS[name], mean(sum(run["visited"]) for run in runs.values()) / budget
                pair = [method.rescale, method.by] if "-" in name else ["", ""]
                rival = fewer if draw in ("uniform", "importance") else {}  # the others have more visits than it
                share = f"{100 * visits:.0f} %"
                cells = [optimizer, title, *pair, str(len(runs)), share, METRIC.level(runs), written(runs, rival)]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def changes_table(results: dict[str, Any]) -> str:
    """What each argument does, paired by seed."""
    lines = [f"| optimiser, samples | seeds | {' | '.join(CHANGES)} |", f"|:--|{'--:|' * (len(CHANGES) + 1)}"]
    for optimizer in OPTIMIZERS:
        for draw, title in TITLES.items():
            methods = group(results, optimizer, draw)
            pairs = [[methods.get(f"{draw}-{name}", {}) for name in names] for names in CHANGES.values()]
            cells = [written(one, other) for one, other in pairs]
            if any(cells):
                lines.append(f"| {optimizer}, {title} | {len(next(iter(methods.values())))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def written(one: Runs, other: Runs) -> str:
    """``one`` minus ``other``, bold where zero lies outside of the interval; empty where there is nothing to compare."""
    found = difference(one, other, METRIC.value)
    if found is None:
        return ""
    return f"**{METRIC.change(found)}**" if found.is_resolved else METRIC.change(found)


def section(results: dict[str, Any]) -> str:
    """The Markdown between the markers."""
    warning = f"**{results['data']}: nothing here says anything about the real data.**" if results["stand_in"] else ""
    note = "What each argument does, in points of test accuracy (95 % interval), paired by seed; bold where resolved from zero:"
    parts = (warning, levels_table(results), note, changes_table(results), made_by_note(results))
    return "\n\n".join(part for part in parts if part)


def main() -> None:
    parser = argparse.ArgumentParser(description="Tables from the file of steps.py.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--document", type=Path, default=Path("docs/steps.md"))
    args = parser.parse_args()
    args.document.write_text(fill(args.document.read_text(), "steps", section(json.loads(args.file.read_text()))))


if __name__ == "__main__":
    main()
