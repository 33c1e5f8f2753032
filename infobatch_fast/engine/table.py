"""The score table of one rank: what is known of its samples, and the thresholds measured from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from . import ops
from .marks import BYTES_PER_ROW, rows_of
from .norms import Norm, norms_on
from .ranks import Ranks

NEVER = -math.inf
MAX_SLOTS = 2**39  # of one rank: the directory numbers blocks of 128 slots with 32 bits


@contextmanager
def memory_for(num_samples: int, ranks: Ranks, protects: bool, device: torch.device) -> Iterator[None]:
    """Makes an out-of-memory error say what the memory was for, and how many bytes were needed.

    Raises:
        torch.OutOfMemoryError: The device is out of memory.
    """
    try:
        yield
    except RuntimeError as error:
        is_memory = isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
        if not is_memory:  # the CPU's error has no type of its own
            raise
        _, num_slots = ranks.shard(num_samples)
        wanted = ops.table_bytes(num_slots) + protects * rows_of(num_slots)
        part = "" if num_slots == num_samples else f" ({num_slots} of them on this rank)"
        remedy = "" if device.type == "cpu" else ", take device='cpu'"
        raise torch.OutOfMemoryError(
            f"the table of {num_samples} samples{part} needs {wanted} bytes on {device}, and fewer are free; nothing was made or "
            f"changed. Free memory there{remedy}, or share the samples among more ranks ({error})"
        ) from error


class Faults(NamedTuple):
    """What a device has counted, on the host; csrc/backends.h has the same order.

    Attributes:
        non_finite: Scores that were NaN or infinite.
        out_of_range, foreign: Ids of no sample, and of samples that other ranks own.
        unkept: Visits of samples that the plan does not keep.
        bad_id: One id that is out of range or foreign.
        unkept_id: One id that the plan does not keep.
    """

    non_finite: int
    out_of_range: int
    foreign: int
    unkept: int
    bad_id: int
    unkept_id: int


NO_FAULTS = Faults(0, 0, 0, 0, 0, 0)
UNKEPT, BAD_ID, UNKEPT_ID = (Faults._fields.index(name) for name in ("unkept", "bad_id", "unkept_id"))


class LookedUp(NamedTuple):
    """What the table knows of some samples. All stay on its device."""

    slots: torch.Tensor  # int64 [B], -1 for an id that is bad or that another rank owns
    marks: torch.Tensor  # uint8 [B]
    faults: torch.Tensor  # bad ids among these, counted as in ``ScoreTable.faults``


class Thresholds(NamedTuple):
    """Where the tiers end. All tensors stay on the table's device."""

    values: torch.Tensor  # [3] float32, descending, padded with -inf
    seen: torch.Tensor  # [1] int64, samples of all ranks that have a score
    tiers: torch.Tensor | None = None  # [8] int32, as ops.set_tiers writes them; None: the policy's prune ratios
    negative: torch.Tensor | None = None  # [1] int64, how many scores are negative that must not be


class ScoreTable:
    """Scores and marks of the samples that one rank owns.

    Args:
        num_samples: Size N of the data set.
        seed: Seed of the deal.
        scatter: Deal the samples by a seeded permutation; without it slot = sample id.
        ranks: Who shares the data set.
        device: Where the table lives.
        momentum: How much of its old score a seen sample keeps at each record, in [0, 1).

    Attributes:
        ranks: As given.
        deal: Sample id to slot.
        scores: float32 [n], by slot; NaN = unseen.
        marks: uint8, the marks of csrc/core/marks.h, padded to whole blocks.
        protect: uint8 [rows], a bit for each slot that is never pruned; None where there is none.
        faults: int64 [6], counted by the device since the last plan: ``Faults``.
        tiers: Cutoffs and weights of the plan that made the marks. They are written together with the marks.
        record: Stores scores and returns weights, under the plan in force. A captured CUDA graph of it holds the addresses of
            scores, marks, faults and tiers, so these tensors are written and never replaced.
    """

    def __init__(self, num_samples: int, seed: int, scatter: bool, ranks: Ranks, device: torch.device, momentum: float) -> None:
        self.num_samples, self.ranks, self._seed, self._scatter = num_samples, ranks, seed, scatter
        self.device, self._momentum = device, momentum
        self.first_slot, self.num_slots = ranks.shard(num_samples)
        if self.num_slots > MAX_SLOTS:
            raise ValueError(
                f"num_replicas={ranks.num_replicas} leaves {self.num_slots} samples per rank, and the limit is {MAX_SLOTS}: use "
                "more ranks"
            )
        self.deal = ops.deal_permutation(num_samples, seed) if scatter else ops.identity_permutation(num_samples)
        self.shard = ops.Shard(self.deal, self.first_slot, self.num_slots)
        self.scores = ops.empty_table(self.num_slots, torch.float32, device).fill_(math.nan)
        self.marks = ops.empty_table(ops.mark_bytes(self.num_slots), torch.uint8, device).zero_()
        self.faults = _no_faults(device)
        self.tiers = ops.empty_tiers(device)
        self.record = ops.Recorder(self.shard, self.scores, self.marks, self.faults, self.tiers, momentum)
        self.protect: torch.Tensor | None = None
        self.take_note()

    def take_note(self) -> None:
        """Notes that scores and marks are now as the table itself has written them; others, such as loaders, may write them later.

        Others write with torch, which counts writes. Writes of native code and by way of ``Tensor.data`` are not counted.
        """
        counts = self.ranks.num_replicas == 1  # reads into the parts of a sharded tensor are not counted
        self._versions = (self.scores._version, self.marks._version) if counts else None

    def is_its_own(self) -> bool:
        """Whether it is known that nothing but the table has written scores or marks."""
        return self._versions is not None and self._versions == (self.scores._version, self.marks._version)

    def of_size(self, num_samples: int) -> ScoreTable:
        """An empty table of another size, whose samples are dealt out anew."""
        return ScoreTable(num_samples, self._seed, self._scatter, self.ranks, self.device, self._momentum)

    def clear(self) -> None:
        """Empties the table: nothing is seen and nothing planned."""
        self.scores.fill_(math.nan)
        self.marks.zero_()
        self.faults.zero_()
        self.take_note()

    @property
    def num_rows(self) -> int:
        """Rows of eight slots, the last of which may be cut."""
        return rows_of(self.num_slots)

    def look_up(self, ids: torch.Tensor) -> LookedUp:
        """Slots and marks of sample ids, int64 [B] on the table's device. Bad ids are told, and not added to ``faults``."""
        faults = _no_faults(self.device)
        return LookedUp(*ops.look_up(self.shard, self.marks, faults, ids), faults)

    def slots_of(self, ids: torch.Tensor) -> torch.Tensor:
        """Slots of sample ids, int64 on the table's device; -1 where another rank owns the sample."""
        return self.look_up(ids).slots

    @property
    def row_marks(self) -> torch.Tensor:
        """The marks without their padding: uint8 [BYTES_PER_ROW * rows], a view."""
        return self.marks[: BYTES_PER_ROW * self.num_rows]

    def mean_threshold(self, ranks: Ranks) -> Thresholds:
        """The smallest float32 that is not below the exact mean of the seen scores of all ranks."""
        if ranks.num_replicas == 1:
            values = torch.empty(ops.MAX_THRESHOLDS, dtype=torch.float32, device=self.device)
            return Thresholds(values, ops.sum_scores(self.scores, values)[-1:])
        total = ranks.sum(ops.sum_scores(self.scores))
        return Thresholds(ops.mean_threshold(total), total[-1:])

    def quantile_thresholds(self, fractions: tuple[int, ...], ranks: Ranks) -> Thresholds:
        """Order statistics of the seen scores of all ranks; fractions in units of 2^-32, descending."""
        alone = ranks.num_replicas == 1
        selection = ops.QuantileSelection(self.scores, fractions, alone)
        for digit in range(ops.DIGIT_PASSES):
            counts = selection.count(digit)
            if not alone:
                ranks.sum(counts)
                selection.narrow(digit)
        return Thresholds(selection.thresholds, selection.seen)

    def importance_tiers(self, by: Norm, kept_fraction: int, least: int, ranks: Ranks) -> Thresholds:
        """Tiers of importance sampling that keep a fraction, in units of 2^-32, of the seen samples which are not protected.

        Args:
            by: How the norm of a sample's gradient is computed from its score.
            kept_fraction: At most 2^32.
            least: Cutoff that no tier is below.
            ranks: Who holds the other scores.
        """
        counts = ranks.sum(ops.count_first_digits(self.scores, self.protect))
        values, tiers, numbers = ops.cut_by_importance(counts, norms_on(by, self.device), kept_fraction, least)
        return Thresholds(values, numbers[:1], tiers, numbers[1:])

    def constant_threshold(self, value: float, ranks: Ranks) -> Thresholds:
        """A threshold that does not depend on the scores."""
        seen = ranks.sum(ops.sum_scores(self.scores))[-1:]
        values = torch.full((ops.MAX_THRESHOLDS,), NEVER, dtype=torch.float32, device=self.device)
        values[:1].fill_(value)  # by a kernel: a tensor made of a list would be copied, and the host would wait
        return Thresholds(values, seen)

    def read_faults(self) -> Faults:
        """What the device has counted. Waits for it."""
        return Faults(*self.faults.tolist())

    def raise_bad_indices(self, faults: Faults, rank: int | None = None) -> None:
        """Raises an error for the bad indices that a device has counted, once: their counts start again from zero.

        Args:
            faults: What the device has counted.
            rank: The rank of that device; None is this rank.

        Raises:
            IndexError: ``update`` got ids that are out of range, or that another rank owns.
        """
        out_of_range, foreign, example = faults.out_of_range, faults.foreign, faults.bad_id
        if out_of_range == 0 and foreign == 0:
            return
        self.faults[1:3].zero_()
        named = f", for instance {example}" if (0 <= example < self.num_samples) == (out_of_range == 0) else ""
        if out_of_range:
            others = f" (and {foreign} samples of other ranks)" if foreign else ""
            raise IndexError(
                f"index: {out_of_range} out of range for {self.num_samples} samples{named}{others}; nothing was recorded for them. "
                "Pass the indices that came with the batch, and wrap the data set that the sampler indexes: "
                "with_index(Subset(...)), not Subset(with_index(...))"
            )
        raise IndexError(
            f"index: rank {self.ranks.rank if rank is None else rank} of {self.ranks.num_replicas} got {foreign} samples that "
            f"other ranks own{named}; their losses were not recorded. Usually a trainer has sharded the sampler a "
            "second time: turn that off (Lightning: use_distributed_sampler=False), and gather no losses across ranks"
        )


def _no_faults(device: torch.device) -> torch.Tensor:
    return torch.zeros(ops.NUM_FAULTS, dtype=torch.int64, device=device)
