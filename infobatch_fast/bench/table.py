"""How figures are written in tables, and the table that the benchmark prints."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .contender import Ours
from .documents import Document
from .operations import NAMES

Row = dict[str, Any]


def size_name(size: int) -> str:
    """A number of samples, in short."""
    digits, power = str(size).rstrip("0"), len(str(size)) - 1
    return f"{digits}e{power}" if power > 2 and len(digits) == 1 else f"{size:,}"


def time_unit(seconds: float) -> tuple[float, str]:
    """The unit that fits a time: what one of it is in seconds, and its name."""
    return next(
        (scale, name) for scale, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")) if seconds >= scale or name == "ns"
    )


def time_name(seconds: float) -> str:
    """A time in a fitting unit."""
    scale, name = time_unit(seconds)
    return f"{seconds / scale:.3g} {name}"


def spread_cell(spread: dict[str, Any], scale: float = 1.0, unit: str = "") -> str:
    """A median with its quartiles."""
    low, middle, high = (spread[key] / scale for key in ("low", "median", "high"))
    return f"{middle:.3g}{unit and ' ' + unit} ({low:.3g}-{high:.3g})"


def time_cell(spread: dict[str, Any]) -> str:
    """A time with its quartiles, in a fitting unit."""
    return spread_cell(spread, *time_unit(spread["median"]))


def own_rows(document: Document, device: str) -> list[Row]:
    """The rows of a device, in the order of ``NAMES`` and sizes."""
    rows = [row for row in document["rows"] if row["device"] == device and row["operation"] in NAMES]
    rows = [row for row in rows if Ours.name in row["contenders"]]
    return sorted(rows, key=lambda row: (NAMES.index(row["operation"]), row["samples"]))


def rivals(rows: Iterable[Row]) -> list[str]:
    """Contenders other than ours, in the order of their first row."""
    return [name for name in dict.fromkeys(name for row in rows for name in row["contenders"]) if name != Ours.name]


def text(document: Document) -> str:
    """Medians of all operations; the document has their quartiles too."""
    lines = []
    for device in sorted({row["device"] for row in document["rows"]}):
        rows = own_rows(document, device)
        names = rivals(rows)
        lines += ["", f"{Ours.name} on {device}, its time in floors, and how many times as long the others take", ""]
        cells = [["operation", "samples", "time", "", "floors", *names]]
        for row in rows:
            ours = row["contenders"][Ours.name]
            ratios = (row["contenders"].get(name, {}).get("ratio") for name in names)
            medians = (f"{ratio['median']:.3g}" if ratio else "-" for ratio in (ours.get("of_floor"), *ratios))
            each = f"{ours['ns']:.3g} ns {row['unit']}"
            cells.append([row["operation"], size_name(row["samples"]), time_name(ours["seconds"]["median"]), each, *medians])
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines += ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in cells]
    return "\n".join(lines[1:])
