"""Shows the numbers that selection.py has written: the Markdown table of the docs, and the picture."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib as mpl
from digits_report import by_method, made_by_note
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy.stats import t as student

COLOURS = ("#000000", "#999999", "#D55E00", "#E69F00", "#009E73", "#56B4E9", "#0072B2")  # told apart by colour-blind readers too
BASELINE = "full data, half the epochs"  # which needs nothing


def finals(runs: list[dict[str, Any]]) -> list[float]:
    """Test accuracy at the end, in per cent."""
    return [100 * run["accuracy"][-1] for run in runs]


def difference(ours: list[float], theirs: list[float]) -> str:
    """The mean of the differences seed by seed, and its 95 % interval."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    half = student.ppf(0.975, len(differences) - 1) * stdev(differences) / len(differences) ** 0.5
    centre = mean(differences)
    return f"{centre:+.2f} ({centre - half:+.2f} to {centre + half:+.2f})"


def make_table(results: dict[str, Any]) -> str:
    """Markdown: means and standard deviations over the seeds, paired differences, and where the numbers come from."""
    methods = by_method(results)
    lines = [
        f"| method | test accuracy | points above {BASELINE} | images visited | before, to score, by all models |",
        "|:--|--:|--:|--:|--:|",
    ]
    for method, runs in methods.items():
        accuracies = finals(runs)
        versus = "" if method == BASELINE else difference(accuracies, finals(methods[BASELINE]))
        visited, before = mean(sum(run["visited"]) for run in runs), results["to_score"].get(method, 0)
        lines.append(f"| {method} | {mean(accuracies):.2f} % ± {stdev(accuracies):.2f} | {versus} | {visited:,.0f} | {before:,} |")
    note = (
        f"{results['train_images']:,} images; {results['epochs']} epochs, of which half as many with full data in half the epochs; "
        f"EL2N after {results['early']} of them. Mean and standard deviation of {results['seeds']} seeds, differences paired by "
        f"seed with 95 % intervals; one of the {results['test_images']} test images is {100 / results['test_images']:.2f} points. "
        f"{made_by_note(results)}"
    )
    return "\n".join([*lines, "", note])


def draw(results: dict[str, Any], path: Path) -> None:
    """Two panels: where the runs end, and how they get there."""
    mpl.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.grid": True, "grid.alpha": 0.3, "legend.fontsize": 8})
    figure = Figure(figsize=(11, 4.2), layout="constrained", dpi=140)
    ends, ways = figure.subplots(1, 2)
    methods = by_method(results)
    draw_ends(ends, methods)
    draw_ways(ways, methods)
    figure.suptitle(f"scikit-learn's digits, {results['train_images']:,} images, {results['seeds']} seeds", fontsize=12)
    figure.savefig(path)


def draw_ends(axes: Axes, methods: dict[str, list[dict[str, Any]]]) -> None:
    for row, (colour, runs) in enumerate(zip(COLOURS, methods.values(), strict=True)):
        accuracies = finals(runs)
        heights = [row + 0.3 * (place / max(1, len(accuracies) - 1) - 0.5) for place in range(len(accuracies))]
        axes.plot(accuracies, heights, "o", color=colour, alpha=0.45, markersize=4)
        axes.plot(mean(accuracies), row, "|", color=colour, markersize=22, markeredgewidth=2.5)
    axes.set_yticks(range(len(methods)), list(methods))
    axes.invert_yaxis()
    axes.set(title="A dot a seed, a bar for their mean", xlabel="test accuracy at the end")
    axes.xaxis.set_major_formatter(PercentFormatter(100.0, decimals=1))


def draw_ways(axes: Axes, methods: dict[str, list[dict[str, Any]]]) -> None:
    lowest, highest = 100.0, 0.0
    for colour, (method, runs) in zip(COLOURS, methods.items(), strict=True):
        visited = [total / 1000 for total in accumulate(runs[0]["visited"])]
        accuracy = [100 * mean(column) for column in zip(*(run["accuracy"] for run in runs), strict=True)]
        axes.plot(visited, accuracy, color=colour, linewidth=1.2, label=method)
        lowest, highest = min(lowest, accuracy[len(accuracy) // 3]), max(highest, *accuracy)
    axes.set(title="Mean accuracy against images visited", xlabel="images visited (thousands)", ylabel="test accuracy")
    axes.set_xlim(left=0)
    axes.set_ylim(lowest - 1, highest + 0.5)
    axes.yaxis.set_major_formatter(PercentFormatter(100.0, decimals=1))
    axes.legend(loc="lower right")
