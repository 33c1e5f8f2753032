"""The picture of one series: accuracy and likelihood against visits, all methods, with their intervals."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import mean

import matplotlib as mpl
from intervals import quantile, spread
from matplotlib.figure import Figure
from methods import METHODS
from results import Series

COLOURS = {"all": "#000000", "uniform": "#E69F00", "mean": "#0072B2", "importance": "#009E73"}  # told apart by all
MARKERS = {("step", "visits"): "o", ("step", "epochs"): "s", ("epoch", "visits"): "^", ("epoch", "epochs"): "v"}
STEPS = {"step": "steps of full size", "epoch": "larger steps"}
DODGE = {"all": 0.0, "uniform": -1.0, "mean": 1.0, "importance": 2.0}  # of methods with as many visits, in % of full training


def label(name: str) -> str:
    method = METHODS[name]
    if method.draw == "all":
        return "full epochs"
    return f"{method.title}, {STEPS[method.rescale]}, by {method.by}"


def draw(series: Series, path: Path) -> None:
    mpl.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.grid": True, "grid.alpha": 0.3, "legend.fontsize": 8})
    figure = Figure(figsize=(11, 4.6), layout="constrained", dpi=110)
    panels = figure.subplots(1, 2)
    for axes, value, title in zip(
        panels, ("accuracy", "nll"), ("test accuracy, %", "test negative log-likelihood, nats"), strict=True
    ):
        shown: set[str] = set()
        for name, runs in series.methods.items():
            method, text = METHODS[name], label(name)
            values = [run[value] for run in runs.values()]
            half = quantile(len(values)) * spread(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
            axes.errorbar(
                100 * series.visits(name) + DODGE[method.draw],
                mean(values),
                half,
                fmt=MARKERS[method.rescale, method.by] if method.weighted else "x",
                color=COLOURS[method.draw],
                capsize=3,
                label="" if text in shown else text,
            )
            shown.add(text)
        axes.set(xlabel="visits, % of full training (moved apart a little)", ylabel=title, title=title)
    panels[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.suptitle(f"{series.title}: means and 95 % intervals of {len(series.methods['full'])} seeds")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
