"""Importance sampling: a policy that skips a given fraction of the samples and adds the least noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .engine import ops
from .engine.checks import check_choice, check_fraction
from .engine.norms import NORMS, Norm
from .engine.ranks import Ranks
from .engine.table import ScoreTable, Thresholds
from .policy import MOMENTUM_MEANING, Policy

_SAVED_MEANING = "the part of the seen samples that a pruned epoch skips"
_KEEP_MEANING = "the smallest probability with which a sample is kept"
_ROUNDING = 1e-9  # of 1 - min_keep


@dataclass(frozen=True)
class ImportanceSampling(Policy):
    """Skips the given fraction of the seen samples, whatever their scores look like, and adds little noise to the gradient.

    A sample whose gradient has the norm g is kept with a probability near min(1, max(min_keep, c * g)), and weighs the reciprocal.
    Each plan solves for c. Of all rules that skip as many samples, this one adds the least variance; it is rounded to four
    probabilities. The fraction holds in expectation, so what an epoch skips varies with the draws. Unseen and protected samples are
    kept with weight 1 and do not count in the fraction.

    Args:
        saved_fraction: The fraction to skip of the seen samples that are not protected, in [0, 1 - min_keep], and below 1.
        by: How g is computed. "gradient_norm": the score is a cross-entropy loss, and g = 1 - exp(-score), the probability of being
            wrong. It equals the norm of the gradient at the logits up to a factor of at most sqrt(2). "score": g is the score
            itself. Take it for losses of other kinds, for norms that are passed as ``scores=``, or for weights of your own. Samples
            are then drawn without replacement, each by itself, with probabilities nearly proportional to their scores.
        min_keep: The smallest keep probability, in (0, 1], rounded to 1/65536. No weight is above its reciprocal. Samples with
            scores at or below 0 have it, unless more of them must be kept because only ``saved_fraction`` may be skipped. None, the
            default, is half of the fraction that is kept: 0.3 if 40 % are skipped. Scores are old when they are used. In most
            measurements this high floor therefore added less noise than 0.1 (docs/policies.md).
        momentum: m in [0, 1), as in ``MeanThreshold``.

    Raises:
        TypeError: An argument that must be a number is not one.
        ValueError: An argument is out of range.

    Source: Needell et al., arXiv 1310.5715; Katharopoulos and Fleuret, ICML 2018 (arXiv 1803.00942). docs/algorithm.md says how the
    tiers are cut.
    """

    saved_fraction: float = 0.4
    by: Norm = "gradient_norm"
    min_keep: float | None = None
    momentum: float = 0.0

    def __post_init__(self) -> None:
        saved = check_fraction("saved_fraction", self.saved_fraction, False, _SAVED_MEANING)
        min_keep = (1 - saved) / 2 if self.min_keep is None else check_fraction("min_keep", self.min_keep, True, _KEEP_MEANING)
        check_choice("by", self.by, NORMS)
        if min_keep == 0.0:
            raise ValueError(
                f"min_keep must be in (0, 1], got {self.min_keep!r}: raise it, as a sample that is never kept biases the gradient"
            )
        most = 1 - max(min_keep, 1 / ops.CUTOFF_RANGE)
        if saved > most + _ROUNDING:
            raise ValueError(
                f"saved_fraction={self.saved_fraction!r} is more than {most:g}, the most that min_keep={min_keep:g} allows, "
                "as each sample is kept with at least that probability: lower saved_fraction or min_keep"
            )
        object.__setattr__(self, "by", str(self.by))
        object.__setattr__(self, "saved_fraction", saved)
        object.__setattr__(self, "min_keep", min_keep)
        object.__setattr__(self, "momentum", check_fraction("momentum", self.momentum, False, MOMENTUM_MEANING))

    @property
    def prune_ratio_of_tier(self) -> tuple[float, ...]:
        """Empty: no ratio is known before a plan is made, as each plan solves for its own."""
        return ()

    @property
    def expected_saved_fraction(self) -> float:
        """The ``saved_fraction`` that was asked for."""
        return self.saved_fraction

    def thresholds(self, table: ScoreTable, ranks: Ranks) -> Thresholds:
        """Tiers and their keep probabilities, from a histogram of the seen scores."""
        assert self.min_keep is not None  # it was resolved when the policy was made
        return table.importance_tiers(self.by, math.ceil((1 - self.saved_fraction) * 2**32), ops.cutoff_of(self.min_keep), ranks)
