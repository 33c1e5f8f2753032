"""Shows the numbers that digits.py has written: the Markdown table of the README, and the picture."""

from __future__ import annotations

import argparse
from itertools import accumulate
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

BINS_PER_DECADE, FIRST_DECADE, DECADES = 4, -8, 10  # of the histogram of losses
COLOURS = ("#000000", "#0072B2", "#E69F00", "#009E73")  # told apart by colour-blind readers too


def picture(text: str) -> Path:
    """A picture's file, for argparse."""
    if not text.endswith((".png", ".pdf", ".svg")):
        raise argparse.ArgumentTypeError(f"must end with .png, .pdf or .svg, got {text!r}")
    return Path(text)


def by_method(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The runs of each method, by seed."""
    methods: dict[str, list[dict[str, Any]]] = {}
    for run in results["runs"]:
        methods.setdefault(run["method"], []).append(run)
    return methods


def make_table(results: dict[str, Any]) -> str:
    """Markdown: means over the seeds, the standard deviation of the accuracy, and where the numbers come from."""
    lines = [
        "| method | test accuracy | samples visited | saved | seconds in training | of these in the sampler |",
        "|:--|--:|--:|--:|--:|--:|",
    ]
    for method, runs in by_method(results).items():
        accuracies = [100 * run["accuracy"][-1] for run in runs]
        spread = f" ± {stdev(accuracies):.2f}" if len(runs) > 1 else ""
        visited = mean(sum(run["visited"]) for run in runs)
        saved = 1 - visited / (results["epochs"] * results["train_images"])
        training = mean(run["seconds"]["training"] for run in runs)
        sampler = mean(sum(run["seconds"][part] for part in ("plan", "batches", "update")) for run in runs)
        lines.append(
            f"| {method} | {mean(accuracies):.2f} %{spread} | {visited:,.0f} | {100 * saved:.1f} % | {training:.1f} | "
            f"{sampler:.2f} ({100 * sampler / training:.1f} %) |"
        )
    seeds = "one seed" if results["seeds"] == 1 else f"mean and standard deviation of {results['seeds']} seeds"
    note = (
        f"{results['epochs']} epochs of {results['train_images']:,} images, {seeds}; one of the {results['test_images']} test "
        f"images is {100 / results['test_images']:.2f} points. In the sampler: making the plans, drawing batches of indices, and "
        f"`update`, which also takes the weighted mean of the losses. {made_by_note(results)}"
    )
    return "\n".join([*lines, "", note, "", in_words(results)])


def in_words(results: dict[str, Any]) -> str:
    """What the table says, in plain words. Differences are paired by seed."""
    methods = by_method(results)
    full, fewer = (ends(methods[name]) for name in ("full data", "full data, fewer epochs"))
    budget = results["epochs"] * results["train_images"]
    lines = []
    for name in ("InfoBatch", "importance sampling"):
        accuracies = ends(methods[name])
        skipped = 1 - mean(sum(run["visited"]) for run in methods[name]) / budget
        title = name[0].upper() + name[1:]
        lines.append(
            f"{title} skipped {100 * skipped:.0f} % of the visits. It ended {between(accuracies, full)} from full training, and "
            f"{between(accuracies, fewer)} from fewer full epochs with as many visits."
        )
    lines.append("On such small data differences are a few test images: docs/study.md says when pruning pays, and when not.")
    return "\n".join(lines)


def ends(runs: list[dict[str, Any]]) -> list[float]:
    """Final accuracies in percent, by seed."""
    return [100 * run["accuracy"][-1] for run in runs]


def between(one: list[float], other: list[float]) -> str:
    differences = [a - b for a, b in zip(one, other, strict=True)]
    return f"{mean(differences):+.2f} points (seeds: {min(differences):+.2f} to {max(differences):+.2f})"


def made_by_note(results: dict[str, Any]) -> str:
    """By which command, at which commit and on which machine the numbers were made."""
    made_by = results["made_by"]
    machine, versions = made_by["machine"], made_by["versions"]
    commit, _, changes = (made_by["commit"] or "unknown").partition("+")
    return (
        f"Made by `{made_by['command']}` at commit {commit[:10]}{changes and ' with changes'} on {machine['cores']} cores of "
        f"{machine['cpu']} ({machine['architecture']}), Python {versions['python']}, torch {versions['torch']}."
    )


def draw(results: dict[str, Any], path: Path) -> None:
    """Four panels: what accuracy costs, what is kept, below which loss samples are pruned, and where the losses lie."""
    mpl.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.grid": True, "grid.alpha": 0.3, "legend.fontsize": 8})
    figure = Figure(figsize=(10, 7), layout="constrained", dpi=140)
    panels = figure.subplots(2, 2)
    methods = by_method(results)
    draw_accuracy(panels[0, 0], methods)
    draw_kept(panels[0, 1], methods, results["train_images"])
    draw_threshold(panels[1, 0], methods["InfoBatch"])
    draw_histogram(panels[1, 1], methods["InfoBatch"][0], results["epochs"] // 2)
    figure.suptitle(f"scikit-learn's digits, {results['epochs']} epochs, {results['seeds']} seeds", fontsize=12)
    figure.savefig(path)


def draw_accuracy(axes: Axes, methods: dict[str, list[dict[str, Any]]]) -> None:
    """The mean over the seeds, a band from the lowest to the highest, and where the runs end."""
    lowest = 1.0
    for colour, (method, runs) in zip(COLOURS, methods.items(), strict=True):
        epochs = min(len(run["visited"]) for run in runs)  # those "with fewer epochs" differ by one or two: the first ones are cut
        totals = [list(accumulate(run["visited"]))[-epochs:] for run in runs]
        visited = [mean(column) / 1000 for column in zip(*totals, strict=True)]
        accuracy = list(zip(*(run["accuracy"][-epochs:] for run in runs), strict=True))
        axes.fill_between(visited, [min(a) for a in accuracy], [max(a) for a in accuracy], color=colour, alpha=0.12, linewidth=0)
        axes.plot(visited, [mean(a) for a in accuracy], color=colour, linewidth=1.2, label=method)
        axes.plot(visited[-1], mean(accuracy[-1]), "o", color=colour)
        lowest = min(lowest, *accuracy[-1])
    axes.set(title="Accuracy against samples visited", xlabel="samples visited (thousands)", ylabel="test accuracy")
    axes.set_xlim(left=0)
    axes.set_ylim(1 - 2 * (1.002 - lowest), 1.002)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    axes.legend(loc="lower right", title="mean, range over seeds")


def draw_kept(axes: Axes, methods: dict[str, list[dict[str, Any]]], images: int) -> None:
    for colour, method in zip(COLOURS, ("full data", "InfoBatch", "importance sampling"), strict=False):
        kept = [mean(column) / images for column in zip(*(run["visited"] for run in methods[method]), strict=True)]
        axes.plot(kept, color=colour, label=method)
    axes.set(title="Kept fraction", xlabel="epoch", ylabel="samples visited / all samples", ylim=(0, 1.05))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.legend(loc="lower left")


def draw_threshold(axes: Axes, runs: list[dict[str, Any]]) -> None:
    for number, run in enumerate(runs):
        epochs = [epoch for epoch, threshold in enumerate(run["threshold"]) if threshold is not None]
        thresholds = [run["threshold"][epoch] for epoch in epochs]
        axes.plot(epochs, thresholds, color=COLOURS[1], alpha=0.7, linewidth=1, label=None if number else "one line a seed")
    axes.axvspan(max(epochs) + 1, len(run["threshold"]) - 1, color="grey", alpha=0.15, linewidth=0, label="nothing is pruned")
    axes.set(title="InfoBatch's threshold: the mean of the known losses", xlabel="epoch", ylabel="loss (nats)", yscale="log")
    axes.legend(loc="upper right")


def draw_histogram(axes: Axes, run: dict[str, Any], epoch: int) -> None:
    """The losses that a plan was made of, and its threshold."""
    edges = [10 ** (FIRST_DECADE + number / BINS_PER_DECADE) for number in range(BINS_PER_DECADE * DECADES + 1)]
    threshold = run["threshold"][epoch]
    axes.stairs(run["histogram"], edges, fill=True, color=COLOURS[1], alpha=0.45)
    axes.axvspan(
        edges[0], threshold, color=COLOURS[2], alpha=0.15, linewidth=0, zorder=0, label="below: skipped with probability 0.5"
    )
    axes.axvline(threshold, color=COLOURS[2], linewidth=1.5, label=f"threshold {threshold:.2g}")
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.25 * max(run["histogram"])), xscale="log")
    axes.set(
        title=f"InfoBatch's losses before epoch {epoch}, seed {run['seed']}",
        xlabel="last seen loss (nats; the first bar: or less)",
        ylabel="samples",
    )
    axes.legend(loc="upper left")
