"""All operations at one size on one device, timed after the answers were checked: rows for a JSON document."""

from __future__ import annotations

import sys
from typing import Any

import torch

from . import answers
from .contender import Contender, Ours, fill_all
from .operations import KINDS, Field, Operation
from .roster import fitting
from .timing import FULL, QUICK, Effort, Times, alternate


def measure(size: int, device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """Times all operations that fit ``size`` samples, a row for each operation. Prints its progress."""
    contenders, left_out = fitting(size, device)
    _say(f"{device}, {size} samples: {', '.join(contender.name for contender in contenders) or 'no room'}")
    if not contenders:
        return []
    now = prepared(size, device, contenders)
    rows = []
    for kind in KINDS:
        for operation in kind(now):
            rows.append(row(operation, now, QUICK if quick else FULL) | {"left_out": left_out})
            shown = (f"{name} {figures['ns']:.3g}" for name, figures in rows[-1]["contenders"].items())
            _say(f"  {operation.name:<22} ns {operation.unit}: {', '.join(shown)}")
    return rows


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def prepared(size: int, device: torch.device, contenders: list[Contender]) -> Field:
    """Contenders that have the same scores and whose answers are right."""
    scores = fill_all(contenders, size)
    for contender in contenders:
        answers.check_plan(contender, scores)
    for contender in contenders:
        if hasattr(contender, "update"):
            answers.check_update(contender)
    return Field(size, device, contenders, scores.to(device), torch.arange(max(1, size // 16), device=device))


def row(operation: Operation, now: Field, effort: Effort) -> dict[str, Any]:
    """Times one operation for all contenders and its floor, alternately."""
    times = alternate([*operation.contenders, operation.floor], effort, now.device)
    floor, ours = times.pop("floor"), times[Ours.name]
    return {
        "operation": operation.name,
        "device": now.device.type,
        "samples": now.size,
        "batch": operation.batch,
        "threads": torch.get_num_threads(),
        "unit": operation.unit,
        "floor": floor.spread(),
        "contenders": {name: _figures(operation, taken, ours, floor) for name, taken in times.items()},
    }


def _figures(operation: Operation, taken: Times, ours: Times, floor: Times) -> dict[str, Any]:
    seconds = taken.spread()
    figures = {"seconds": seconds, "ns": seconds["median"] / operation.items * 1e9, "of_floor": taken.ratio_to(floor)}
    figures["gb_s"] = operation.moved / seconds["median"] / 1e9
    return figures if taken is ours else figures | {"ratio": taken.ratio_to(ours)}
