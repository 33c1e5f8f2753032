"""The timed operations: what each one does, the number of items that its time is divided by, and its floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import Any

import torch

from ..engine.chunks import CHUNK
from .answers import FIRST_EPOCH
from .contender import Contender, Ours, ready_batches, ready_ids
from .timing import Timed

BATCH = 256
TAKEN = 1 << 18  # ids of a long epoch that are taken a run: whole chunks of our sampler
SHORT = 1 << 20  # epochs of data sets up to this size are iterated whole
LONGEST = 100_000_000  # whole epochs of larger data sets would take minutes
UPDATES = (256, 1024, 4096, 16384, 65536)
UPDATED = 1 << 19  # samples that a run updates: far more than caches hold
TABLE_BYTES, ID_BYTES = 4.5, 8.0  # the score and the mark of a sample; an id
UPDATE_BYTES = 8 + 4 + 4 + 4 + 1  # id, loss and weight; the score and the mark
PLANS = {"plan, mean": "plan", "plan, quantile tiers": "plan_quantiles", "plan, importance": "plan_importance"}  # and methods
NAMES = (  # in the order of the tables
    *(*PLANS, "order, one by one", f"order, batches of {BATCH}"),
    *("epoch, one by one", "epoch, as a tensor", *(f"update, B = {batch}" for batch in UPDATES)),
)

epoch_numbers = count(FIRST_EPOCH + 1)  # each plan of the benchmark is of a new one


@dataclass(frozen=True)
class Operation:
    """What is timed for a row of a table."""

    name: str  # one of NAMES
    unit: str  # what ``items`` counts, with its article
    items: float  # how many of these one run handles
    moved: float  # bytes that one run must move at least
    contenders: list[Timed]
    floor: Timed  # the work that the operation cannot avoid, done by torch alone
    batch: int | None = None  # size of an update


@dataclass(frozen=True)
class Field:
    """Who takes part at one size on one device."""

    size: int
    device: torch.device
    contenders: list[Contender]  # infobatch_fast is the first of them
    scores: torch.Tensor  # float32 [N] on the device: what the floors work on
    marks: torch.Tensor  # int64 [N / 16] on the device, as large as the marks of N samples: what the floors of an order read

    @property
    def ours(self) -> Ours:
        """infobatch_fast."""
        assert isinstance(self.contenders[0], Ours)
        return self.contenders[0]

    def able(self, method: str) -> list[Any]:
        """Contenders that have a method."""
        return [contender for contender in self.contenders if hasattr(contender, method)]

    def places(self, count: int) -> torch.Tensor:
        """Random places in the marks, int64 [count]."""
        return torch.randint(len(self.marks), (count,), device=self.device)


def plans(now: Field) -> Iterator[Operation]:
    """Plans by the mean, quantiles and importance: from the scores to the first id. The floor is one read of the scores."""
    floor = Timed("floor", lambda _: now.scores.sum())
    for name, method in PLANS.items():
        timed = [_planning(contender.name, getattr(contender, method)) for contender in now.able(method)]
        yield Operation(name, "a sample", now.size, now.size * TABLE_BYTES, timed, floor)


def _planning(name: str, plan: Callable[[int], object]) -> Timed:
    return Timed(name, plan, lambda: next(epoch_numbers))


class _Taking:
    """Takes ids of a planned epoch: a short epoch whole, a long one in parts, so that no cache holds the next ids.

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


def _exhaust(elements: Iterator[Any]) -> None:
    for _ in elements:
        pass


def _hand_out(marks: torch.Tensor, places: torch.Tensor, batch: int) -> None:
    """The floor of an order: for each index, a read of the marks at a random place, and a Python int.

    An order that is not stored reads the marks at a random place for each index.
    """
    ids = marks.index_select(0, places).cpu()
    _exhaust(ready_ids(ids) if batch == 1 else ready_batches(ids, batch))


def orders(now: Field) -> Iterator[Operation]:
    """Ids of an epoch that was planned: one by one, and in batches."""
    for name, batch in (("order, one by one", 1), (f"order, batches of {BATCH}", BATCH)):
        taking = [_Taking(contender, batch) for contender in now.contenders]
        timed = [Timed(each.name, _exhaust, each.prepare, each.count) for each in taking]
        most = max(each.count for each in taking)

        def hand_out(places: torch.Tensor, batch: int = batch) -> None:
            _hand_out(now.marks, places, batch)

        floor = Timed("floor", hand_out, lambda most=most: now.places(most), most)  # type: ignore[misc]
        yield Operation(name, "an index", 1, ID_BYTES, timed, floor)


def epochs(now: Field) -> Iterator[Operation]:
    """Whole epochs: the plan and all its ids, divided by the size of the data set."""

    def one_by_one(contender: Contender, epoch: int) -> None:
        contender.plan(epoch)
        _exhaust(contender.ids())

    def as_a_tensor(contender: Any, epoch: int) -> None:
        contender.plan(epoch)
        contender.tensor(now.size)

    if now.size > LONGEST:
        return
    listed = [_planning(each.name, partial(one_by_one, each)) for each in now.contenders]
    floor = _epoch_floor(now, partial(_hand_out, batch=1))
    yield Operation("epoch, one by one", "a sample", now.size, now.size * TABLE_BYTES, listed, floor)
    whole = [_planning(each.name, partial(as_a_tensor, each)) for each in now.able("tensor")]
    floor = _epoch_floor(now, lambda marks, places: marks.index_select(0, places))
    yield Operation("epoch, as a tensor", "a sample", now.size, now.size * TABLE_BYTES, whole, floor)


def _epoch_floor(now: Field, hand_out: Callable[[torch.Tensor, torch.Tensor], object]) -> Timed:
    """One read of the scores, then the floor of an order for each kept sample, in chunks at places of their own."""
    kept, half = len(now.ours.pruner.sampler), max(1, len(now.marks) // 2)
    drawn = now.places(min(kept, CHUNK)) % half
    starts = torch.randint(max(1, len(now.marks) - half), (-(-kept // CHUNK),), device="cpu").tolist()

    def run(_: object) -> None:
        now.scores.sum()
        for chunk, start in enumerate(starts):
            hand_out(now.marks[start : start + half], drawn[: kept - chunk * CHUNK])

    return Timed("floor", run)


def updates(now: Field) -> Iterator[Operation]:
    """A batch's losses stored, its weighted mean returned; ids are new and random in each call. The floor is storing alone."""

    def repeated(update: Callable[[torch.Tensor, torch.Tensor], object]) -> Callable[[Any], None]:
        def run(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
            for index, losses in pairs:
                update(index, losses)

        return run

    for batch in UPDATES:
        calls = max(4, UPDATED // batch)

        def pairs(batch: int = batch, calls: int = calls) -> list[tuple[torch.Tensor, torch.Tensor]]:
            index = torch.randint(now.size, (calls, batch), device=now.device)
            return list(zip(index, torch.rand(calls, batch, device=now.device), strict=True))

        timed = [Timed(contender.name, repeated(contender.update), pairs, calls) for contender in now.able("update")]
        floor = Timed("floor", repeated(lambda index, losses: now.scores.index_copy_(0, index, losses)), pairs, calls)
        yield Operation(f"update, B = {batch}", "a sample", batch, batch * UPDATE_BYTES, timed, floor, batch)


KINDS = (plans, orders, epochs, updates)  # updates last: they change the scores
