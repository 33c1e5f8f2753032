"""Makes the tables of noise from the files of noise.py, and puts them between their markers into docs/policies.md.

python examples/study/noise_report.py benchmarks/results/noise-*.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

from noise_plans import SKIPPED
from report import fill
from results import commits_of, read_json
from tables import markdown

NAMES = {"digits": "digits", "cifar": "CIFAR-10", "text": "text"}
Column = tuple[str, str, str]  # its title, and the losses and the policy of its plans
BY_LOSSES: list[Column] = [
    ("`MeanThreshold`", "recorded", "mean"),
    ("`QuantileTiers`", "recorded", "tiers"),
    ("`ImportanceSampling(min_keep=0.1)`", "recorded", "importance"),
    ("optimum", "recorded", "best"),
]
BY_GRADIENTS: list[Column] = [
    ("`MeanThreshold`", "recorded", "mean"),
    ("`QuantileTiers`", "recorded", "tiers"),
    ("`ImportanceSampling`", "recorded", "careful"),
    ("`min_keep=0.1`", "recorded", "importance"),
    ("`min_keep=0.1`, fresh losses", "fresh", "importance"),
    ("optimum", "none", "known"),
]


def by_moment(files: list[dict[str, Any]]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """What was measured at each moment of each workload, by seed."""
    moments: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for results in sorted(files, key=lambda results: list(NAMES).index(results["workload"])):
        for entry in results["runs"]:
            moments.setdefault((NAMES[results["workload"]], entry["epochs"]), []).append(entry)
    return moments


def written(value: float) -> str:
    """With fewer digits where it is larger."""
    if value < 0.0005:
        return "<0.001"
    return f"{value:.{0 if value >= 10 else 1 if value >= 2 else 2 if value >= 0.1 else 3}f}"


def cell(entries: list[dict[str, Any]], losses: str, policy: str, noise: str) -> str:
    """Means over the seeds for each part that is skipped; "-" where some seed's losses do not allow it."""
    parts = []
    for skipped in SKIPPED:
        values = [
            plan[noise]
            for entry in entries
            for plan in entry["plans"]
            if (plan["losses"], plan["policy"], plan["skipped"]) == (losses, policy, skipped)
        ]
        parts.append(written(mean(values)) if len(values) == len(entries) else "-")
    return " / ".join(parts)


def table(files: list[dict[str, Any]], columns: list[Column], noise: str) -> str:
    """One row a moment."""
    titles = ["run", "epochs trained", "below the mean loss", *(title for title, _, _ in columns)]
    rows = []
    for (name, epochs), entries in by_moment(files).items():
        below = mean(entry["scores"]["below_mean"] for entry in entries)
        cells = [name, str(epochs), f"{100 * below:.0f} %", *(cell(entries, *column[1:], noise) for column in columns)]
        rows.append(cells)
    return markdown(titles, rows)


def note(files: list[dict[str, Any]]) -> str:
    """What was trained, and where."""
    parts = []
    for results in sorted(files, key=lambda results: list(NAMES).index(results["workload"])):
        seeds, last = len({entry["seed"] for entry in results["runs"]}), results["sessions"][-1]
        parts.append(
            f"{NAMES[results['workload']]}: {results['data']}, {results['train_size']:,} samples, {results['config']['epochs']} "
            f"epochs, {seeds} seed{'s' * (seeds > 1)}, at commit {commits_of([last])}"
        )
    machine, versions = last["machine"], last["versions"]
    return (
        "30 / 50 / 70 % of the seen samples skipped, means over the seeds. -: no prune ratio below 1 skips as many. "
        f"{'; '.join(parts)}. On {machine['cpu']}, Python {versions['python']}, torch {versions['torch']}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--document", type=Path, default=Path("docs/policies.md"))
    args = parser.parse_args()
    files = [read_json(path) for path in args.files]
    parts = [f"**{results['data']}: nothing here says anything about the real data.**" for results in files if results["stand_in"]]
    document = fill(args.document.read_text(), "noise", "\n\n".join([*parts, table(files, BY_LOSSES, "by_losses"), note(files)]))
    document = fill(document, "noise-gradients", table(files, BY_GRADIENTS, "by_gradients"))
    args.document.write_text(document)


if __name__ == "__main__":
    main()
