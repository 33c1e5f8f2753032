"""The picture of one workload: what quality costs in samples and in seconds, what was saved, and what the losses look like."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl
from config import METHODS
from intervals import Runs, spread
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

COLOURS = dict(zip(METHODS, ("#000000", "#0072B2", "#56B4E9", "#E69F00", "#009E73"), strict=True))  # told apart by all


def draw(results: dict[str, Any], methods: dict[str, Runs], title: str, path: Path) -> None:
    mpl.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.grid": True, "grid.alpha": 0.3, "legend.fontsize": 8})
    figure = Figure(figsize=(10, 7.5), layout="constrained", dpi=110)
    panels = figure.subplots(2, 2)
    label = "validation loss (bits a byte)" if results["workload"] == "text" else "test accuracy"
    draw_quality(panels[0, 0], methods, "visited", label, "thousand samples visited", 1e-3)
    draw_quality(panels[0, 1], methods, "cpu", label, "processor seconds in training", 1.0)
    draw_saved(panels[1, 0], methods)
    draw_skewness(panels[1, 1], methods, results["config"]["prune_ratio"])
    figure.suptitle(title, fontsize=12)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def by_epoch(runs: Runs, name: str, epochs: int) -> list[tuple[float, ...]]:
    """For each of the last ``epochs`` epochs the values of all seeds."""
    return list(zip(*(run[name][-epochs:] for run in runs.values()), strict=True))


def draw_quality(axes: Axes, methods: dict[str, Runs], name: str, label: str, unit: str, scale: float) -> None:
    """The mean over the seeds, a band of one standard deviation to each side, and where the runs end."""
    ends: list[float] = []
    for method, runs in methods.items():
        epochs = min(len(run["metric"]) for run in runs.values())  # "fewer" may differ by one: its first epoch is cut
        totals = zip(*(list(accumulate(run[name]))[-epochs:] for run in runs.values()), strict=True)
        x = [scale * mean(column) for column in totals]
        columns = by_epoch(runs, "metric", epochs)
        y = [mean(column) for column in columns]
        if len(runs) > 1:
            low, high = ([m + sign * spread(c) for m, c in zip(y, columns, strict=True)] for sign in (-1, 1))
            axes.fill_between(x, low, high, color=COLOURS[method], alpha=0.12, linewidth=0)
        axes.plot(x, y, color=COLOURS[method], linewidth=1.2, label=METHODS[method])
        axes.plot(x[-1], y[-1], "o", color=COLOURS[method])
        ends += [y[-1], y[epochs // 4]]
    margin = 0.1 * (max(ends) - min(ends))
    axes.set(title=f"Quality against {unit}", xlabel=unit, ylabel=label, ylim=(min(ends) - margin, max(ends) + margin))
    axes.set_xlim(left=0)
    if label == "test accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    axes.legend(title="mean and standard deviation over seeds")


def draw_saved(axes: Axes, methods: dict[str, Runs]) -> None:
    for method in ("infobatch", "tiers", "random"):
        if runs := methods.get(method):
            saved = [mean(column) for column in by_epoch(runs, "saved", min(len(run["saved"]) for run in runs.values()))]
            axes.plot(saved, ".-", color=COLOURS[method], label=METHODS[method])
    axes.set(title="Saved fraction by epoch", xlabel="epoch", ylabel="1 - samples visited / all samples", ylim=(0, 0.6))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.legend()


def pruned_epochs(runs: Sequence[dict[str, Any]]) -> list[tuple[dict[str, float], float]]:
    """Scores and saved fraction of each epoch in which something was pruned."""
    return [(scores, saved) for run in runs for scores, saved in zip(run["scores"], run["saved"], strict=True) if saved > 0]


def draw_skewness(axes: Axes, methods: dict[str, Runs], ratio: float) -> None:
    """A point for each pruned epoch of each seed of InfoBatch."""
    points = pruned_epochs(list(methods.get("infobatch", {}).values()))
    if points:
        medians = [scores["median"] / scores["mean"] for scores, _ in points]
        axes.scatter(medians, [saved for _, saved in points], s=8, color=COLOURS["infobatch"], alpha=0.5, label="saved")
        expected = [ratio * scores["below_mean"] for scores, _ in points]
        axes.scatter(medians, expected, s=8, marker="x", linewidth=0.6, color="#000000", label="r x fraction below the mean")
        axes.legend()
    axes.set(title="InfoBatch: what the skew of the losses saves", xlabel="median loss / mean loss", ylabel="saved fraction")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
