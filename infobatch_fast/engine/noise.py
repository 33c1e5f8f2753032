"""How much noise a plan adds to the gradient."""

from __future__ import annotations

import math
from functools import cache

import torch

from . import ops
from .norms import Norm
from .plan import Plan
from .protect import bits_at
from .table import ScoreTable

PIECE = 1 << 24  # slots looked at in one go if some are protected, as their scores are copied


def added_noise(plan: Plan, table: ScoreTable, by: Norm) -> float:
    """What ``EpochStats.added_noise`` holds, by the scores of this rank as they are now. Waits for the device.

    Pruning that keeps samples of gradient norm g with probability p adds the variance sum of g^2 (1/p - 1).
    """
    keep = [cutoff / ops.CUTOFF_RANGE for cutoff in plan.cutoffs[: len(plan.tier_sizes)]]
    pruned = [tier for tier, probability in enumerate(keep) if probability < 1]
    if not pruned:
        return 0.0
    edges, keys = _bins(table.device)
    middle = (edges + torch.cat([edges[1:], edges.new_tensor([2.0**128])])) / 2
    squares = (middle if by == "score" else -torch.expm1(-middle)) ** 2
    squares = torch.cat([squares.new_zeros(1), squares])  # of what is not positive the norm is 0
    free = _count_free(table, keys)
    skipped = found = 0.0
    for tier in pruned:
        counts = ops.count_bins(table.scores, keys, table.marks, tier).cpu().double()
        skipped += float(counts.sum()) * (1 - keep[tier])
        found += float((counts * squares).sum()) * (1 / keep[tier] - 1)
    kept = float(free.sum()) - skipped
    uniform = float((free * squares).sum()) * skipped / kept if kept else 0.0
    return found / uniform if uniform else 0.0


@cache
def _bins(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Lower ends, float64 on the CPU, and their keys: sixteen bins an octave, from the smallest number that is not subnormal on."""
    edges = [math.ldexp(1 + step % 16 / 16, step // 16 - 126) for step in range(16 * 254)]
    return torch.tensor(edges, dtype=torch.float64, device="cpu"), ops.keys_from(edges, device)


def _count_free(table: ScoreTable, keys: torch.Tensor) -> torch.Tensor:
    """Seen scores of samples that are not protected, by bin: float64 on the CPU."""
    if table.protect is None:
        return ops.count_bins(table.scores, keys).cpu().double()
    total = torch.zeros(len(keys) + 1, dtype=torch.int64, device=table.device)
    for first in range(0, table.num_slots, PIECE):
        scores = table.scores[first : first + PIECE].clone()
        slots = torch.arange(first, first + len(scores), device=table.device)
        total += ops.count_bins(scores.masked_fill_(bits_at(table.protect, slots), math.nan), keys)
    return total.cpu().double()
