"""A picture of how the time of a plan grows with the number of samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from infobatch_fast.bench.contender import Ours
from infobatch_fast.bench.documents import Document
from infobatch_fast.bench.table import own_rows, rivals


def draw(document: Document, device: str, folder: Path, gpus: Sequence[dict[str, Any]] = ()) -> Path:
    """Medians and quartiles of all contenders and of the floor, in a PNG; its path.

    Args:
        document: Of the bench.
        device: Which of its devices.
        folder: Where the picture goes.
        gpus: What scripts/gpu_check.py found on GPUs; each adds a curve.
    """
    rows = [row for row in own_rows(document, device) if row["operation"] == "plan, mean"]
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for name in (*rivals(rows), Ours.name, "floor"):
        found = [(row["samples"], row["contenders"].get(name, {}).get("seconds")) for row in rows]
        if name == "floor":
            found = [(row["samples"], row["floor"]) for row in rows]
        points = [(size, seconds) for size, seconds in found if seconds]
        sizes = [size for size, _ in points]
        low, middle, high = ([seconds[key] for _, seconds in points] for key in ("low", "median", "high"))
        style: dict[str, Any] = {"linewidth": 2.2 if name == Ours.name else 1.2, "marker": "o", "markersize": 3.5}
        if name == "floor":
            style = {"color": "black", "linestyle": ":"}
        (line,) = axes.plot(sizes, middle, label=name, **style)
        axes.fill_between(sizes, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    for gpu in gpus:
        plans = [
            figure for figure in gpu["stages"]["speed"]["figures"] if (figure.get("what"), figure.get("policy")) == ("plan", "mean")
        ]
        points = [(figure["samples"], figure["seconds"]["median"]) for figure in plans]
        axes.plot(*zip(*points, strict=True), label=f"{Ours.name}, {gpu['device']}", color="black", marker="s", markersize=3.5)
    title = f"Time to plan an epoch on {device}" + (" and GPU" if gpus else "")
    axes.set(title=title, xlabel="samples", ylabel="seconds", xscale="log", yscale="log")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    machine = document["machine"]
    name = machine["gpus"][0]["name"] if device == "cuda" and machine["gpus"] else machine["cpu"]
    path = folder / f"{device}_{'_'.join(name.lower().split())}_plan.png"
    figure.savefig(path, dpi=120)
    return path
