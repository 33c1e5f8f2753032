"""The picture of a run. Needs matplotlib."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from .savings import Epoch, every, measure, summarise

LEVELS = 200  # rows of the heat map, on which histograms of all epochs are brought together
COLUMNS = 500  # of the heat map, at most
FEW = 200  # epochs whose points are marked
COLOURS = ("#d62728", "#ff7f0e", "#9467bd")  # of thresholds, ascending


def draw(epochs: list[Epoch]) -> bytes:
    """A PNG picture: kept fraction, samples and time saved, thresholds, and the histogram of the scores by epoch."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    panels = figure.subplot_mosaic([["kept", "samples", "time"], ["scores", "scores", "thresholds"]])
    savings, at = measure(epochs), [epoch["epoch"] for epoch in epochs]
    _kept(panels["kept"], at, epochs)
    _curve(panels["samples"], at, savings.samples, "Samples skipped so far")
    if savings.seconds is None:
        _say(panels["time"], "Time saved so far", savings.basis)
    else:
        _curve(panels["time"], at, savings.seconds, "Seconds saved so far (estimated)")
    scale = _scores(panels["scores"], epochs)
    _thresholds(panels["thresholds"], at, epochs, scale)
    figure.suptitle("\n".join(summarise(epochs)), fontsize=10)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=120, format="png")
    return buffer.getvalue()


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _style(at: list[int]) -> dict[str, Any]:
    """The style of a line. Points are marked only if there are few."""
    return {"marker": "o", "markersize": 3} if len(at) <= FEW else {"linewidth": 0.8}


def _say(axes: Axes, title: str, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
    _finish(axes, title)


def _kept(axes: Axes, at: list[int], epochs: list[Epoch]) -> None:
    title = "Samples kept"
    fractions = [epoch["kept"] / epoch["num_samples"] for epoch in epochs]
    if len(at) > COLUMNS:  # full epochs among pruned ones would make it a block of one colour
        groups = np.array_split(np.array(fractions), COLUMNS)
        starts = [group[0] for group in np.array_split(np.array(at), COLUMNS)]
        axes.fill_between(starts, [part.min() for part in groups], [part.max() for part in groups], alpha=0.3, linewidth=0)
        at, fractions = starts, [part.mean() for part in groups]
        title = "Samples kept: mean and range"
    axes.plot(at, fractions, **_style(at))
    axes.set_ylim(0, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(alpha=0.3)
    _finish(axes, title)


def _curve(axes: Axes, at: list[int], values: list[Any], title: str) -> None:
    axes.plot(at, values, **_style(at))
    axes.set_ylim(min(0, *values), None)
    axes.grid(alpha=0.3)
    _finish(axes, title)


def _thresholds(axes: Axes, at: list[int], epochs: list[Epoch], scale: dict[str, Any]) -> None:
    for tier, colour in enumerate(COLOURS):
        values = [epoch["thresholds"][tier] if tier < len(epoch["thresholds"]) else None for epoch in epochs]
        if any(value is not None for value in values):
            numbers = [np.nan if value is None else value for value in values]
            axes.plot(at, numbers, color=colour, label=f"threshold {tier}", **_style(at))
    if not axes.lines:
        _say(axes, "Thresholds", "no epoch has one")
        return
    axes.set_yscale(**scale)
    axes.grid(alpha=0.3)
    if len(axes.lines) > 1:
        axes.legend(fontsize="small", loc="upper right")  # looking for the best place takes long
    _finish(axes, "Thresholds: below, samples are pruned")


def _scores(axes: Axes, epochs: list[Epoch]) -> dict[str, Any]:
    """The heat map; also how scores are scaled, as arguments of ``set_yscale``."""
    noted = [epoch for epoch in epochs if any(epoch.get("histogram", {}).get("counts", ()))]
    shown = every(noted, COLUMNS)
    which = "each epoch" if len(shown) == len(noted) else f"{len(shown)} of {len(noted):,} epochs"
    title = f"Share of the scores at the end of {which} (colour), and thresholds (lines)"
    if not shown:
        _say(axes, title, "no scores were noted")
        return {"value": "linear"}
    histograms = [(np.array(epoch["histogram"]["counts"], dtype=float), np.array(epoch["histogram"]["edges"])) for epoch in shown]
    # The smallest positive score may be far from all others; bins with few scores at the ends may leave the picture.
    ends = [_bulk(*histogram) for histogram in histograms]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    logarithmic = low > 0 and high / low > 10
    levels = np.geomspace(low, high, LEVELS + 1) if logarithmic else np.linspace(low, high, LEVELS + 1)
    scale = {"value": "log" if logarithmic else "linear"}
    shares = []
    for counts, edges in histograms:
        below = np.interp(levels, edges, np.concatenate(([0.0], counts.cumsum())))
        shares.append(np.diff(below) / counts.sum())
    sides, columns = _columns([epoch["epoch"] for epoch in shown], shares, gaps=len(shown) == len(noted))
    image = axes.pcolormesh(sides, levels, np.ma.masked_less_equal(columns, 0.0), norm=LogNorm(1e-5, 0.2), cmap="viridis")
    axes.figure.colorbar(image, ax=axes)
    for tier, colour in enumerate(COLOURS):
        lines = [(epoch["epoch"], epoch["thresholds"][tier]) for epoch in epochs if tier < len(epoch["thresholds"])]
        values = [np.nan if level is None else level for _, level in lines]
        axes.plot([at for at, _ in lines], values, color=colour, **_style([at for at, _ in lines]))
    axes.set_yscale(**scale)
    axes.set_ylim(low, high)
    axes.set_ylabel("score")
    _finish(axes, title)
    return scale


def _columns(at: list[int], shares: list[Any], gaps: bool) -> tuple[list[float], Any]:
    """Sides and colours of the columns, [LEVELS, columns], in one mesh. Each column reaches to the next one. With ``gaps``, epochs
    without a histogram stay empty.
    """
    sides, columns = [at[0] - 0.5], []
    for place, (epoch, share) in enumerate(zip(at, shares, strict=True)):
        if epoch - 0.5 > sides[-1]:
            sides.append(epoch - 0.5)
            columns.append(np.zeros_like(share))
        last = place == len(at) - 1
        sides.append(epoch + 0.5 if gaps or last else at[place + 1] - 0.5)
        columns.append(share)
    return sides, np.stack(columns, axis=1)


def _bulk(counts: Any, edges: Any) -> tuple[float, float]:
    """The range of scores to draw: from the bin below which 0.1 % of the scores lie, to the largest score."""
    first = int(np.searchsorted(counts.cumsum(), counts.sum() * 0.001, side="right"))
    return float(edges[first]), float(edges[-1])
