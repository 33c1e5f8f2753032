"""Importance sampling as a policy of one's own: keep probabilities that follow the norm of a sample's gradient.

To keep samples with p = min(1, c * g) adds the least variance to the gradient, of all rules that skip as many (Needell et al.,
2014; Katharopoulos and Fleuret, 2018, arXiv 1803.00942). A plan has four tiers, so probabilities are rounded to four: that of the
top tier is 1, those of the others follow the root mean square of g in their tier. For one rank, as it looks at its own scores only;
the host waits for the device once a plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from infobatch_fast import Policy

TIERS = 3  # below the top one


@dataclass(frozen=True)
class ImportanceSampling(Policy):
    """Skips a given fraction of the seen samples, those of small gradient most often.

    Scores must be cross-entropy losses: 1 - exp(-loss), the probability of being wrong, is the norm of the gradient at the logits
    up to a factor below sqrt(2).

    Args:
        saved_fraction: Of the seen samples of a pruned epoch, in expectation.
        min_keep: The smallest keep probability, below 1 - saved_fraction.
    """

    saved_fraction: float = 0.5
    min_keep: float = 0.1

    @property
    def prune_ratio_of_tier(self) -> tuple[float, ...]:
        """Of the plan that was measured last."""
        ratios: tuple[float, ...] = getattr(self, "_ratios", (0.0,) * TIERS)
        return ratios

    @property
    def expected_saved_fraction(self) -> float:
        """As asked for."""
        return self.saved_fraction

    def thresholds(self, table: Any, ranks: Any) -> Any:
        """Cuts the seen scores into tiers, and sets the ratios of the plan that is made of them."""
        scores = table.scores.cpu().numpy()
        scores = scores[~np.isnan(scores)]
        edges, keep = solve(scores, 1 - self.saved_fraction, self.min_keep)
        object.__setattr__(self, "_ratios", tuple(1 - p for p in keep))  # not a field: it is no setting, which ranks must share
        measured = table.constant_threshold(-np.inf, ranks)  # how many are seen
        return measured._replace(values=torch.tensor(edges, dtype=torch.float32, device=table.device))


def solve(scores: np.ndarray, kept: float, min_keep: float) -> tuple[list[float], list[float]]:
    """Three thresholds, descending, and the keep probabilities of the tiers below them.

    Args:
        scores: float32 [n], cross-entropy losses.
        kept: The fraction that is to be kept on average.
        min_keep: The smallest keep probability.
    """
    if scores.size == 0:
        return [-np.inf] * TIERS, [1.0] * TIERS
    norms = -np.expm1(-np.maximum(scores.astype(np.float64), 0))
    factor = factor_for(norms, np.ones_like(norms), kept, min_keep)
    lowest = float(np.clip(factor * norms.min(), min_keep, 1))
    norms_at_edges = np.array([lowest ** (part / TIERS) for part in range(TIERS)]) / factor
    edges = np.where(norms_at_edges < 1, -np.log1p(-np.minimum(norms_at_edges, 1 - 1e-16)), np.inf).astype(np.float32)
    tiers = (scores[:, None] < edges).sum(1)
    sizes = np.bincount(tiers, minlength=TIERS + 1)
    of_tier = np.sqrt(np.bincount(tiers, norms**2, TIERS + 1) / np.maximum(sizes, 1))[1:]
    kept_below = max(kept * scores.size - sizes[0], 0) / max(sizes[1:].sum(), 1)
    factor = factor_for(of_tier, sizes[1:], kept_below, min_keep)
    return edges.tolist(), np.clip(factor * of_tier, min_keep, 1).tolist()


def factor_for(norms: np.ndarray, sizes: np.ndarray, kept: float, min_keep: float) -> float:
    """The factor c with which clip(c * norms, min_keep, 1) is ``kept`` on average over ``sizes``, by bisection of its logarithm."""
    low, high = 1e-12, 1e12
    for _ in range(80):
        factor = (low * high) ** 0.5
        mean = np.average(np.clip(factor * norms, min_keep, 1), weights=sizes + 1e-12)
        low, high = (factor, high) if mean < kept else (low, factor)
    return high
