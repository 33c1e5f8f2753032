"""Marks as Python reads them: what stands in the four bits of a slot. csrc/core/marks.h defines them."""

from __future__ import annotations

import torch

from . import ops

KEPT, VISITED = 1, 2
TIER_SHIFT = 2  # the tier's code stands above
BYTES_PER_ROW = 4  # marks of eight slots


def rows_of(num_slots: int) -> int:
    """Rows of eight slots, the last of which may be cut."""
    return -(-num_slots // ops.ROW_SLOTS)


def weights_of(marks: torch.Tensor, tiers: torch.Tensor) -> torch.Tensor:
    """Weights, float32 [B], of samples with marks uint8 [B] under the plan of ``tiers``. Does not wait for the device."""
    return ops.weights_of_tiers(tiers)[(marks >> TIER_SHIFT).long()]
