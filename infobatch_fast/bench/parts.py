"""What an operation's time goes into: its native parts, and what torch alone takes for the memory that they must touch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import torch

from ..engine import ops
from ..engine.chunks import CHUNK
from . import floors
from .contender import Ours
from .operations import Field, epoch_numbers, exhaust, places
from .timing import Effort, Timed, alternate

BATCH = 1024
CALLS = 256  # updates a run, each of other ids


def measure(now: Field, effort: Effort) -> list[dict[str, Any]]:
    """Rows for the parts of a plan, an order and an update, with the threads that torch has now."""
    ours = now.ours
    if ours is None:
        return []
    ours.plan(next(epoch_numbers))  # the scores may have changed since the last plan, and the steps below write what this one wrote
    where = {"samples": now.size, "device": now.device.type, "threads": torch.get_num_threads()}
    rows = []
    for operation, items, parts in (_plan(ours, now), _order(ours, now), _update(ours, now)):
        for name, times in alternate(parts, effort, now.device).items():
            seconds = times.spread()
            ns = seconds["median"] / items * 1e9
            rows.append({"operation": operation, "part": name, **where, "seconds": seconds, "ns": ns})
    return rows


def _plan(ours: Ours, now: Field) -> tuple[str, int, list[Timed]]:
    """The steps of ``Planner.make`` on the table's own arrays; they write again what stands there."""
    table, plan, seed = ours.pruner._table, ours.pruner._epochs.plan(), ours.pruner.seed
    total = ops.sum_scores(table.scores)
    thresholds = ops.mean_threshold(total)

    def draw() -> None:
        plan.directory.draw_plan(table.scores, table.first_slot, thresholds, plan.cutoffs, seed, plan.epoch)

    steps: dict[str, Callable[[], object]] = {
        "one read of the scores (torch.sum)": lambda: floors.read_scores(now.scores),
        "exact sum": lambda: ops.sum_scores(table.scores),
        "draws, decisions, marks, directory, counts": draw,
        "of these, directory and counts": plan.directory.build,
    }
    return "plan, mean, a sample", now.size, [Timed(name, lambda _, step=step: step()) for name, step in steps.items()]  # type: ignore[misc]


def _order(ours: Ours, now: Field) -> tuple[str, int, list[Timed]]:
    plan = ours.pruner._epochs.plan()
    count = min(CHUNK, plan.length)
    turns = cycle(range(plan.length // count))
    ids = plan.order(0, count).cpu()
    parts = [
        Timed(
            "one random read of the marks (index_select)",
            lambda drawn: floors.read_at_random(now.marks, drawn),
            lambda: places(now, count),
        ),
        Timed("native: positions to ids", lambda turn: plan.order(turn * count, (turn + 1) * count), lambda: next(turns)),
        Timed("ids to Python ints (tolist)", lambda _: exhaust(floors.ints(ids))),
    ]
    return "order, an index", count, parts


def _update(ours: Ours, now: Field) -> tuple[str, int, list[Timed]]:
    plan = ours.pruner._epochs.plan()
    losses = torch.rand(BATCH, device=now.device)
    weights = torch.ones_like(losses)

    def batches() -> Iterator[torch.Tensor]:
        return iter(torch.randint(now.size, (CALLS, BATCH), device=now.device))

    def each(call: Callable[[torch.Tensor], object]) -> Callable[[Iterator[torch.Tensor]], None]:
        def run(indices: Iterator[torch.Tensor]) -> None:
            for index in indices:
                call(index)

        return run

    steps: dict[str, Callable[[torch.Tensor], object]] = {
        "storing the losses alone (index_copy_)": lambda index: floors.scatter(now.scores, index, losses),
        "fetching weights from a float32 table alone (index_select)": lambda index: now.scores.index_select(0, index),
        "weighted mean alone": lambda _: torch.dot(losses, weights),
        "native: slots, scores, marks, weights": lambda index: plan.recorder(index, losses),
        "update": lambda index: ours.update(index, losses),
    }
    return f"update, B = {BATCH}, a call", CALLS, [Timed(name, each(step), batches) for name, step in steps.items()]
