"""Where the scores lie: a histogram made on their device, piece by piece."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from .ranks import Ranks

PIECE = 1 << 20  # scores binned in one go: some 30 MB of temporary tensors


def count_scores(scores: torch.Tensor, bins: int, ranks: Ranks) -> tuple[torch.Tensor, torch.Tensor]:
    """How many seen scores of all ranks fall into each bin. Collective.

    The bins are of equal width in f(x) = sign(x) * (1 + log2(|x| / m)), where m is the smallest magnitude other than 0 and
    f(0) = 0: logarithmic on both sides of zero, so that neither zeros nor one huge score empty the picture.

    Args:
        scores: float32 [n], NaN = unseen.
        bins: At least 1.
        ranks: Who holds the other parts.

    Returns:
        Counts, int64 [bins], and edges, float64 [bins + 1], both on the CPU. A bin holds edges[i] <= score < edges[i + 1], the
        last one its upper edge too; the outermost edges are the smallest and the largest score.
    """
    edges = _edges(*_range(scores, ranks), bins)
    inner, beyond = edges[1:-1].to(scores.device), torch.tensor(bins, dtype=torch.int64, device=scores.device)
    counts = torch.zeros(bins + 1, dtype=torch.int64, device=scores.device)  # the last one: unseen
    for piece in _pieces(scores):
        bin_of = torch.where(piece.isnan(), beyond, torch.bucketize(piece.double(), inner, right=True))
        counts.scatter_add_(0, bin_of, torch.ones_like(bin_of))
    return ranks.sum(counts[:bins].clone()).cpu(), edges


def _range(scores: torch.Tensor, ranks: Ranks) -> tuple[float, float, float]:
    """Smallest score, largest score and smallest magnitude other than 0, of all ranks; infinite where there is none."""
    minima = torch.full(
        (3,), math.inf, dtype=torch.float32, device=scores.device
    )  # of score, -score and magnitude; the host waits once, at the end
    for piece in _pieces(scores):
        seen = piece.masked_fill(piece.isnan(), math.inf)
        highest = piece.masked_fill(piece.isnan(), -math.inf).amax()
        smallest = seen.abs().masked_fill_(piece == 0, math.inf).amin()
        minima = torch.minimum(minima, torch.stack((seen.amin(), -highest, smallest)))
    lowest, negated, smallest = ranks.gather(minima).amin(0).tolist()
    return lowest, -negated, smallest


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


def _pieces(scores: torch.Tensor) -> Iterator[torch.Tensor]:
    return (scores[first : first + PIECE] for first in range(0, scores.numel(), PIECE))
