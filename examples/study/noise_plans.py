"""The keep probabilities that policies give to scores, and the noise that these add to the gradient."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from infobatch_fast import ImportanceSampling, InfoBatch, MeanThreshold, Policy, QuantileTiers

SKIPPED = (0.3, 0.5, 0.7)  # of the seen samples
LEAST = 0.1  # the smallest keep probability of the optimum, and of importance sampling where that is not the default
MOST = 0.99  # the highest ratio of the quantile tiers


def norms_of(scores: Tensor) -> Tensor:
    """float64 [N]: the probability of being wrong, which stands for the norm of a sample's gradient, of cross-entropy losses."""
    return -torch.expm1(-scores.double())


def plan(scores: Tensor, policy: Policy) -> InfoBatch:
    """A pruner whose first epoch is planned by these scores."""
    pruner = InfoBatch(len(scores), num_epochs=1, delta=1.0, policy=policy, device="cpu")
    pruner.record(torch.arange(len(scores)), scores)
    return pruner


def keep_probabilities(scores: Tensor, policy: Policy) -> Tensor:
    """float64 [N], as the policy's plan has them."""
    return 1 / plan(scores, policy).weights(torch.arange(len(scores))).double()


def best(norms: Tensor, skipped: float) -> Tensor:
    """float64 [N]: min(1, max(LEAST, c * norm)), the probabilities that add the least noise of all that skip as much."""
    low, high = 1e-12, 1e12
    for _ in range(200):  # bisection of the logarithm of c
        factor = (low * high) ** 0.5
        less = float((factor * norms).clamp(LEAST, 1).mean()) < 1 - skipped
        low, high = (factor, high) if less else (low, factor)
    return (high * norms).clamp(LEAST, 1)


def added_noise(norms: Tensor, keep: Tensor) -> float:
    """The variance that is added to the gradient, as a multiple of what uniform pruning of as many samples adds."""
    uniform = 1 / float(keep.mean()) - 1
    return float((norms.square() * (1 / keep - 1)).sum() / (norms.square().sum() * uniform))


def mean_threshold(scores: Tensor, skipped: float) -> MeanThreshold | None:
    """With the ratio that skips this part; None where that would be 1 or more."""
    _, below, *_ = plan(scores, MeanThreshold()).stats.tier_sizes
    ratio = skipped * len(scores) / below
    return MeanThreshold(ratio) if ratio < 1 else None


def quantile_tiers(scores: Tensor, skipped: float) -> QuantileTiers | None:
    """The default with both ratios scaled alike, the larger up to MOST; the other one then takes the rest. None if it cannot."""
    default = QuantileTiers()
    _, middle, lowest, *_ = (size / len(scores) for size in plan(scores, default).stats.tier_sizes)
    of_lowest, of_middle = default.prune_ratios
    of_lowest = min(MOST, of_lowest * skipped / (lowest * of_lowest + middle * of_middle))
    of_middle = (skipped - lowest * of_lowest) / middle
    return QuantileTiers(default.quantiles, (of_lowest, of_middle)) if of_middle <= MOST else None


def plans(scores: Tensor, skipped: float) -> Iterator[tuple[str, str, Tensor]]:
    """Each policy that skips this part: its key, how it is written, its keep probabilities. Without those that cannot."""
    policies = {
        "mean": mean_threshold(scores, skipped),
        "tiers": quantile_tiers(scores, skipped),
        "importance": ImportanceSampling(skipped, min_keep=LEAST),
        "careful": ImportanceSampling(skipped),
    }
    for key, policy in policies.items():
        if policy is not None:
            yield key, repr(policy), keep_probabilities(scores, policy)
    yield "best", f"min(1, max({LEAST:g}, c * norm))", best(norms_of(scores), skipped)
