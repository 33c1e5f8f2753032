"""The plan of one epoch: which samples are kept, what they weigh, and in which order they come."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch

from . import ops
from .distributed import Ranks
from .policy import NoPruning, Policy
from .scores import NEVER, ScoreTable, Thresholds


@dataclass(frozen=True)
class EpochStats:
    """What the plan of an epoch decided, and what has come of it. Counts are of all ranks unless they say otherwise.

    Attributes:
        epoch: The epoch, from 0.
        pruned: Whether the schedule prunes in this epoch.
        num_samples: Size of the data set.
        kept: Samples that the epoch visits.
        saved_fraction: 1 - kept / num_samples.
        thresholds: The scores below which tiers begin, ascending; empty in a full epoch.
        seen: Samples that had a score when the plan was made.
        tier_sizes: Samples of each tier, from tier 0, which is never pruned.
        tier_kept: Kept ones of them.
        weights: Weight of a kept sample of each tier.
        scored: Losses that ``update`` got on this rank since the plan was made.
        non_finite: Those among them that were NaN or infinite, and did not enter the table.
        total_saved_fraction: 1 - kept / num_samples over all epochs planned so far.
        plan_seconds: Wall-clock time in which this rank made the plan.
    """

    epoch: int
    pruned: bool
    num_samples: int
    kept: int
    saved_fraction: float
    thresholds: tuple[float, ...]
    seen: int
    tier_sizes: tuple[int, ...]
    tier_kept: tuple[int, ...]
    weights: tuple[float, ...]
    scored: int
    non_finite: int
    total_saved_fraction: float
    plan_seconds: float


@dataclass(frozen=True)
class Plan:
    """Bits and a key: the marks in the table say what is kept, and ``order`` computes the epoch's order piece by piece.

    Attributes:
        length: Indices that this rank yields.
        available: Those of them that are this rank's own, in their order; positions behind it repeat the order's start.
        restored: The plan goes on after a restart, without the samples that were visited before.
    """

    epoch: int
    pruned: bool
    cutoffs: ops.Cutoffs
    thresholds: tuple[float, ...]
    seen: int
    kept: int
    kept_here: int
    available: int
    length: int
    tier_sizes: tuple[int, ...]
    tier_kept: tuple[int, ...]
    restored: bool
    seconds: float
    recorder: ops.Recorder
    epoch_order: ops.EpochOrder
    remaining: ops.BitDirectory | None
    device: torch.device

    def order(self, start: int, stop: int) -> torch.Tensor:
        """Sample ids at positions [start, stop) of this rank's epoch: int64 [stop - start], on the table's device."""
        own = min(stop, self.available)
        pieces = [ops.order(self.epoch_order, self.remaining, start, own, self.device)] if start < own else []
        if own < stop:  # padding: from the start of the whole order
            first = max(start, own) - self.available
            pieces.append(ops.order(self.epoch_order, None, first, first + stop - max(start, own), self.device))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces or [torch.empty(0, dtype=torch.int64, device=self.device)])


@dataclass
class Planner:
    """Makes plans of one table. It owns the directory of the marks, which each plan builds anew in place.

    Args:
        table: Scores and marks; a plan is written into the marks.
        policy: Used in epochs that are pruned.
        seed, shuffle, drop_last: As in ``InfoBatch``.
        ranks: Who takes part. Planning is a collective call.
    """

    table: ScoreTable
    policy: Policy
    seed: int
    shuffle: bool
    drop_last: bool
    ranks: Ranks
    directory: ops.BitDirectory = field(init=False)

    def __post_init__(self) -> None:
        self.directory = ops.BitDirectory(self.table.marks, of_marks=True)

    def make(self, epoch: int, pruned: bool) -> Plan:
        """Draws the plan of an epoch from the scores as they are now. The host waits for the device once."""
        start = time.perf_counter()
        policy = self.policy if pruned else NoPruning()
        thresholds = policy.thresholds(self.table, self.ranks)
        ops.draw_plan(
            self.table.scores,
            self.table.first_slot,
            thresholds.values,
            policy.cutoffs,
            self.seed,
            epoch,
            self.table.marks,
        )
        return self._finish(epoch, pruned, policy.cutoffs, thresholds, False, start)

    def restore(self, epoch: int, pruned: bool, cutoffs: ops.Cutoffs, thresholds: tuple[float, ...], seen: int) -> Plan:
        """The plan that the marks in the table, read from a checkpoint, stand for; what they mark as visited is left out."""
        levels = [*reversed(thresholds), *[NEVER] * (ops.MAX_THRESHOLDS - len(thresholds))]
        values = torch.tensor(levels, dtype=torch.float32, device=self.table.device)
        known = Thresholds(values, torch.tensor([seen], dtype=torch.int64, device=self.table.device))
        return self._finish(epoch, pruned, cutoffs, known, True, time.perf_counter())

    def _finish(self, epoch: int, pruned: bool, cutoffs: ops.Cutoffs, thresholds: Thresholds, restored: bool, start: float) -> Plan:
        table, ranks = self.table, self.ranks
        counts = torch.cat([self.directory.build(), ops.count_tiers(table.marks, table.num_slots), table.faults])
        host = torch.cat(
            [
                ranks.gather(counts).flatten(),
                thresholds.seen,
                thresholds.values.view(torch.int32).to(torch.int64),
            ]
        ).cpu()  # the one synchronisation of an epoch
        of_rank = host[:-4].view(ranks.num_replicas, counts.numel())
        for rank, faults in enumerate(of_rank[:, -4:].tolist()):  # all ranks see them, so that all raise
            table.raise_bad_indices(faults, rank)
        table.faults.zero_()
        totals = of_rank.sum(0).tolist()
        kept_here = int(of_rank[ranks.rank, 0])
        values = host[-3:].to(torch.int32).view(torch.float32).tolist()
        tiers = 1 + sum(value > NEVER for value in values)

        shuffle = ops.shuffle_permutation if self.shuffle else _keep_order
        epoch_order = ops.EpochOrder(table.shard, shuffle(kept_here, self.seed, epoch, ranks.rank), self.directory.native)
        available, remaining = of_rank[:, 0], None
        if restored:
            remaining = ops.BitDirectory(ops.mark_remaining(epoch_order, kept_here, table.marks), of_marks=False)
            available = ranks.gather(remaining.build()).cpu()[:, 0]
        length = int(available.min() if self.drop_last else available.max())
        if length > 0 and kept_here == 0:
            raise RuntimeError(
                f"rank {ranks.rank} of {ranks.num_replicas} keeps no sample in epoch {epoch}, so it cannot keep step: the data "
                f"set of {table.num_samples} samples is too small for {ranks.num_replicas} ranks"
            )
        return Plan(
            epoch=epoch,
            pruned=pruned,
            cutoffs=cutoffs,
            thresholds=tuple(value for value in reversed(values) if value > NEVER),
            seen=int(host[-4]),
            kept=totals[0],
            kept_here=kept_here,
            available=int(available[ranks.rank]),
            length=length,
            tier_sizes=tuple(totals[1 : 1 + tiers]),
            tier_kept=tuple(totals[5 : 5 + tiers]),
            restored=restored,
            seconds=time.perf_counter() - start,
            recorder=ops.Recorder(table.shard, table.scores, table.marks, table.faults, cutoffs),
            epoch_order=epoch_order,
            remaining=remaining,
            device=table.device,
        )


def _keep_order(size: int, seed: int, epoch: int, rank: int) -> ops.Permutation:
    return ops.identity_permutation(size)
