"""Makes the table and the picture of fast.py's runs, and puts the table between its markers into docs/study.md.

python examples/study/fast_report.py benchmarks/results/study-gpu.json
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl
from methods import METHODS
from intervals import Difference, Runs, difference, quantile, spread
from matplotlib.figure import Figure
from report import fill, total

COLOURS = {"all": "#000000", "uniform": "#E69F00", "mean": "#0072B2", "importance": "#009E73"}
DODGE = {"all": 0.0, "uniform": -1.0, "mean": 1.0, "importance": 2.0}  # in the picture, of methods with as many visits


def accuracy(run: dict[str, Any]) -> float:
    """In percent."""
    return 100 * float(run["accuracy"][-1])


def likelihood(run: dict[str, Any]) -> float:
    return float(run["nll"][-1])


def group(results: dict[str, Any], setup: str) -> dict[str, Runs]:
    """The runs of a setup by method, in the order of METHODS, each by seed."""
    methods = {
        name: {run["seed"]: run for run in results["runs"] if (run["setup_name"], run["method"]) == (setup, name)}
        for name in METHODS
    }
    return {name: runs for name, runs in methods.items() if runs}


def opponent(name: str) -> str:
    """Full epochs with as many visits."""
    return "fewer" if METHODS[name].visits is None else "fewer-50"


def written(found: Difference | None, digits: int) -> str:
    if found is None:
        return ""
    if not found.has_interval:
        return f"{found.mean:+.{digits}f} (no interval)"
    low, high = found.mean - found.half_width, found.mean + found.half_width
    text = f"{found.mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"
    return f"**{text}**" if found.is_resolved else text


def table(methods: dict[str, Runs]) -> str:
    """One row a method."""
    full = methods["full"]
    budget = mean(total("visited")(run) for run in full.values())
    lines = [
        "| method | seeds | visits | test accuracy, % | to full data, points | to fewer epochs, points "
        "| likelihood to fewer epochs | s a run | s saved | sampler, ms |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, runs in methods.items():
        rival = methods.get(opponent(name), {}) if name not in ("full", opponent(name)) else {}
        level = f"{mean(accuracy(run) for run in runs.values()):.2f} ± {spread([accuracy(run) for run in runs.values()]):.2f}"
        seconds, sampler, visited = (
            mean(total(key)(run) for run in runs.values()) for key in ("seconds", "sampler_seconds", "visited")
        )
        saved = difference(full, runs, total("seconds"))
        cells = [METHODS[name].title, str(len(runs)), f"{100 * visited / budget:.0f} %", level]
        cells += ["" if name == "full" else written(difference(runs, full, accuracy), 2)]
        cells += [written(difference(runs, rival, value), digits) for value, digits in ((accuracy, 2), (likelihood, 4))]
        cells += [f"{seconds:.2f}", f"{saved.mean if saved else math.nan:.2f}", f"{1e3 * sampler:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(methods: dict[str, Runs], title: str, path: Path) -> None:
    """Accuracy and likelihood against visits: means over the seeds with their 95 % intervals."""
    mpl.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.grid": True, "grid.alpha": 0.3, "legend.fontsize": 8})
    figure = Figure(figsize=(11, 4.6), layout="constrained", dpi=110)
    budget = mean(total("visited")(run) for run in methods["full"].values())
    markers = "osDv^<>Pp*Xh8dH1"
    for axes, value, label in zip(
        figure.subplots(1, 2), (accuracy, likelihood), ("test accuracy, %", "test negative log-likelihood, nats"), strict=True
    ):
        for marker, (name, runs) in zip(markers, methods.items(), strict=False):
            values = [value(run) for run in runs.values()]
            half = quantile(len(values)) * spread(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
            visits = 100 * mean(total("visited")(run) for run in runs.values()) / budget
            shown = f"{METHODS[name].title}, {visits:.0f} %"
            place = visits + DODGE[METHODS[name].draw]
            axes.errorbar(place, mean(values), half, fmt=marker, color=COLOURS[METHODS[name].draw], capsize=3, label=shown)
        axes.set(xlabel="visits, % of full training", ylabel=label, title=label)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def note(results: dict[str, Any], methods: dict[str, Runs], setup: str) -> str:
    """What was trained, where, and what the numbers mean."""
    settings = next(iter(methods["full"].values()))["setup"]
    sessions = {run["session"] for runs in methods.values() for run in runs.values()}
    gpus = dict.fromkeys(gpu["name"] for number in sorted(sessions) for gpu in results["sessions"][number]["machine"]["gpus"])
    return (
        f"Setup {setup!r}: {results['data']}, {settings['epochs']} epochs in full, batches of {settings['batch']}, channels "
        f"{settings['widths']}, peak learning rate {settings['rate']:g}. On {', '.join(gpus) or 'a CPU'}. ± is the standard "
        "deviation over the seeds. Differences are paired by seed, with 95 % intervals, in bold where zero lies outside. "
        "Likelihood is the negative one, in nats: less is better. Seconds leave out the measuring of accuracy. In the sampler: "
        "making the plan and the order."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--document", type=Path, default=Path("docs/study.md"))
    parser.add_argument("--pictures", type=Path, default=Path("docs/study"), help="folder for the PNG files")
    args = parser.parse_args()
    results = json.loads(args.file.read_text())
    parts = [f"**{results['data']}: nothing here says anything about the real data.**"] if results["stand_in"] else []
    for setup in dict.fromkeys(run["setup_name"] for run in results["runs"]):
        methods = group(results, setup)
        picture = args.pictures / f"gpu-{setup}.png"
        draw(methods, f"{results['data']}, setup {setup}: means and 95 % intervals", picture)
        parts += [table(methods), note(results, methods, setup), f"![{picture.stem}]({args.pictures.name}/{picture.name})"]
    args.document.write_text(fill(args.document.read_text(), "gpu", "\n\n".join(parts)))


if __name__ == "__main__":
    main()
