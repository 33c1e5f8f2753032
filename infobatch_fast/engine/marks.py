"""Marks as Python reads them: what stands in the four bits of a slot. csrc/core/marks.h defines them."""

from __future__ import annotations

import torch

from . import ops

KEPT, VISITED = 1, 2
TIER_SHIFT = 2  # the tier's code stands above
BYTES_PER_ROW = 4  # marks of eight slots
PIECE = 1 << 24  # bytes looked at in one go, as torch makes temporary copies of them


def rows_of(num_slots: int) -> int:
    """Rows of eight slots, the last of which may be cut."""
    return -(-num_slots // ops.ROW_SLOTS)


def count_unvisited(marks: torch.Tensor) -> int:
    """How many slots of a table's marks, uint8, are kept and not visited. Waits for the device."""
    both = KEPT | VISITED
    unvisited = (((piece & both) == KEPT).sum() + ((piece & (both << 4)) == KEPT << 4).sum() for piece in torch.split(marks, PIECE))
    return int(sum(unvisited, torch.zeros((), dtype=torch.int64, device=marks.device)))


def weights_of(marks: torch.Tensor, tiers: torch.Tensor) -> torch.Tensor:
    """Weights, float32 [B], of samples with marks uint8 [B] under the plan of ``tiers``. Does not wait for the device."""
    return ops.weights_of_tiers(tiers)[(marks >> TIER_SHIFT).long()]
