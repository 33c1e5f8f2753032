"""The native core, as functions of tensors, which are not checked here. This is the only module that imports ``_core``."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch

from .odd import address

try:
    from . import _core
except ImportError as error:
    raise ImportError(
        "infobatch_fast: the native module _core is missing or does not load. Build it with 'pip install .' in the project's "
        f"directory. After that, start Python elsewhere, or install with 'pip install -e .' to work in this directory ({error})"
    ) from error

VERSION = _core.__version__
ALGORITHM_VERSION = _core.ALGORITHM_VERSION
COMPILER = _core.COMPILER
CUDA_ARCHITECTURES = _core.CUDA_ARCHITECTURES
CUDA_TOOLKIT = _core.CUDA_TOOLKIT
OPENMP = _core.OPENMP
DIGIT_BINS = _core.DIGIT_BINS
DIGIT_PASSES = _core.DIGIT_PASSES
FIRST_POSITIVE_DIGIT = _core.FIRST_POSITIVE_DIGIT
MAX_BINS = _core.MAX_BINS
NORMS = _core.NORMS
NUM_FAULTS = _core.NUM_FAULTS
MAX_THRESHOLDS = _core.MAX_THRESHOLDS
MAX_SAMPLES = _core.MAX_SAMPLES
ROW_SLOTS = _core.ROW_SLOTS
CUTOFF_RANGE = _core.CUTOFF_RANGE

Shard: TypeAlias = _core.Shard
Permutation: TypeAlias = _core.Permutation
EpochOrder: TypeAlias = _core.EpochOrder
deal_permutation = _core.deal_permutation
shuffle_permutation = _core.shuffle_permutation
identity_permutation = _core.identity_permutation
cutoff_of = _core.cutoff_of
mark_bytes = _core.mark_bytes
first_key_from = _core.first_key_from

Cutoffs = tuple[int, int, int, int]


def _slow_raw_stream(ordinal: int) -> int:
    return int(torch.cuda.current_stream(ordinal).cuda_stream)


# The same without an object, which would take the host two microseconds per call. CPU-only builds of torch lack it.
_raw_stream: Callable[[int], int] = getattr(torch._C, "_cuda_getCurrentRawStream", _slow_raw_stream)


def _where(tensor: torch.Tensor) -> tuple[int, int]:
    """What the core calls device and lane: (-1, threads), or (ordinal, stream)."""
    if tensor.is_cpu:
        return -1, torch.get_num_threads()
    ordinal = tensor.device.index
    return ordinal, _raw_stream(ordinal)


def empty_table(size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """An uninitialised 1-D tensor; on the CPU its memory is advised to take huge pages, as it will be read at random."""
    table = torch.empty(size, dtype=dtype, device=device)
    if device.type == "cpu":
        _core.advise_huge_pages(address(table), table.numel() * table.element_size())
    return table


def table_bytes(num_slots: int) -> int:
    """Bytes that the scores, marks and directory of a table take."""
    return 4 * num_slots + mark_bytes(num_slots) + (8 + 4) * (_core.num_blocks(num_slots) + 1)


def sum_scores(scores: torch.Tensor, thresholds: torch.Tensor | None = None) -> torch.Tensor:
    """Exact sum of float32 scores [n] as int64 [11]: ten limbs and the number of seen scores.

    If no other ranks have scores, ``thresholds``, float32 [3], receives what ``mean_threshold`` would return.
    """
    total = torch.empty(_core.SUM_WORDS + 1, dtype=torch.int64, device=scores.device)
    written = 0 if thresholds is None else address(thresholds)
    _core.sum_scores(*_where(scores), address(scores), scores.numel(), address(total), written)
    return total[:-1]


def mean_threshold(total: torch.Tensor) -> torch.Tensor:
    """The mean threshold of an exact sum: float32 [3], padded with -inf."""
    thresholds = torch.empty(MAX_THRESHOLDS, dtype=torch.float32, device=total.device)
    _core.mean_threshold(*_where(total), address(total), address(thresholds))
    return thresholds


class QuantileSelection:
    """Radix selection of order statistics: ``count`` and ``narrow`` for each digit, with a sum over ranks in between.

    Args:
        scores: float32 [n].
        fractions: Quantiles in units of 2^-32, descending, one to three.
        alone: No other ranks have scores, so ``count`` also does the work of ``narrow``.

    Attributes:
        thresholds: float32 [3], descending, padded with -inf; set after the last digit.
    """

    def __init__(self, scores: torch.Tensor, fractions: tuple[int, ...], alone: bool) -> None:
        device = scores.device
        self._scores = scores
        self._state = torch.empty(_core.QUANTILE_STATE_BYTES // 8, dtype=torch.int64, device=device)
        self._counts = torch.empty(_core.DIGIT_WORDS, dtype=torch.int64, device=device)
        self.thresholds = torch.empty(MAX_THRESHOLDS, dtype=torch.float32, device=device)
        addresses = (address(self._state), address(self._counts), address(self.thresholds))
        self._native = _core.DigitPass(address(scores), scores.numel(), fractions, *addresses, alone)

    @property
    def seen(self) -> torch.Tensor:
        """int64 [1], the number of seen scores. The state's last word."""
        return self._state[-1:]

    def count(self, digit: int) -> torch.Tensor:
        """Histograms of one digit of the candidates: int64 [3 * 2048], to be summed over ranks in place."""
        self._native.digit = digit
        _core.count_digits(*_where(self._scores), self._native)
        return self._counts[digit * _core.DIGIT_COUNTS :][: _core.DIGIT_COUNTS]

    def narrow(self, digit: int) -> None:
        """Fixes one digit of each order statistic."""
        self._native.digit = digit
        _core.narrow_quantiles(*_where(self._scores), self._native)


def count_first_digits(scores: torch.Tensor, protect: torch.Tensor | None) -> torch.Tensor:
    """The histogram of the first digit, int64 [2048]; samples with a bit in ``protect``, uint8 [rows], are counted apart."""
    counts = torch.empty(_core.DIGIT_WORDS, dtype=torch.int64, device=scores.device)
    bits = 0 if protect is None else address(protect)
    _core.count_first_digits(*_where(scores), address(scores), scores.numel(), bits, address(counts))
    return counts[: _core.DIGIT_BINS]


def cut_by_importance(
    counts: torch.Tensor, norms: torch.Tensor, kept_fraction: int, least: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Importance sampling of scores that are counted by their first digit.

    Args:
        counts: int64 [2048], of all ranks.
        norms: float64 [NORMS], of the digits from ``FIRST_POSITIVE_DIGIT`` on, ascending.
        kept_fraction: In units of 2^-32.
        least: Cutoff that no tier is below.

    Returns:
        Thresholds, float32 [3], descending, padded with -inf. Tiers, int32 [8], as ``set_tiers`` writes them. And int64 [2]: the
        number of seen scores, and the number of negative scores of samples that are not protected.
    """
    device = counts.device
    thresholds = torch.empty(MAX_THRESHOLDS, dtype=torch.float32, device=device)
    tiers = torch.empty(_core.TIERS_BYTES // 4, dtype=torch.int32, device=device)
    numbers = torch.empty(2, dtype=torch.int64, device=device)
    given = (address(counts), address(norms), kept_fraction, least)
    _core.cut_by_importance(*_where(counts), *given, address(thresholds), address(tiers), address(numbers))
    return thresholds, tiers, numbers


def score_range(scores: torch.Tensor) -> torch.Tensor:
    """The least keys of scores, of their negatives and of their sizes other than 0: int32 [3], see ``numbers_of_keys``."""
    keys = torch.empty(_core.RANGE_KEYS, dtype=torch.int32, device=scores.device)
    _core.score_range(*_where(scores), address(scores), scores.numel(), address(keys))
    return keys


def numbers_of_keys(keys: torch.Tensor) -> list[float]:
    """The numbers that keys stand for, which are in the same order; infinite where there is none."""
    return [math.inf if key == _core.NO_KEY else _core.number_of_key(key) for key in keys.tolist()]


def keys_from(edges: Iterable[float], device: torch.device) -> torch.Tensor:
    """``first_key_from`` of each edge, int32 on a device, as ``count_bins`` takes them."""
    return torch.tensor([first_key_from(edge) for edge in edges], dtype=torch.int32, device=device)


def count_bins(scores: torch.Tensor, keys: torch.Tensor, marks: torch.Tensor | None = None, tier: int = 0) -> torch.Tensor:
    """How many seen scores are below the first of these ascending edges, between two, and not below the last: int64.

    Args:
        scores: float32 [n].
        keys: Of the edges, ``keys_from`` on the same device.
        marks: Marks of the same slots, if only the scores of ``tier`` are to be counted.
        tier: 0 to 3.
    """
    counts = torch.empty(keys.numel() + 1, dtype=torch.int64, device=scores.device)
    edges, of_tier = (address(keys), counts.numel()), (0 if marks is None else address(marks), tier)
    _core.count_bins(*_where(scores), address(scores), scores.numel(), *edges, *of_tier, address(counts))
    return counts


def tier_weights(cutoffs: Cutoffs, scale: float = 1.0) -> list[float]:
    """What undoes the cutoff of each tier, times ``scale``, rounded to float32."""
    return _core.tier_weights(cutoffs, scale)


def set_tiers(tiers: torch.Tensor, cutoffs: Cutoffs, scale: float = 1.0) -> None:
    """Writes the cutoffs of each tier, and their ``tier_weights``, into ``tiers``: int32 [8], made by ``empty_tiers``."""
    _core.set_tiers(*_where(tiers), cutoffs, scale, address(tiers))


def empty_tiers(device: torch.device) -> torch.Tensor:
    """int32 [8], to be written by ``set_tiers``."""
    return torch.zeros(_core.TIERS_BYTES // 4, dtype=torch.int32, device=device)


def cutoffs_of_tiers(tiers: torch.Tensor) -> torch.Tensor:
    """The cutoffs in ``tiers``: int32 [4], a view."""
    return tiers[: MAX_THRESHOLDS + 1]


def weights_of_tiers(tiers: torch.Tensor) -> torch.Tensor:
    """The weights in ``tiers``: float32 [4], a view."""
    return tiers[_core.TIER_WEIGHTS_OFFSET // 4 :].view(torch.float32)


class BitDirectory:
    """Marks, uint8 [mark_bytes(num_marks)], with a directory of the kept ones for select; by default all marks that fit.

    Attributes:
        lock: Held by code that reads an order by the directory, or writes the directory or its marks: native code drops the
            interpreter lock. The thread that holds it may take it again, but never while it waits for other ranks.
        version: How often directory or marks were written. An order by an older version is no longer valid.
    """

    def __init__(self, marks: torch.Tensor, num_marks: int | None = None) -> None:
        num_marks = 2 * marks.numel() if num_marks is None else num_marks
        blocks, device = _core.num_blocks(num_marks), marks.device
        self.marks = marks
        self.lock, self.version = threading.RLock(), 0
        self._ones_before = empty_table(blocks + 1, torch.int64, device)
        self._hints = empty_table(blocks + 1, torch.int32, device)
        self._counts = torch.empty(_core.INDEX_COUNTS, dtype=torch.int64, device=device)
        self._scratch = torch.empty(0 if device.type == "cpu" else _core.INDEX_SCRATCH, dtype=torch.int64, device=device)
        directory = (address(self._ones_before), address(self._hints))
        self._index = _core.IndexBits(address(marks), num_marks, *directory, address(self._counts), address(self._scratch))
        self.native = _core.BitIndex(address(marks), blocks, *directory)

    def build(self) -> torch.Tensor:
        """Indexes the marks as they are now.

        Returns:
            int64 [9] on their device, which the next call overwrites: kept marks, marks of each tier, kept marks of each tier.
        """
        _core.index_bits(*_where(self.marks), self._index)
        return self._counts

    def draw_plan(
        self,
        scores: torch.Tensor,
        first_slot: int,
        thresholds: torch.Tensor,
        tiers: torch.Tensor,
        seed: int,
        epoch: int,
        protect: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Writes the marks of an epoch and indexes them; returns what ``build`` does.

        Args:
            scores: float32 [n], by slot.
            first_slot: The slot of the first score; a multiple of 8.
            thresholds: float32 [3], descending, padded with -inf.
            tiers: As ``set_tiers`` writes them: a sample is kept if its 16-bit draw is below the cutoff of its tier.
            seed: Key of the draws.
            epoch: Counter of the draws.
            protect: uint8 [rows], a bit for each slot that is kept whatever its score.
        """
        _core.draw_plan(
            *_where(scores),
            address(scores),
            first_slot,
            scores.numel(),
            address(thresholds),
            address(tiers),
            seed,
            epoch,
            0 if protect is None else address(protect),
            address(self.marks),
            self._index,
        )
        return self._counts


def order(epoch: EpochOrder, remaining: BitDirectory | None, start: int, stop: int, device: torch.device) -> torch.Tensor:
    """Sample ids at positions [start, stop) of the order, or of what remains of it: int64."""
    ids = torch.empty(stop - start, dtype=torch.int64, device=device)
    _core.order(*_where(ids), epoch, None if remaining is None else remaining.native, start, stop - start, address(ids))
    return ids


def mark_remaining(epoch: EpochOrder, positions: int, marks: torch.Tensor) -> torch.Tensor:
    """Marks of the positions of an order. Positions that are not visited are marked as kept."""
    remaining = empty_table(mark_bytes(positions), torch.uint8, marks.device)
    _core.mark_remaining(*_where(marks), epoch, address(marks), address(remaining))
    return remaining


def look_up(shard: Shard, marks: torch.Tensor, faults: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Slots (int64, -1 for a bad index) and marks (uint8) of sample ids; bad ones are added to ``faults``."""
    slots = torch.empty(index.numel(), dtype=torch.int64, device=index.device)
    found = torch.empty(index.numel(), dtype=torch.uint8, device=index.device)
    _core.look_up(
        *_where(index),
        shard,
        address(marks),
        address(faults),
        address(index),
        index.numel(),
        address(slots),
        address(found),
    )
    return slots, found


class Recorder:
    """Stores scores and returns weights, under the plan whose marks and tiers then stand in these tensors, which it keeps alive.

    With a momentum > 0 a seen sample's score becomes momentum * old + (1 - momentum) * new.
    """

    def __init__(
        self,
        shard: Shard,
        scores: torch.Tensor,
        marks: torch.Tensor,
        faults: torch.Tensor,
        tiers: torch.Tensor,
        momentum: float = 0.0,
    ) -> None:
        self._held = (scores, marks, faults, tiers)
        pointers = (address(scores), address(marks), address(faults), address(tiers))
        self._ordinal = _where(scores)[0]
        self._record = _core.Recorder(self._ordinal, shard, *pointers, momentum).record

    def __call__(self, index: torch.Tensor, scores: torch.Tensor, averaged: bool = False, visits: bool = True) -> torch.Tensor:
        """Records float32 scores of ids, int64 [B]; returns their weights, float32 [B], or with ``averaged`` weights / B.

        ``visits``: the samples were trained on. This is marked, and counted as a fault if the plan does not keep them. All tensors
        are contiguous and on the table's device. Scores may be part of an autograd graph, to which nothing is added.
        """
        weights = torch.empty_like(scores)
        index_at, scores_at, weights_at = index.data_ptr(), scores.data_ptr(), weights.data_ptr()
        if not (index_at and scores_at and weights_at):  # else ``address``, which takes the host longer, has nothing to say
            for tensor in (index, scores, weights):
                address(tensor)
        lane = 1 if self._ordinal < 0 else _raw_stream(self._ordinal)  # on the CPU it runs on one thread
        self._record(lane, index_at, scores_at, index.numel(), averaged, visits, weights_at)
        return weights
