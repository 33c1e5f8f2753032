"""The picture of one series: what each method ends at, beside full data with the same seeds, against its visits."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from methods import METHODS
from results import Series
from tables import compare

COLOURS = {"all": "#000000", "uniform": "#E69F00", "mean": "#0072B2", "importance": "#009E73"}  # told apart by all
MARKERS = {("step", "visits"): "o", ("step", "epochs"): "s", ("epoch", "visits"): "^", ("epoch", "epochs"): "v"}
STEPS = {"step": "steps of full size", "epoch": "larger steps"}
# Methods with as many visits stand side by side, in % of full training.
DODGE = {"all": 0.0, "uniform": -1.7, "mean": 1.7, "importance": 1.7}
DODGE_STEPS = {("step", "visits"): 0.0, ("step", "epochs"): -0.5, ("epoch", "visits"): 0.5, ("epoch", "epochs"): 1.0}


def label(name: str) -> str:
    method = METHODS[name]
    if method.draw == "all":
        return "full epochs"
    return f"{method.title}, {STEPS[method.rescale]}, by {method.by}"


def draw(series: Series, path: Path) -> None:
    mpl.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.grid": True, "grid.alpha": 0.3, "legend.fontsize": 8})
    figure = Figure(figsize=(10, 6), layout="constrained", dpi=110)
    panels = figure.subplots(1, 2)
    titles = "test accuracy minus that of full data, points", "test negative log-likelihood minus that of full data, nats"
    for axes, value, title in zip(panels, ("accuracy", "nll"), titles, strict=True):
        shown: set[str] = set()
        for name in series.methods:
            method, text = METHODS[name], label(name)
            found = compare(series, name, "full", value)
            if found is None:
                continue
            steps = method.rescale, method.by
            axes.errorbar(
                100 * series.visits(name) + DODGE[method.draw] + (DODGE_STEPS[steps] if method.weighted else 1.5),
                found.mean,
                found.half_width if found.pairs > 1 else 0.0,
                fmt=MARKERS[steps] if method.weighted else "x",
                color=COLOURS[method.draw],
                capsize=2,
                markersize=5,
                label="" if text in shown else text,
            )
            shown.add(text)
        axes.set(xlabel="visits, % of full training (moved apart)", title=title)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(f"{series.title}: paired by seed, with 95 % intervals, up to {len(series.methods['full'])} seeds")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
