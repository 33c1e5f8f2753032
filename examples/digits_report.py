"""Shows the numbers that digits.py has written: the Markdown table of the README, and the picture."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
from itertools import accumulate
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from infobatch_fast import __version__ as version

BINS_PER_DECADE, FIRST_DECADE, DECADES = 4, -6, 8  # of the histogram of losses
COLOURS = ("#000000", "#0072B2", "#E69F00", "#009E73")  # told apart by colour-blind readers too


def describe_machine() -> dict[str, Any]:
    """Where the numbers come from."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].split(":")[1].strip() if names else cpu
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return {
        "machine": f"{cpu}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "infobatch_fast": version},
        "commit": git.stdout.strip() or "unknown",
        "command": " ".join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
    }


def by_method(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
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
    made_by = results["made_by"]
    versions = ", ".join(f"{name} {number}" for name, number in made_by["versions"].items())
    note = (
        f"{results['epochs']} epochs of {results['train_images']:,} images, mean of {results['seeds']} seeds, ± one standard "
        f"deviation; one of the {results['test_images']} test images is {100 / results['test_images']:.2f} points. In the sampler: "
        "making the plans, drawing batches of indices, and `update`, which also takes the weighted mean of the losses. Made by "
        f"`{made_by['command']}` at commit {made_by['commit']} on {made_by['machine']}, with {versions}."
    )
    return "\n".join([*lines, "", note])


def draw(results: dict[str, Any], path: Path) -> None:
    """Four panels: what accuracy costs, what is kept, below which loss samples are pruned, and where the losses lie."""
    mpl.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.grid": True, "grid.alpha": 0.3, "legend.fontsize": 8})
    figure = Figure(figsize=(10, 7), layout="constrained", dpi=140)
    panels = figure.subplots(2, 2)
    methods = by_method(results)
    for colour, (method, runs) in zip(COLOURS, methods.items(), strict=True):
        draw_accuracy(panels[0, 0], method, runs, colour)
        if method != "full data, fewer epochs":
            kept = [mean(epoch) / results["train_images"] for epoch in zip(*(run["visited"] for run in runs), strict=True)]
            panels[0, 1].plot(kept, color=colour, label=method)
    panels[0, 0].set(title="Accuracy against samples visited", xlabel="samples visited (thousands)", ylabel="test accuracy")
    panels[0, 0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panels[0, 0].set_ylim(0.955, 1.001)
    panels[0, 0].legend(loc="lower right")
    panels[0, 1].set(title="Fraction of the samples that an epoch visits", xlabel="epoch", ylabel="kept", ylim=(0, 1.05))
    panels[0, 1].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panels[0, 1].legend(loc="lower left")
    draw_threshold(panels[1, 0], methods["InfoBatch"])
    draw_histogram(panels[1, 1], methods["InfoBatch"][0], results["epochs"] // 2)
    figure.suptitle(f"InfoBatch on scikit-learn's digits: {results['epochs']} epochs, {results['seeds']} seeds", fontsize=12)
    figure.savefig(path)


def draw_accuracy(axes: Axes, method: str, runs: list[dict[str, Any]], colour: str) -> None:
    """The mean over the seeds, a band from the lowest to the highest, and where the runs end."""
    epochs = min(len(run["visited"]) for run in runs)  # runs "with fewer epochs" differ by one or two
    visited = [mean(column) / 1000 for column in zip(*(list(accumulate(run["visited"]))[:epochs] for run in runs), strict=True)]
    accuracy = list(zip(*(run["accuracy"][-epochs:] for run in runs), strict=True))
    axes.fill_between(visited, [min(a) for a in accuracy], [max(a) for a in accuracy], color=colour, alpha=0.12, linewidth=0)
    axes.plot(visited, [mean(a) for a in accuracy], color=colour, linewidth=1.2, label=method)
    axes.plot(visited[-1], mean(accuracy[-1]), "o", color=colour)


def draw_threshold(axes: Axes, runs: list[dict[str, Any]]) -> None:
    for number, run in enumerate(runs):
        epochs = [epoch for epoch, threshold in enumerate(run["threshold"]) if threshold is not None]
        thresholds = [run["threshold"][epoch] for epoch in epochs]
        axes.plot(
            epochs, thresholds, color=COLOURS[1], alpha=0.7, linewidth=1, label=None if number else "mean loss, one line a seed"
        )
    axes.axvspan(max(epochs) + 1, len(run["threshold"]), color="grey", alpha=0.15, linewidth=0, label="full epochs at the end")
    axes.set(title="Threshold of InfoBatch", xlabel="epoch", ylabel="loss below which samples are pruned", yscale="log")
    axes.legend(loc="upper right")


def draw_histogram(axes: Axes, run: dict[str, Any], epoch: int) -> None:
    """The losses that a plan was made of, and its threshold."""
    edges = [10 ** (FIRST_DECADE + bin / BINS_PER_DECADE) for bin in range(BINS_PER_DECADE * DECADES + 1)]
    threshold = run["threshold"][epoch]
    axes.stairs(run["histogram"], edges, fill=True, color=COLOURS[1], alpha=0.45)
    axes.axvline(threshold, color=COLOURS[1], linewidth=1.5)
    axes.set(title=f"Losses known in epoch {epoch}, seed {run['seed']}", xlabel="last seen loss", ylabel="samples", xscale="log")
