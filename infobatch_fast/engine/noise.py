"""How much noise a plan adds to the gradient."""

from __future__ import annotations

import math

import torch

from . import ops
from .norms import Norm
from .plan import Plan
from .protect import bits_at
from .table import ScoreTable

# Sixteen bins an octave, from the smallest number that is not subnormal on: as many as fit beside three thresholds.
EDGES = [math.ldexp(1 + step % 16 / 16, step // 16 - 126) for step in range(16 * 254)]
PIECE = 1 << 24  # slots looked at in one go where some are protected, as a copy is made of their scores


def added_noise(plan: Plan, table: ScoreTable, by: Norm) -> float:
    """What ``EpochStats.added_noise`` holds, by the scores of this rank as they are now. Waits for the device.

    Pruning that keeps samples of gradient norm g with probability p adds the variance sum of g^2 (1/p - 1).
    """
    if all(cutoff == ops.CUTOFF_RANGE for cutoff in plan.cutoffs[: len(plan.tier_sizes)]):
        return 0.0
    edges = sorted({*EDGES, *(level for level in plan.thresholds if EDGES[0] < level < math.inf)})
    samples = kept = found = squares = 0.0
    for low, high, count in zip([-math.inf, *edges], [*edges, 2.0**128], _count(table, edges), strict=True):
        keep = plan.cutoffs[sum(low < level for level in plan.thresholds)] / ops.CUTOFF_RANGE
        middle = (low + high) / 2
        norm = 0.0 if low < 0 else middle if by == "score" else -math.expm1(-middle)
        samples, kept, squares = samples + count, kept + count * keep, squares + count * norm * norm
        found += count * norm * norm * (1 / keep - 1)
    return found / (squares * (samples / kept - 1)) if squares and kept < samples else 0.0


def _count(table: ScoreTable, edges: list[float]) -> list[int]:
    """Seen scores of samples that are not protected, by bin."""
    if table.protect is None:
        counted: list[int] = ops.count_bins(table.scores, edges).tolist()
        return counted
    total = torch.zeros(len(edges) + 1, dtype=torch.int64, device=table.device)
    for first in range(0, table.num_slots, PIECE):
        slots = torch.arange(first, min(first + PIECE, table.num_slots), device=table.device)
        total += ops.count_bins(table.scores[slots].masked_fill_(bits_at(table.protect, slots), math.nan), edges)
    return total.tolist()
