"""How cost grows: figures of one operation by size, and the slopes of their logarithms."""

from __future__ import annotations

from typing import Any

import numpy as np

Document = dict[str, Any]
Points = list[tuple[float, dict[str, Any]]]


def of_operation(document: Document, device: str, operation: str, by: str = "samples") -> dict[str, Points]:
    """By contender: the spreads of its seconds, over the row's number ``by``."""
    found: dict[str, Points] = {}
    for row in document.get("rows", []):
        if row["device"] != device or row["operation"] != operation:
            continue
        for name, figures in row["contenders"].items():
            found.setdefault(name, []).append((row[by], figures["seconds"]))
        if row["floor"]:
            found.setdefault("floor", []).append((row[by], row["floor"]))
    return {name: sorted(points, key=lambda point: point[0]) for name, points in found.items()}


def of_memory(document: Document, device: str, key: str) -> dict[str, Points]:
    """By contender: bytes over samples."""
    found: dict[str, Points] = {}
    for row in document.get("memory", []):
        if row["device"] == device and row.get(key):
            value = float(row[key])
            found.setdefault(row["contender"], []).append((row["samples"], {"median": value, "low": value, "high": value}))
    return {name: sorted(points, key=lambda point: point[0]) for name, points in found.items()}


def slope(points: Points, least: float = 0.0) -> float | None:
    """The b of the least-squares fit of time = a * size^b, over sizes from ``least`` on; None for fewer than two of them."""
    used = [(size, spread["median"]) for size, spread in points if size >= least and spread["median"] > 0]
    if len({size for size, _ in used}) < 2:
        return None
    sizes, values = np.log(np.array(used)).T
    return float(np.polyfit(sizes, values, 1)[0])
