"""Makes the plan of an epoch from the scores, or from a checkpoint."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from . import ops
from .plan import Plan
from .ranks import Ranks
from .settings import Settings
from .table import NEVER, NO_FAULTS, Faults, ScoreTable, Thresholds


class _Report(NamedTuple):
    """What a rank knows when its device has drawn a plan.

    Attributes:
        seen: Seen samples of all ranks.
        counts: As ``BitDirectory.build`` returns them.
        faults: What it has counted since the last plan.
        negative: Scores that are negative and must not be.
        where: With several ranks: the epoch, and whether it is restored.
        cutoffs: Cutoff of each tier.
        levels: The thresholds, descending, padded with -inf.
    """

    seen: int
    counts: tuple[int, ...]
    faults: Faults
    negative: int
    where: tuple[int, ...]
    cutoffs: ops.Cutoffs
    levels: tuple[float, ...]

    @classmethod
    def of(cls, numbers: tuple[Any, ...]) -> _Report:
        c0, c1, c2, c3 = numbers[-7:-3]
        return cls(numbers[0], numbers[1:10], Faults(*numbers[10:16]), numbers[16], numbers[17:-7], (c0, c1, c2, c3), numbers[-3:])

    @property
    def kept(self) -> int:
        return self.counts[0]


@dataclass
class Planner:
    """Makes plans of one table. It owns the directory of the marks, which each plan builds anew in place.

    Planning is a collective call. Up to the check of the ranks, every plan makes the same collective calls in the same order,
    whatever the epoch. So ranks that disagree still meet, and all of them can raise the error.

    Args:
        table: Scores and marks; a plan is written into the marks.
        settings: What the run was asked for.

    Attributes:
        faults: What the device has counted between the last two plans.
        negative: Scores that were negative and must not be, when the last plan was made.
    """

    table: ScoreTable
    settings: Settings
    directory: ops.BitDirectory = field(init=False)
    faults: Faults = field(init=False, default=NO_FAULTS)
    negative: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.directory = ops.BitDirectory(self.table.marks, self.table.num_slots)
        self._none = torch.zeros(1, dtype=torch.int64, device=self.table.device)
        self._never = torch.full((ops.MAX_THRESHOLDS,), NEVER, dtype=torch.float32, device=self.table.device)
        self.side_stream = torch.cuda.Stream(self.table.device) if self.table.device.type == "cuda" else None  # type: ignore[no-untyped-call]
        known = {"num_samples": repr(self.table.num_samples), "protect": str(self.table.protect is not None)}
        self._to_agree_on = self.settings.shared | known | {"algorithm": str(ops.ALGORITHM_VERSION)}
        self._agreed = False

    @property
    def ranks(self) -> Ranks:
        """Who takes part."""
        return self.table.ranks

    def make(self, epoch: int, pruned: bool) -> Plan:
        """Draws the plan of an epoch from the scores as they are now. The host waits for the device once.

        Raises:
            IndexError: A rank got losses of samples that are not its own.
            RuntimeError: The ranks do not agree, or a rank has no sample to visit.
        """
        with self.ranks.waiting_for(f"the plan of epoch {epoch}"):
            return self._make(epoch, pruned)

    def _make(self, epoch: int, pruned: bool) -> Plan:
        start = time.perf_counter()
        measured = self._measure()
        values = measured.values if pruned else self._never  # in a full epoch no score is below a threshold
        table, policy, seed = self.table, self.settings.policy, self.settings.seed
        with self.writing():
            if measured.tiers is None:
                ops.set_tiers(table.tiers, policy.cutoffs)
            else:
                table.tiers.copy_(measured.tiers)
            counts = self.directory.draw_plan(table.scores, table.first_slot, values, table.tiers, seed, epoch, table.protect)
            version = self.directory.version
        return self._finish(epoch, pruned, counts, version, measured._replace(values=values), False, start)

    def restore(self, epoch: int, pruned: bool, thresholds: tuple[float, ...], seen: int) -> Plan:
        """The plan that marks and tiers in the table stand for, with these numbers. Samples marked as visited are left out.

        Raises:
            RuntimeError: As for ``make``.
        """
        with self.ranks.waiting_for(f"the plan of epoch {epoch}, which goes on after a restart"):
            return self._restore(epoch, pruned, thresholds, seen)

    def _restore(self, epoch: int, pruned: bool, thresholds: tuple[float, ...], seen: int) -> Plan:
        start = time.perf_counter()
        self._measure()  # other ranks may measure, and then report that they are not restored
        levels = [*reversed(thresholds), *[NEVER] * (ops.MAX_THRESHOLDS - len(thresholds))]
        values = torch.tensor(levels, dtype=torch.float32, device=self.table.device)
        known = Thresholds(values, torch.tensor([seen], dtype=torch.int64, device=self.table.device))
        with self.writing():
            counts, version = self.directory.build(), self.directory.version
        return self._finish(epoch, pruned, counts, version, known, True, start)

    def count_marks(self) -> torch.Tensor:
        """Indexes marks that were read from a checkpoint, and counts them as ``BitDirectory.build`` does."""
        with self.writing():
            return self.directory.build()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Wraps all writes of marks or their directory. No order is read meanwhile, and orders of older plans become invalid."""
        with self.directory.lock:
            self.directory.version += 1
            self.before_writing()
            yield

    def before_writing(self) -> None:
        """Waits for the GPU, which may still read ahead the order of the previous plan."""
        if self.side_stream is not None:
            torch.cuda.current_stream(self.table.device).wait_stream(self.side_stream)

    def _measure(self) -> Thresholds:
        if not self._agreed:
            self.ranks.agree(self._to_agree_on, self.table.device)
            self._agreed = True
        return self._checked(self.settings.policy.thresholds(self.table, self.ranks))

    def _checked(self, measured: Thresholds) -> Thresholds:
        """What a policy has measured, if native code can read it.

        Raises:
            TypeError: It has another type, shape, dtype or device.
        """
        if not isinstance(measured, Thresholds):
            raise TypeError(
                f"policy: thresholds() of {self.settings.policy!r} must return Thresholds, as the methods of its argument `table` "
                f"do, got {measured!r}"
            )
        wanted = (
            ("values", ops.MAX_THRESHOLDS, torch.float32),
            ("seen", 1, torch.int64),
            ("tiers", self.table.tiers.numel(), torch.int32),
            ("negative", 1, torch.int64),
        )
        for (name, length, dtype), tensor in zip(wanted, measured, strict=True):
            if tensor is None:
                if name in Thresholds._field_defaults:
                    continue
                got = "None"
            elif (tensor.shape, tensor.dtype, tensor.device) == ((length,), dtype, self.table.device) and tensor.is_contiguous():
                continue
            else:
                got = f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"
            raise TypeError(
                f"policy: thresholds() of {self.settings.policy!r} must return {name} of {dtype} [{length}] on "
                f"{self.table.device}, got {got}"
            )
        return measured

    def _finish(
        self,
        epoch: int,
        pruned: bool,
        counts: torch.Tensor,
        version: int,
        thresholds: Thresholds,
        restored: bool,
        start: float,
    ) -> Plan:
        table, ranks = self.table, self.ranks
        reports = self._read(counts, thresholds, epoch, restored)
        self._check_ranks(reports, epoch)
        here = reports[ranks.rank]
        if not here.levels[0] >= here.levels[1] >= here.levels[2]:  # nor where one is NaN
            raise ValueError(f"policy: thresholds() of {self.settings.policy!r} must return descending values, got {here.levels}")
        if here.cutoffs[0] != ops.CUTOFF_RANGE or not all(1 <= cutoff <= ops.CUTOFF_RANGE for cutoff in here.cutoffs):
            raise ValueError(
                f"policy: thresholds() of {self.settings.policy!r} must return tiers whose cutoffs are in [1, {ops.CUTOFF_RANGE}], "
                f"the first one {ops.CUTOFF_RANGE}, got {here.cutoffs}: let ops.set_tiers write them"
            )
        if any(here.faults):
            table.faults.zero_()
        self.faults, self.negative = here.faults, here.negative
        totals = [sum(each) for each in zip(*(report.counts for report in reports), strict=True)]
        tiers = 1 + sum(level > NEVER for level in here.levels)
        scale = totals[0] / table.num_samples if self.settings.rescale == "step" else 1.0
        if scale != 1.0:  # the host knows it last
            ops.set_tiers(table.tiers, here.cutoffs, scale)

        shuffle = ops.shuffle_permutation if self.settings.shuffle else _keep_order
        epoch_order = ops.EpochOrder(table.shard, shuffle(here.kept, self.settings.seed, epoch, ranks.rank), self.directory.native)
        available, remaining = [report.kept for report in reports], None
        if restored:
            with self.directory.lock:
                remaining = ops.BitDirectory(ops.mark_remaining(epoch_order, here.kept, table.marks))
            available = ranks.gather(remaining.build()[:1])[:, 0].tolist()
        return Plan(
            epoch=epoch,
            pruned=pruned,
            cutoffs=here.cutoffs,
            weights=tuple(ops.tier_weights(here.cutoffs, scale)[:tiers]),
            thresholds=tuple(level for level in reversed(here.levels) if level > NEVER),
            seen=here.seen,
            kept=totals[0],
            own=here.kept,
            available=available[ranks.rank],
            length=min(available) if self.settings.drop_last else max(available),
            tier_sizes=tuple(totals[1 : 1 + tiers]),
            tier_kept=tuple(totals[5 : 5 + tiers]),
            restored=restored,
            seconds=time.perf_counter() - start,
            epoch_order=epoch_order,
            directory=self.directory,
            version=version,
            remaining=remaining,
            device=table.device,
            side_stream=self.side_stream,
        )

    def _read(self, counts: torch.Tensor, thresholds: Thresholds, epoch: int, restored: bool) -> list[_Report]:
        """What each rank has found. Only here the host waits for the device, and once more after a restart."""
        negative = self._none if thresholds.negative is None else thresholds.negative
        parts = [thresholds.seen, counts, self.table.faults, negative]
        if self.ranks.num_replicas > 1:
            parts += [torch.full((1,), number, dtype=torch.int64, device=counts.device) for number in (epoch, int(restored))]
        parts += [ops.cutoffs_of_tiers(self.table.tiers), thresholds.values]
        packed = torch.cat([part.view(torch.uint8) for part in parts])
        rows = self.ranks.gather(packed).cpu().numpy()
        layout = "17q4i3f" if self.ranks.num_replicas == 1 else "19q4i3f"
        return [_Report.of(struct.unpack("<" + layout, row.tobytes())) for row in rows]

    def _check_ranks(self, reports: list[_Report], epoch: int) -> None:
        """Raises the same error on all ranks."""
        for rank, report in enumerate(reports):
            self.table.raise_bad_indices(report.faults, rank)
        if len(reports) == 1:
            return
        epochs, restored, kept = zip(*((*report.where, report.kept) for report in reports), strict=True)
        if len(set(epochs)) > 1:
            raise RuntimeError(
                f"ranks plan different epochs, by rank {list(epochs)}: call set_epoch with the same number on all of them"
            )
        if len(set(restored)) > 1:
            going_on = [rank for rank, flag in enumerate(restored) if flag]
            raise RuntimeError(
                f"epoch {epoch}: ranks {going_on} go on from a checkpoint and the others do not: call load_state_dict on all of "
                "them or on none"
            )
        if 0 in kept:
            raise RuntimeError(
                f"rank {kept.index(0)} of {self.ranks.num_replicas} keeps no sample in epoch {epoch}, so it cannot keep step: the "
                f"data set of {self.table.num_samples} samples is too small for {self.ranks.num_replicas} ranks, so use fewer"
            )


def _keep_order(size: int, seed: int, epoch: int, rank: int) -> ops.Permutation:
    return ops.identity_permutation(size)
