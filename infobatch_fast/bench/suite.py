"""The whole benchmark: all operations at all sizes on all devices, as one JSON document."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..machine import load, provenance
from . import answers, floors, operations, parts
from .contender import Contender, Ours, fill_all, synthetic_scores
from .memory import measure_apart
from .operations import Field, Operation
from .roster import contender_classes, fits_alone, fitting
from .timing import FULL, QUICK, Effort, Times, alternate

SAVED = 100_000_000  # checkpoints of up to so many samples are written
WEIGHED = 1_000_000  # below this size a process's own needs hide those of the tables
THREADED = 100_000_000  # the size, or the next one below, at which threads are counted


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Attributes:
        sizes: Numbers of samples.
        devices: "cpu" or "cuda".
        quick: Few rounds and few sizes of updates: figures for development.
        command: Arguments that led here.
    """

    sizes: Sequence[int]
    devices: Sequence[str]
    quick: bool
    command: Sequence[str]

    @property
    def effort(self) -> Effort:
        """How long each row is measured."""
        return QUICK if self.quick else FULL


def run(request: Request, save: Callable[[dict[str, Any]], None]) -> None:
    """Measures everything that was asked for, and saves what there is after each size: the large ones take long."""
    document = provenance(list(request.command))
    document |= {"quick": request.quick, "rows": [], "parts": [], "memory": [], "philox": {}}
    for name in request.devices:
        device = torch.device(name)
        document["philox"][name] = floors.philox_bound(device, torch.get_num_threads())
        for size in request.sizes:
            _at_size(size, device, request, document)
            document["memory"] += _memory(size, device)
            document["load_after"] = load()
            save(document)
        threaded = [size for size in request.sizes if size <= THREADED]
        if device.type == "cpu" and threaded:
            _by_threads(max(threaded), device, request, document)
            save(document | {"load_after": load()})


def say(text: str) -> None:
    """Progress, for who waits."""
    print(text, file=sys.stderr, flush=True)


def _at_size(size: int, device: torch.device, request: Request, document: dict[str, Any]) -> None:
    contenders, left_out = fitting(size, device)
    say(f"{device}, {size} samples: {', '.join(contender.name for contender in contenders)}")
    now = _prepared(size, device, contenders, (256, 4096) if request.quick else operations.UPDATES)
    kinds: list[Callable[[Field], Iterator[Operation]]] = [operations.plans, operations.orders]
    if size <= SAVED:
        kinds += [operations.epochs, operations.states]
    for kind in [*kinds, operations.updates]:  # updates last: they change the scores
        for operation in kind(now):
            document["rows"].append(row(operation, now, request.effort) | {"left_out": left_out})
            say(_line(document["rows"][-1]))
    document["parts"] += parts.measure(now, request.effort)


def _prepared(size: int, device: torch.device, contenders: list[Contender], batches: tuple[int, ...]) -> Field:
    """Contenders that have the same scores and whose answers are right."""
    fill_all(contenders, size)
    scores = torch.empty(size)
    for first in range(0, size, 1 << 20):
        part = scores[first : first + (1 << 20)]
        part.copy_(synthetic_scores(first, part.numel()))
    for contender in contenders:
        answers.check_plan(contender, scores)
    for contender in contenders:
        if "update" in contender.can:
            answers.check_update(contender)
    return Field(size, device, contenders, scores.to(device), torch.arange(max(1, size // 16), device=device), batches)


def row(operation: Operation, now: Field, effort: Effort) -> dict[str, Any]:
    """Times one operation for all contenders and its floor, alternately."""
    timed = [*operation.contenders, operation.floor] if operation.floor else operation.contenders
    times = alternate(timed, effort, now.device)
    floor = times.pop("floor", None)
    ours = times.get(Ours.name)
    return {
        "operation": operation.name,
        "device": now.device.type,
        "samples": now.size,
        "batch": operation.batch,
        "threads": torch.get_num_threads(),
        "unit": operation.unit,
        "floor": floor.spread() if floor else None,
        "contenders": {name: _figures(operation, taken, ours, floor) for name, taken in times.items()},
    }


def _figures(operation: Operation, taken: Times, ours: Times | None, floor: Times | None) -> dict[str, Any]:
    seconds = taken.spread()
    figures = {"seconds": seconds, "ns": seconds["median"] / operation.items * 1e9}
    figures["gb_s"] = operation.moved / seconds["median"] / 1e9
    figures["host_seconds"] = sorted(taken.host_seconds.values())[len(taken.host_seconds) // 2]
    if floor:
        figures["of_floor"] = taken.ratio_to(floor)
    if ours and taken is not ours:
        figures["ratio"] = taken.ratio_to(ours)
    return figures


def _line(entry: dict[str, Any]) -> str:
    shown = (f"{name} {figures['ns']:.3g}" for name, figures in entry["contenders"].items())
    return f"  {entry['operation']:<22} ns {entry['unit']}: {', '.join(shown)}"


def _by_threads(size: int, device: torch.device, request: Request, document: dict[str, Any]) -> None:
    """The plan with one thread, two, and so on up to those that torch has now; with one, the parts of all operations too."""
    most = torch.get_num_threads()
    ours = Ours(size, device)
    now = _prepared(size, device, [ours], ())
    try:
        for threads in sorted({1, most} | {2**power for power in range(most.bit_length())}):
            torch.set_num_threads(threads)
            entry = row(next(operations.plans(now)), now, request.effort)
            document["rows"].append(entry | {"operation": "plan, mean, by threads", "left_out": {}})
            say(f"{threads} threads, {size} samples: plan {entry['contenders'][ours.name]['ns']:.3g} ns a sample")
        if most > 1:
            torch.set_num_threads(1)
            document["parts"] += parts.measure(now, request.effort)
    finally:
        torch.set_num_threads(most)


def _memory(size: int, device: torch.device) -> list[dict[str, Any]]:
    """What each contender holds, in a process of its own."""
    if size < WEIGHED:
        return []
    return [
        {"contender": which.name, "device": device.type, "samples": size, **measure_apart(which.name, size, device)}
        for which in contender_classes(device)
        if fits_alone(which, size, device)
    ]
