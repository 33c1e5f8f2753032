"""A histogram of the scores, made on their device."""

from __future__ import annotations

import math

import torch

from . import ops
from .ranks import Ranks


def count_scores(scores: torch.Tensor, bins: int, ranks: Ranks) -> tuple[torch.Tensor, torch.Tensor]:
    """How many seen scores of all ranks fall into each bin. Collective.

    The bins are of equal width in f(x) = sign(x) * (1 + log2(|x| / m)), where m is the smallest magnitude other than 0 and
    f(0) = 0: logarithmic on both sides of zero, so that neither zeros nor one huge score empty the picture.

    Args:
        scores: float32 [n], NaN = unseen.
        bins: 1 to 4,096.
        ranks: Who holds the other parts.

    Returns:
        Counts, int64 [bins], and edges, float64 [bins + 1], both on the CPU. A bin holds edges[i] <= score < edges[i + 1]; the
        last bin holds its upper edge too. The outermost edges are the smallest and the largest score.
    """
    with ranks.waiting_for("histogram()"):
        lowest, negated, smallest = ops.numbers_of_keys(ranks.gather(ops.score_range(scores)).amin(0))
        edges = _edges(lowest, -negated, smallest, bins)
        return ranks.sum(ops.count_bins(scores, ops.keys_from(edges[1:-1].tolist(), scores.device))).cpu(), edges


def _edges(lowest: float, highest: float, smallest: float, bins: int) -> torch.Tensor:
    if lowest > highest:  # nothing is seen
        lowest, highest = 0.0, 1.0
    elif lowest == highest:
        half = abs(lowest) / 2 or 0.5
        lowest, highest = lowest - half, highest + half
    smallest = min(smallest, *(abs(end) for end in (lowest, highest) if end))

    def spread(x: float) -> float:
        return math.copysign(1 + math.log2(abs(x) / smallest), x) if x else 0.0

    places = torch.linspace(spread(lowest), spread(highest), bins + 1, dtype=torch.float64, device="cpu")
    size = places.abs()
    edges = places.sign() * smallest * torch.where(size < 1, size, torch.exp2(size - 1))
    edges[0], edges[-1] = lowest, highest
    return edges
