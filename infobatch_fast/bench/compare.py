"""Two measurements beside each other: what changed by more than their spread."""

from __future__ import annotations

from typing import Any

from .contender import Ours
from .documents import Document, NoMeasurement


def _own_rows(document: Document) -> dict[tuple[Any, ...], dict[str, Any]]:
    rows = {}
    for row in document.get("rows", []):
        figures = row["contenders"].get(Ours.name)
        if figures:
            rows[row["device"], row["operation"], row["samples"], row["threads"]] = figures
    return rows


def _hardware(document: Document) -> tuple[Any, ...]:
    machine = document["machine"]
    return machine["cpu"], machine["cores"], tuple(gpu["name"] for gpu in machine["gpus"])


def compare(old: Document, new: Document) -> tuple[str, int]:
    """A line for each row of infobatch_fast that both have and whose quartiles do not overlap.

    Measurements of one machine are compared by times, measurements of two machines by multiples of the floor.

    Returns:
        The text, and how many rows are slower.

    Raises:
        NoMeasurement: They have no row in common.
    """
    before, after = _own_rows(old), _own_rows(new)
    alike = _hardware(old) == _hardware(new)
    measure = "seconds" if alike else "of_floor"
    slower, faster = [], []
    common = [key for key in before if key in after and measure in before[key] and measure in after[key]]
    for key in common:
        was, now = before[key][measure], after[key][measure]
        device, operation, samples, threads = key
        change = 100 * (now["median"] / was["median"] - 1)
        line = f"  {change:+7.1f} %  {operation}, {samples:.0e} samples, {device}, {threads} threads"
        line += f"  ({was['low']:.3g}-{was['high']:.3g} -> {now['low']:.3g}-{now['high']:.3g})"
        if now["low"] > was["high"]:
            slower.append((change, line))
        elif now["high"] < was["low"]:
            faster.append((change, line))
    if not common:
        raise NoMeasurement("the files have no row in common: measure the same sizes and devices, with as many threads")
    unit = "seconds" if alike else "multiples of the floor, as the machines differ"
    text = [f"{len(common)} rows in common, in {unit}; old {old['commit']}, new {new['commit']}"]
    for title, found in (("slower", sorted(slower, reverse=True)), ("faster", sorted(faster))):
        text += [f"{len(found)} {title} beyond the spread", *(line for _, line in found)]
    return "\n".join(text), len(slower)
