"""A data set that has grown at its end: what is known of its samples moves into a larger table."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import replace
from numbers import Integral

import torch

from . import ops
from .checks import check_size
from .protect import bits_at, set_bits
from .ranks import Ranks
from .table import ScoreTable

PIECE = 1 << 20  # slots moved at a time: a multiple of 128, as marks are padded to that


def new_data_source(current: Sized | int, new: Sized | int | None, num_samples: int) -> tuple[Sized | int, int]:
    """The data source after growth, and its size.

    Raises:
        TypeError: ``new`` is neither a number nor has a length.
        ValueError: The data set would shrink, or its length is another than the number given.
    """
    has_length = not isinstance(current, Integral)
    if new is None and not has_length:
        raise ValueError(f"new_size must be given, as the pruner was made for the number {num_samples} and not for a data set")
    source = current if new is None else new
    size = check_size(source, "data_source" if new is None else "new_size")
    if size < num_samples:
        raise ValueError(
            f"new_size must be at least {num_samples}, the samples there are, got {size}: data sets grow at their end only"
        )
    if isinstance(source, Integral) and has_length:
        if check_size(current) != size:
            raise ValueError(
                f"new_size={size}, but the data source has {check_size(current)} samples: add to it first, or pass the data set "
                "that takes its place"
            )
        source = current
    return source, size


def move_scores(old: ScoreTable, new: ScoreTable, ranks: Ranks) -> None:
    """Copies scores, protected samples and fault counts of ``old`` to ``new``, whose samples are dealt out anew.

    The deal depends on the number of samples, so a sample's slot and its rank change. Every rank sends its old part to all, piece
    by piece, and takes what is its own now: each rank goes through all samples of the data set once. Collective.
    """
    new.faults.copy_(old.faults)
    if old.protect is not None and new.protect is None:
        new.protect = torch.zeros(new.num_rows, dtype=torch.uint8, device=new.device)
    reader = _SlotReader(old)
    for rank in range(ranks.num_replicas):
        first, length = replace(ranks, rank=rank).shard(old.num_samples)
        for start in range(0, length, PIECE):
            count = min(PIECE, length - start)
            scores, protected = _piece(old, ranks, rank, start, count)
            slots = new.slots_of(reader.ids(first + start, count))
            mine = slots >= 0
            new.scores[slots[mine]] = scores[mine]
            if new.protect is not None and protected is not None:
                set_bits(new.protect, slots[mine & protected])


def _piece(old: ScoreTable, ranks: Ranks, rank: int, start: int, count: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Scores, and whether protected, of ``count`` slots of a rank's old part, on all ranks."""
    protects, here = old.protect is not None, rank == ranks.rank
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
        everything = torch.full((ops.mark_bytes(PIECE),), 0x11, dtype=torch.uint8, device=table.device)
        self._directory = ops.BitDirectory(everything)
        self._directory.build()

    def ids(self, first: int, count: int) -> torch.Tensor:
        """Ids of slots [first, first + count), int64; count is at most PIECE."""
        shard = ops.Shard(self._deal, first, count)
        epoch = ops.EpochOrder(shard, ops.identity_permutation(count), self._directory.native)
        return ops.order(epoch, None, 0, count, self._device)
