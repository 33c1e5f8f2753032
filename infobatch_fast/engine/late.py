"""Losses that come in after the next plan was made: loaders that run ahead have read a plan to its end long before."""

from __future__ import annotations

from typing import NamedTuple

import torch

from . import ops
from .async_number import AsyncNumber
from .marks import KEPT, VISITED, weights_of
from .plan import Plan
from .table import UNKEPT, UNKEPT_ID, ScoreTable


class OnTheirWay(NamedTuple):
    """Samples that were yielded and not yet scored, in the order in which they were yielded, with the weights of their plan."""

    ids: torch.Tensor  # int64 [k]; -1 where there is none after all
    weights: torch.Tensor  # float32 [k]

    def join(self, other: OnTheirWay) -> OnTheirWay:
        """These, then those of ``other``."""
        return OnTheirWay(torch.cat([self.ids, other.ids]), torch.cat([self.weights, other.weights]))

    def last(self, count: int) -> OnTheirWay:
        """The ``count`` yielded last."""
        return OnTheirWay(self.ids[len(self.ids) - count :], self.weights[len(self.ids) - count :])


def look_behind(plan: Plan, table: ScoreTable, count: int) -> tuple[OnTheirWay, int]:
    """Finds the samples of a plan that were drawn and not scored, about ``count``, and returns how many there really are.

    The plan was drawn to its end. Marks and tiers in the table are still those of the plan. The last 2 * ``count`` indices are
    searched, as workers may yield batches in another order. If too few are found there, a loader holds samples back, and the whole
    plan is searched. Visited samples are left out, except for repeats at the end, which were marked when they came first. The host
    waits for the device, as it does anyway when the next plan is made.
    """
    first = max(0, plan.length - 2 * count)
    ids = plan.order(first, plan.length)
    slots, marks, _ = table.look_up(ids)
    position = torch.arange(first, plan.length, device=ids.device)
    repeated = (position >= plan.available) & (position >= plan.length - count)
    unvisited = (slots >= 0) & ((marks & VISITED) == 0)
    found = int((unvisited | repeated).sum())
    if found < count and first > 0:
        ids = torch.cat([plan.unvisited(table.marks, 2 * count), ids[repeated]])
        marks = table.look_up(ids).marks
        found = ids.numel()
    else:
        ids = torch.where(unvisited | repeated, ids, -1)
    return OnTheirWay(ids, weights_of(marks, table.tiers)), min(count, found)


class LateLosses:
    """Gives late losses the weights of the plan that they were drawn under, and keeps them from counting as visits of the next.

    Args:
        samples: Samples whose losses may come late.
        count: How many losses are on their way. They are the next losses unless workers reorder batches.
    """

    @torch.inference_mode(False)  # the next losses, which are written in here, may come outside of it
    def __init__(self, samples: OnTheirWay, count: int) -> None:
        self.count = count
        self._samples = samples
        # Sorted by id. An id may be on its way under two plans; the older one comes first. A search that finds nothing ends at one
        # more entry, above all ids.
        end = torch.full((1,), ops.MAX_SAMPLES, dtype=torch.int64, device=samples.ids.device)
        self._ids, self._by_id = torch.cat([samples.ids, end]).sort(stable=True)
        self._weights = torch.cat([samples.weights, torch.ones(1, dtype=torch.float32, device=end.device)])[self._by_id]
        # The number of the call in which an entry came, from 1; 0: it has not come; -1: it is not a loss on its way.
        self._came = -((self._ids < 0) | (self._ids == ops.MAX_SAMPLES)).long()
        self._calls = 0
        self._last = self._ids[:0]  # ids of the last call
        self._left = AsyncNumber()

    def record(self, table: ScoreTable, index: torch.Tensor, scores: torch.Tensor, again: bool = False) -> torch.Tensor:
        """As ``table.record``, for a batch that may hold late losses: returns weights, float32 [B]. Does not wait for the device.

        ``again``: it is the batch of the previous call.
        """
        slots, marks, _ = table.look_up(index)
        faults = table.faults.clone()
        weights = table.record(index, scores)
        self._last = index
        if not again:
            self._calls += 1
            self.count = max(0, self.count - index.numel())
        came = (self._came != 0) & (self._came != self._calls)
        entry, late, first, many = self._find(index, came)
        end = self._ids.numel() - 1
        # A sample may come late and be a visit of the new plan in one batch.
        visits = torch.zeros_like(self._came).scatter_add(0, first.clamp(max=end), (many & ~late).long())
        _unmark(table.marks.data, slots, late & (visits[first.clamp(max=end)] == 0) & ((marks & VISITED) == 0))
        self._came.index_fill_(0, entry, self._calls)  # not [entry] = number, which copies it from the host and waits
        self._came[end:].fill_(-1)
        _correct_unkept(table, faults, index, ~late & (slots >= 0) & ((marks & KEPT) == 0))
        if self.count == 0:
            self._left.ask((self._came == 0).sum())
        return torch.where(late, self._weights[entry], weights)

    def weights(self, index: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Weights of the next batch, or of the last one: float32 [B]. ``weights`` are those under the plan in force."""
        is_last = self.came_last(index).all()
        entry, late, _, _ = self._find(index, (self._came != 0) & ~(is_last & (self._came == self._calls)))
        return torch.where(late, self._weights[entry], weights)

    def came_last(self, index: torch.Tensor) -> torch.Tensor:
        """Whether each id was in the previous call: bool [B]."""
        return torch.isin(index, self._last)

    def expects(self, index: torch.Tensor) -> torch.Tensor:
        """Whether the losses of the next batch are late: bool [B]."""
        return self._find(index, self._came != 0)[1]

    def outstanding(self) -> OnTheirWay:
        """Samples whose losses have not come, in their order. Waits for the device."""
        is_left = torch.empty_like(self._came).scatter_(0, self._by_id, (self._came == 0).long())[:-1].bool()
        return OnTheirWay(self._samples.ids[is_left], self._samples.weights[is_left])

    def all_came(self) -> bool:
        """Whether it is known that none is left."""
        return self.count == 0 and self._left.number() == 0

    def _find(self, index: torch.Tensor, came: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The entry of each id (the last entry if it is not late); whether it is late; its first entry; whether it has entries."""
        first = torch.searchsorted(self._ids, index)
        behind = torch.searchsorted(self._ids, index, right=True)
        before = torch.nn.functional.pad(came.cumsum(0), (1, 0))
        used = before[behind] - before[first]  # entries of an id are used up from the first one on
        entry = first + used + _occurrence(index)
        late = entry < behind
        return torch.where(late, entry, self._ids.numel() - 1), late, first, behind > first


def _correct_unkept(table: ScoreTable, before: torch.Tensor, index: torch.Tensor, unkept: torch.Tensor) -> None:
    """Counts those that are ``unkept``, bool [B], where ``record`` has counted late losses among them."""
    if not index.numel():
        return
    any_id = torch.where(unkept, index, -1).amax()
    table.faults[UNKEPT] = before[UNKEPT] + unkept.sum()
    table.faults[UNKEPT_ID] = torch.where(any_id >= 0, any_id, before[UNKEPT_ID])


def _occurrence(index: torch.Tensor) -> torch.Tensor:
    """How many times each element has occurred before in ``index``."""
    values, by_value = index.sort(stable=True)
    before = torch.arange(index.numel(), device=index.device) - torch.searchsorted(values, values)
    return torch.empty_like(index).scatter_(0, by_value, before)


def _unmark(marks: torch.Tensor, slots: torch.Tensor, chosen: torch.Tensor) -> None:
    """Takes the visited bit from chosen slots. Two slots share a byte, so the lower ones and the higher ones go one by one."""
    byte = slots.clamp(min=0) // 2
    for half, visited in ((0, VISITED), (1, VISITED << 4)):
        cleared = torch.where(chosen & (slots % 2 == half), marks[byte] & (0xFF - visited), 0xFF)
        marks.scatter_reduce_(0, byte, cleared, "amin")  # the smallest: what is not chosen changes nothing
