"""A data set that has grown at its end: what is known of its samples moves into a larger table."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import replace
from numbers import Integral

import torch

from . import ops
from .checks import check_size
from .epochs import Epochs
from .marks import KEPT
from .planner import Planner
from .protect import Protect, bits_at, check_protect, protect_samples, set_bits
from .table import ScoreTable, memory_for

PIECE = 1 << 20  # slots moved at a time: a multiple of 128, as marks are padded to that


def grow(epochs: Epochs, current: Sized | int, new_size: Sized | int | None, protect: Protect | None) -> Sized | int:
    """Moves to the larger data set. Its samples beyond those of ``current`` are unseen. Collective.

    Returns:
        The data source from now on.

    Raises:
        TypeError, ValueError, IndexError, RuntimeError, torch.OutOfMemoryError: As ``InfoBatch.grow``; nothing is changed.
    """
    if not epochs.settings.lengths.is_dynamic:
        raise RuntimeError(
            f"grow: with steps_per_epoch={epochs.settings.lengths.steps_per_epoch} plans follow each other without a gap in which "
            "samples could be added: construct InfoBatch without steps_per_epoch"
        )
    old = epochs.table
    source, size = _new_data_source(current, new_size, old.num_samples)
    protected = None if protect is None else check_protect(protect, size)
    between = epochs.is_between()
    what = {"new_size": str(size), "epoch": str(epochs.epoch), "between epochs": str(between)}
    old.ranks.agree(what | {"protect": str(protect is not None)}, old.device, "grow was called")
    if size == old.num_samples and protected is None:
        return source
    if not between:
        raise RuntimeError(
            f"grow: epoch {epochs.epoch} is under way, and its plan is for {old.num_samples} samples: iterate it to its "
            f"end first, or leave the rest of it out by set_epoch({epochs.epoch + 1}). Then call grow before anything that "
            "needs the next plan, such as len(loader)"
        )
    with memory_for(size, old.ranks, protected is not None or old.protect is not None, old.device):
        new = old.of_size(size)
        _move_scores(old, new)
        if protected is not None:
            protect_samples(new, protected)
        planner = Planner(new, epochs.settings)
    epochs.planner.before_writing()  # what was read ahead from the old table is done before its memory is given away
    epochs.replace_planner(planner)
    return source


def _new_data_source(current: Sized | int, new: Sized | int | None, num_samples: int) -> tuple[Sized | int, int]:
    """The data source after growth, and its size.

    Raises:
        TypeError: ``new`` is neither a number nor has a length.
        ValueError: The data set would shrink, or its length differs from the given number.
    """
    has_length = not isinstance(current, Integral)
    if new is None and not has_length:
        raise ValueError(f"new_size must be given, as InfoBatch got the number {num_samples}, not a data set: call grow(new_size)")
    source = current if new is None else new
    size = check_size(source, "data_source" if new is None else "new_size")
    if size < num_samples:
        raise ValueError(
            f"new_size must be at least {num_samples}, the present number of samples, got {size}: data sets grow at their end "
            "only, so construct a new InfoBatch for a smaller one"
        )
    if isinstance(source, Integral) and has_length:
        if check_size(current) != size:
            raise ValueError(
                f"new_size={size}, but the data source has {check_size(current)} samples: add the samples to it first, or pass the "
                "data set that replaces it"
            )
        source = current
    return source, size


def _move_scores(old: ScoreTable, new: ScoreTable) -> None:
    """Copies scores, protected samples and fault counts of ``old`` to ``new``, whose samples are dealt out anew.

    The deal depends on the number of samples, so a sample's slot and its rank change. Every rank sends its old part to all ranks,
    piece by piece, and takes the samples that it owns now. So each rank goes through all samples of the data set once. Collective.
    """
    new.faults.copy_(old.faults)
    if old.protect is not None and new.protect is None:
        new.protect = torch.zeros(new.num_rows, dtype=torch.uint8, device=new.device)
    reader, ranks = _SlotReader(old), old.ranks
    for rank in range(ranks.num_replicas):
        first, length = replace(ranks, rank=rank).shard(old.num_samples)
        for start in range(0, length, PIECE):
            count = min(PIECE, length - start)
            scores, protected = _piece(old, rank, start, count)
            slots = new.slots_of(reader.ids(first + start, count))
            mine = slots >= 0
            new.scores[slots[mine]] = scores[mine]
            if new.protect is not None and protected is not None:
                set_bits(new.protect, slots[mine & protected])
    new.take_note()


def _piece(old: ScoreTable, rank: int, start: int, count: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Scores of ``count`` slots of a rank's old part, and whether each is protected, on all ranks."""
    protects, ranks, here = old.protect is not None, old.ranks, rank == old.ranks.rank
    places = torch.arange(start, start + count, device=old.device)
    scores = old.scores[start : start + count] if here else torch.empty(count, dtype=torch.float32, device=old.device)
    scores = ranks.broadcast(scores, rank)
    if not protects:
        return scores, None
    assert old.protect is not None
    bits = bits_at(old.protect, places).to(torch.uint8) if here else torch.empty(count, dtype=torch.uint8, device=old.device)
    return scores, ranks.broadcast(bits, rank).bool()


class _SlotReader:
    """Sample ids of any slots of a data set: the order of a plan that keeps all of them and does not shuffle."""

    def __init__(self, table: ScoreTable) -> None:
        self._deal, self._device = table.deal, table.device
        everything = torch.full((ops.mark_bytes(PIECE),), KEPT | KEPT << 4, dtype=torch.uint8, device=table.device)
        self._directory = ops.BitDirectory(everything)
        self._directory.build()

    def ids(self, first: int, count: int) -> torch.Tensor:
        """Ids of slots [first, first + count), int64; count is at most PIECE."""
        shard = ops.Shard(self._deal, first, count)
        epoch = ops.EpochOrder(shard, ops.identity_permutation(count), self._directory.native)
        return ops.order(epoch, None, 0, count, self._device)
