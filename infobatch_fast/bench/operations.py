"""The timed operations: what each of them does, how many items it is divided by, and the floor that it stands on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch

from ..engine.chunks import CHUNK
from . import floors
from .answers import FIRST_EPOCH
from .contender import Contender, Ours
from .timing import Timed

BATCH = 256
TAKEN = 1 << 18  # ids of a long epoch that are taken a run: whole chunks of our sampler
SHORT = 1 << 20  # epochs of data sets up to this size are iterated whole
UPDATES = (256, 1024, 4096, 16384, 65536)
UPDATED = 1 << 19  # samples that a run updates: far more than caches hold
TABLE_BYTES, ID_BYTES = 4.5, 8.0  # the score and the mark of a sample; an id
UPDATE_BYTES = 8 + 4 + 4 + 4 + 1  # id, loss and weight; the score and the mark

epoch_numbers = count(FIRST_EPOCH + 1)  # each plan of the benchmark is of a new one


@dataclass(frozen=True)
class Operation:
    """What is timed for a row of a table.

    Attributes:
        name: The operation.
        unit: What ``items`` counts, with its article.
        items: Of these each time is of.
        moved: Bytes that each time must at least move.
        contenders: Who is timed, by name.
        floor: What the operation cannot do without; None where there is no such thing.
        batch: Size of an update.
    """

    name: str
    unit: str
    items: float
    moved: float
    contenders: list[Timed]
    floor: Timed | None = None
    batch: int | None = None


@dataclass
class Field:
    """Who takes part at one size on one device.

    Attributes:
        scores: float32 [N] on the device: what the floors work on.
        marks: int64 [N / 16] on the device, as large as the marks of N samples: what the floors of an order read.
    """

    size: int
    device: torch.device
    contenders: list[Contender]
    scores: torch.Tensor
    marks: torch.Tensor
    batches: tuple[int, ...] = UPDATES

    @property
    def ours(self) -> Ours | None:
        """infobatch_fast, if it takes part."""
        return next((contender for contender in self.contenders if isinstance(contender, Ours)), None)

    def able(self, *abilities: str) -> list[Contender]:
        """Contenders that have all of some abilities."""
        return [contender for contender in self.contenders if contender.can.issuperset(abilities)]


def plans(now: Field) -> Iterator[Operation]:
    """From the scores to where the first id can come, by the mean and by quantiles."""
    floor = Timed("floor", lambda _: floors.read_scores(now.scores))
    moved = now.size * TABLE_BYTES
    means = [_planning(contender.name, contender.plan) for contender in now.able("plan")]
    yield Operation("plan, mean", "a sample", now.size, moved, means, floor)
    tiers = [_planning(contender.name, contender.plan_quantiles) for contender in now.able("quantiles")]
    yield Operation("plan, quantile tiers", "a sample", now.size, moved, tiers, floor)
    if now.ours is not None:
        now.ours.forget_quantiles()


def _planning(name: str, plan: Callable[[int], None]) -> Timed:
    return Timed(name, plan, lambda: next(epoch_numbers))


class _Taking:
    """Takes ids of a planned epoch: a short epoch whole, a long one bit by bit, so that no cache knows the next ones.

    Args:
        contender: Has planned an epoch already, if its epochs are long.
        batch: Ids in an element; 1 is ids themselves.
    """

    def __init__(self, contender: Contender, batch: int) -> None:
        self.name, self._contender, self._batch, self._rest = contender.name, contender, batch, 0
        self._left: Iterator[Any] = iter(())
        self._short = contender.size <= SHORT
        self.count = TAKEN
        if self._short:
            contender.plan(next(epoch_numbers))
            self.count = sum(1 for _ in contender.ids())

    def prepare(self) -> Iterator[Any]:
        if self._rest < self.count:
            if self._contender.once:
                self._contender.plan(next(epoch_numbers))
            self._left = self._contender.ids() if self._batch == 1 else self._contender.batches(self._batch)
            self._rest = self.count if self._short else self._contender.size // 2
        self._rest -= self.count
        return islice(self._left, -(-self.count // self._batch))


def exhaust(elements: Iterator[Any]) -> None:
    """Takes all elements, one by one."""
    for _ in elements:
        pass


def places(now: Field, count: int) -> torch.Tensor:
    """Random places in the marks, int64 [count]."""
    return torch.randint(len(now.marks), (count,), device=now.device)


def _hand_out(marks: torch.Tensor, places: torch.Tensor, batch: int) -> None:
    ids = floors.read_at_random(marks, places).cpu()
    exhaust(floors.ints(ids) if batch == 1 else floors.batches(ids, batch))


def _order_floor(now: Field, batch: int, count: int) -> Timed:
    """A random read for each index, and an int."""
    return Timed("floor", lambda drawn: _hand_out(now.marks, drawn, batch), lambda: places(now, count), count)


def orders(now: Field) -> Iterator[Operation]:
    """Ids of an epoch that was planned: one by one, in batches, as a tensor."""
    for name, batch, ability in (("order, one by one", 1, "ids"), (f"order, batches of {BATCH}", BATCH, "batches")):
        taking = [_Taking(contender, batch) for contender in now.able("plan", ability)]
        timed = [Timed(each.name, exhaust, each.prepare, each.count) for each in taking]
        floor = _order_floor(now, batch, max((each.count for each in taking), default=TAKEN))
        yield Operation(name, "an index", 1, ID_BYTES, timed, floor)
    if now.ours is not None:
        yield _tensor_order(now.ours, now)


def _tensor_order(ours: Ours, now: Field) -> Operation:
    ours.plan(next(epoch_numbers))
    sampler = ours.pruner.sampler
    taken = min(len(sampler), 1 << 22)
    source = torch.zeros(2, taken, dtype=torch.int64, device=now.device)
    timed = Timed(ours.name, lambda _: sampler.indices(0, taken), repeats=taken)
    floor = Timed("floor", lambda _: floors.copy(source[0], source[1]), repeats=taken)
    return Operation("order, tensor", "an index", 1, ID_BYTES, [timed], floor)


def epochs(now: Field) -> Iterator[Operation]:
    """Whole epochs: the plan and all its ids, divided by the size of the data set."""

    def one_by_one(contender: Contender) -> Callable[[int], None]:
        def run(epoch: int) -> None:
            contender.plan(epoch)
            exhaust(contender.ids())

        return run

    def tensor(contender: Contender) -> Callable[[int], None]:
        def run(epoch: int) -> None:
            contender.plan(epoch)
            contender.tensor()

        return run

    moved = now.size * TABLE_BYTES
    listed = [_planning(contender.name, one_by_one(contender)) for contender in now.able("plan", "ids")]
    yield Operation(
        "epoch, one by one", "a sample", now.size, moved, listed, _epoch_floor(now, lambda marks, drawn: _hand_out(marks, drawn, 1))
    )
    whole = [_planning(contender.name, tensor(contender)) for contender in now.able("plan", "tensor")]
    yield Operation("epoch, as a tensor", "a sample", now.size, moved, whole, _epoch_floor(now, floors.read_at_random))


def _epoch_floor(now: Field, hand_out: Callable[[torch.Tensor, torch.Tensor], object]) -> Timed | None:
    """One read of the scores, then the floor of an order for each kept sample, in chunks at places of their own."""
    if now.ours is None:
        return None
    kept, half = len(now.ours.pruner.sampler), max(1, len(now.marks) // 2)
    drawn = places(now, min(kept, CHUNK)) % half
    starts = torch.randint(max(1, len(now.marks) - half), (-(-kept // CHUNK),)).tolist()

    def run(_: object) -> None:
        floors.read_scores(now.scores)
        for chunk, start in enumerate(starts):
            hand_out(now.marks[start : start + half], drawn[: kept - chunk * CHUNK])

    return Timed("floor", run)


def updates(now: Field) -> Iterator[Operation]:
    """A batch's losses stored, its weighted mean returned; ids are new and random in each call."""
    for batch in now.batches:
        calls = max(4, UPDATED // batch)

        def batches(batch: int = batch, calls: int = calls) -> list[tuple[torch.Tensor, torch.Tensor]]:
            index = torch.randint(now.size, (calls, batch), device=now.device)
            return list(zip(index, torch.rand(calls, batch, device=now.device), strict=True))

        def updating(update: Callable[[torch.Tensor, torch.Tensor], object]) -> Callable[[Any], None]:
            def run(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
                for index, losses in pairs:
                    update(index, losses)

            return run

        timed = [Timed(contender.name, updating(contender.update), batches, calls) for contender in now.able("update")]
        scatter = updating(lambda index, losses: floors.scatter(now.scores, index, losses))
        floor = Timed("floor", scatter, batches, calls)
        yield Operation(f"update, B = {batch}", "a sample", batch, batch * UPDATE_BYTES, timed, floor, batch)


def states(now: Field) -> Iterator[Operation]:
    """A checkpoint written to a file, and read from it."""
    with tempfile.TemporaryDirectory() as folder:

        def path(contender: Contender) -> Path:
            return Path(folder, contender.name)

        moved = now.size * TABLE_BYTES
        able = now.able("save")
        saves = [Timed(c.name, lambda _, c=c: torch.save(c.state(), path(c))) for c in able]  # type: ignore[misc]
        floor = Timed("floor", lambda _: torch.save(now.scores, Path(folder, "floor")))
        yield Operation("state_dict, save", "a sample", now.size, moved, saves, floor)
        loads = [Timed(c.name, lambda _, c=c: c.restore(torch.load(path(c), map_location=now.device))) for c in able]  # type: ignore[misc]
        floor = Timed("floor", lambda _: torch.load(Path(folder, "floor"), map_location=now.device))
        yield Operation("state_dict, load", "a sample", now.size, moved, loads, floor)
