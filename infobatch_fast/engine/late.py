"""Losses that come in after the next plan was made: loaders that run ahead have read a plan to its end long before."""

from __future__ import annotations

from typing import NamedTuple

import torch

from . import ops
from .marks import VISITED, weights_of
from .plan import Plan
from .table import ScoreTable


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
    """The last samples of a plan of whose indices about ``count`` were not scored, and how many of them really were not.

    Marks and tiers in the table are still those of the plan. Twice as many are looked at, as workers may hand out batches in
    another order. What was visited among them is none, but for repeats at the end, whose first turn it was that marked them. The
    host waits for the device, as it does anyway when the next plan is made.
    """
    ids = plan.order(max(0, plan.length - 2 * count), plan.length)
    slots, marks, _ = table.look_up(ids)
    position = torch.arange(plan.length - ids.numel(), plan.length, device=ids.device)
    repeated = (position >= plan.available) & (position >= plan.length - count)
    expected = (slots >= 0) & (((marks & VISITED) == 0) | repeated)
    samples = OnTheirWay(torch.where(expected, ids, -1), weights_of(marks, table.tiers))
    return samples, min(count, int(expected.sum()))


class LateLosses:
    """Gives late losses the weights of the plan that they were drawn under, and keeps them from counting as visits of the next.

    Args:
        samples: Which may come in late.
        count: How many losses are on their way. They are the next ones unless workers reorder batches, so that twice as many
            are looked at, and then none any more.
    """

    @torch.inference_mode(False)  # the next losses, which are written in here, may come outside of it
    def __init__(self, samples: OnTheirWay, count: int) -> None:
        self.samples, self.count = samples, count
        self.window = 2 * count  # losses that are still looked at
        # By id; the same one may be on its way under two plans, and the older stands first. One entry more, above all ids, is
        # where a search ends that finds nothing.
        end = torch.full((1,), ops.MAX_SAMPLES, dtype=torch.int64, device=samples.ids.device)
        self._ids, by_id = torch.cat([samples.ids, end]).sort(stable=True)
        self._weights = torch.cat([samples.weights, torch.ones(1, dtype=torch.float32, device=end.device)])[by_id]
        self._came = ((self._ids < 0) | (self._ids == ops.MAX_SAMPLES)).long()

    def record(self, table: ScoreTable, index: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """What ``table.record`` does, for a batch that may hold late losses: weights float32 [B]. Does not wait for the device."""
        slots, marks, _ = table.look_up(index)
        weights = table.record(index, scores)
        first = torch.searchsorted(self._ids, index)
        behind = torch.searchsorted(self._ids, index, right=True)
        came = torch.nn.functional.pad(self._came.cumsum(0), (1, 0))
        entry = first + came[behind] - came[first] + _occurrence(index)  # the entries of an id are used up from the first one on
        late, end = entry < behind, self._ids.numel() - 1
        # A sample may come late and be a visit of the new plan in one batch.
        visits = torch.zeros_like(self._came).scatter_add(0, first.clamp(max=end), ((behind > first) & ~late).long())
        _unmark(table.marks.data, slots, late & (visits[first.clamp(max=end)] == 0) & ((marks & VISITED) == 0))
        entry = torch.where(late, entry, end)
        self._came[entry] = 1
        self.count = max(0, self.count - index.numel())
        self.window -= index.numel()
        return torch.where(late, self._weights[entry], weights)


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
