"""PNG pictures of measured JSON documents: how cost grows. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import growth
from .contender import Ours
from .growth import Document, Points

COLOURS = {
    "infobatch_fast": "#d62728",
    "published": "#7f7f7f",
    "NumPy": "#1f77b4",
    "torch ops": "#ff7f0e",
    "RandomSampler": "#2ca02c",
    "DistributedSampler": "#9467bd",
    "infobatch package": "#8c564b",
    "floor": "#000000",
}
FIT_FROM = 1e6  # slopes are fitted where fixed costs no longer count


def draw(documents: Sequence[Document], folder: Path) -> list[Path]:
    """Writes all pictures; their paths. A picture that has nothing to show is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for document in documents:
        for device in sorted({row["device"] for row in document.get("rows", [])}):
            for name, paint in PICTURES.items():
                figure = Figure(figsize=(6.4, 4.4), layout="constrained")
                if paint(figure.add_subplot(), document, device):
                    written.append(folder / f"{_machine_name(document, device)}_{name}.png")
                    figure.savefig(written[-1], dpi=120)
    return written


def _machine_name(document: Document, device: str) -> str:
    machine = document["machine"]
    name = machine["gpus"][0]["name"] if device == "cuda" and machine["gpus"] else machine["cpu"]
    kept = "".join(letter if letter.isalnum() else "_" for letter in name.lower()).strip("_")
    return f"{device}_{kept}"


def _curves(axes: Axes, curves: dict[str, Points], fit_from: float | None) -> None:
    for name, points in curves.items():
        places = [place for place, _ in points]
        middle, low, high = ([spread[key] for _, spread in points] for key in ("median", "low", "high"))
        slope = growth.slope(points, fit_from) if fit_from is not None else None
        style: dict[str, Any] = {"linestyle": ":", "marker": None} if name == "floor" else {"linestyle": "-", "marker": "o"}
        label = name if slope is None else f"{name} (slope {slope:.2f})"
        width = 2.2 if name == Ours.name else 1.2
        axes.plot(places, middle, label=label, color=COLOURS.get(name), linewidth=width, markersize=3.5, **style)
        axes.fill_between(places, low, high, color=COLOURS.get(name), alpha=0.2, linewidth=0)


def _finish(axes: Axes, title: str, x: str, y: str) -> bool:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(which="major", alpha=0.3)
    axes.legend(fontsize="small")
    return True


def _time_of(operation: str, title: str, per: str) -> Callable[[Axes, Document, str], bool]:
    def paint(axes: Axes, document: Document, device: str) -> bool:
        curves = growth.of_operation(document, device, operation)
        if len(curves.get(Ours.name, [])) < 2:
            return False
        _curves(axes, curves, FIT_FROM)
        return _finish(axes, f"{title} on {device}", "samples", f"seconds {per}")

    return paint


def _updates(axes: Axes, document: Document, device: str) -> bool:
    sizes = sorted({row["batch"] for row in document["rows"] if row["device"] == device and row["batch"]})
    drawn = False
    for batch in sizes:
        curves = growth.of_operation(document, device, f"update, B = {batch}")
        points = curves.get(Ours.name, [])
        if len(points) < 2:
            continue
        drawn = True
        places, values = [place for place, _ in points], [spread["median"] / batch * 1e9 for _, spread in points]
        (line,) = axes.plot(places, values, marker="o", markersize=3.5, label=f"infobatch_fast, B = {batch}")
        values = [spread["median"] / batch * 1e9 for _, spread in curves["floor"]]
        axes.plot(places, values, linestyle=":", color=line.get_color())
    title = f"Update by number of samples on {device} (dotted: index_copy_ alone)"
    return drawn and _finish(axes, title, "samples", "ns a loss")


def _memory(axes: Axes, document: Document, device: str) -> bool:
    curves = growth.of_memory(document, device, "gpu_held_bytes" if device == "cuda" else "held_bytes")
    if len(curves.get(Ours.name, [])) < 2:
        return False
    _curves(axes, curves, None)
    return _finish(axes, f"Memory held on {device}", "samples", "bytes")


def _threads(axes: Axes, document: Document, device: str) -> bool:
    curves = growth.of_operation(document, device, "plan, mean, by threads", by="threads")
    points = curves.get(Ours.name, [])
    if len(points) < 2:
        return False
    _curves(axes, curves, None)
    threads, first = [place for place, _ in points], points[0][1]["median"]
    axes.plot(threads, [first / count for count in threads], "--", color="#bbbbbb", label="linear")
    _finish(axes, "Plan by number of threads", "threads", "seconds")
    axes.set_xticks(threads, [str(count) for count in threads])
    axes.minorticks_off()
    return True


PICTURES: dict[str, Callable[[Axes, Document, str], bool]] = {
    "plan": _time_of("plan, mean", "Plan of an epoch", "an epoch"),
    "quantiles": _time_of("plan, quantile tiers", "Plan of an epoch, quantile tiers", "an epoch"),
    "epoch": _time_of("epoch, one by one", "Plan and all ids, one by one,", "an epoch"),
    "tensor": _time_of("epoch, as a tensor", "Plan and all ids, as a tensor,", "an epoch"),
    "order": _time_of("order, one by one", "Order, one by one,", "an index"),
    "update": _updates,
    "memory": _memory,
    "threads": _threads,
}
