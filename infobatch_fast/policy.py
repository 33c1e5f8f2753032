"""Policies: which samples may be pruned in an epoch, and how often."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise

from .engine import ops
from .engine.checks import check_fraction, check_fractions
from .engine.norms import Norm
from .engine.ranks import Ranks
from .engine.table import ScoreTable, Thresholds

MOMENTUM_MEANING = "the share of a sample's old score that remains when its new loss comes in; 0 keeps only the last loss"
_RATIO_MEANING = "the probability that a sample of the tier is skipped in an epoch; 0 keeps all, 0.5 is the paper's choice"


class Policy(ABC):
    """Thresholds that cut the seen scores into tiers, and the prune ratio of each tier.

    Write your own as a frozen dataclass of numbers and strings. Ranks compare its ``repr``, which must stay the same during a run.
    A policy whose ``repr`` holds an address is refused.

    Tier 0 is the top tier and is always kept; it also holds the unseen samples. A sample's tier is the number of thresholds
    that its score is below.

    Attributes:
        momentum: m in [0, 1). The new score of a seen sample is m * old score + (1 - m) * loss. With 0 it is the loss itself.
        by: How ``stats.added_noise`` gets the norm of a sample's gradient from its score, as in ``ImportanceSampling``.
    """

    momentum: float = 0.0
    by: Norm = "gradient_norm"

    @property
    @abstractmethod
    def prune_ratio_of_tier(self) -> tuple[float, ...]:
        """Prune ratios of tiers 1, 2 and 3, as far as these tiers exist. Empty if ``thresholds`` finds the ratios."""

    @abstractmethod
    def thresholds(self, table: ScoreTable, ranks: Ranks) -> Thresholds:
        """Measures the thresholds on the seen scores of all ranks, on the table's device."""

    @property
    def expected_saved_fraction(self) -> float:
        """The fraction that a pruned epoch is expected to save, before one was planned. 0 if the policy cannot tell."""
        return 0.0

    @property
    def cutoffs(self) -> tuple[int, int, int, int]:
        """Keep probability of each tier in units of 2^-16. A sample is kept if its 16-bit draw is below this number.

        Raises:
            ValueError: There are more than three prune ratios, or one is outside [0, 1).
        """
        ratios = check_fractions("prune_ratio_of_tier", self.prune_ratio_of_tier, False, _RATIO_MEANING)
        if len(ratios) > ops.MAX_THRESHOLDS:
            raise ValueError(f"prune_ratio_of_tier must hold at most {ops.MAX_THRESHOLDS} ratios, got {ratios!r}: merge tiers")
        cutoffs = [ops.CUTOFF_RANGE, *(ops.cutoff_of(1.0 - ratio) for ratio in ratios)]
        cutoffs += [ops.CUTOFF_RANGE] * (4 - len(cutoffs))
        return (cutoffs[0], cutoffs[1], cutoffs[2], cutoffs[3])


@dataclass(frozen=True)
class MeanThreshold(Policy):
    """Samples that score below the mean of the seen scores are pruned with probability ``prune_ratio`` (the paper's rule).

    Args:
        prune_ratio: r in [0, 1).
        momentum: m in [0, 1). Scores are then exponential moving averages: m * old + (1 - m) * loss. A sample that is seen for the
            first time gets its loss. 0, the paper's rule, scores by the last loss.

    Raises:
        ValueError: ``prune_ratio`` or ``momentum`` is outside [0, 1).

    Source: Qin et al., InfoBatch, ICLR 2024 (arXiv 2303.04947), Eq. 3.
    """

    prune_ratio: float = 0.5
    momentum: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "prune_ratio", check_fraction("prune_ratio", self.prune_ratio, False, _RATIO_MEANING))
        object.__setattr__(self, "momentum", check_fraction("momentum", self.momentum, False, MOMENTUM_MEANING))

    @property
    def prune_ratio_of_tier(self) -> tuple[float, ...]:
        """One tier below the mean."""
        return (self.prune_ratio,)

    @property
    def expected_saved_fraction(self) -> float:
        """Half of r, which assumes that half of the samples are below the mean. With losses it is usually more."""
        return self.prune_ratio / 2

    def thresholds(self, table: ScoreTable, ranks: Ranks) -> Thresholds:
        """The exact mean of the seen scores."""
        return table.mean_threshold(ranks)


@dataclass(frozen=True)
class QuantileTiers(Policy):
    """Cuts the lowest seen scores into tiers, each with its own prune ratio. Scores above the last quantile are always kept.

    The default is the recipe behind the 40 % figures of the paper: the lowest 20 % are pruned with probability 0.75, those from 20
    to 85 % with 0.5, and the top 15 % never.

    Args:
        quantiles: One to three fractions in (0, 1), ascending: the upper ends of the tiers.
        prune_ratios: As many ratios in [0, 1): the first for the tier below the first quantile, the second for the tier up to the
            second quantile, and so on.
        momentum: m in [0, 1), as in ``MeanThreshold``.

    Raises:
        ValueError: The lengths differ, there are none or more than three, a value is out of range, or the quantiles do not ascend.

    Source: the configuration of the paper's authors' research code, described in docs/algorithm.md.
    """

    quantiles: tuple[float, ...] = (0.2, 0.85)
    prune_ratios: tuple[float, ...] = (0.75, 0.5)
    momentum: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "momentum", check_fraction("momentum", self.momentum, False, MOMENTUM_MEANING))
        quantiles = check_fractions("quantiles", self.quantiles, closed=True, meaning="the upper end of a tier")
        object.__setattr__(self, "quantiles", quantiles)
        object.__setattr__(self, "prune_ratios", check_fractions("prune_ratios", self.prune_ratios, False, _RATIO_MEANING))
        if len(self.quantiles) != len(self.prune_ratios) or not 1 <= len(self.quantiles) <= ops.MAX_THRESHOLDS:
            raise ValueError(
                f"quantiles and prune_ratios must have the same length, from 1 to {ops.MAX_THRESHOLDS}, got {self.quantiles!r} and "
                f"{self.prune_ratios!r}: each quantile is the upper end of a tier, so pass one ratio for each"
            )
        ends = (0.0, *self.quantiles, 1.0)
        if not all(low < high for low, high in pairwise(ends)):
            raise ValueError(
                f"quantiles must ascend strictly inside (0, 1), got {self.quantiles!r}: sort them, and leave out 0, 1 and repeats"
            )

    @property
    def prune_ratio_of_tier(self) -> tuple[float, ...]:
        """Prune ratios from the highest tier that is pruned to the lowest."""
        return self.prune_ratios[::-1]

    @property
    def expected_saved_fraction(self) -> float:
        """The sum of width * r over the tiers."""
        widths = (high - low for low, high in pairwise((0.0, *self.quantiles)))
        return sum(width * ratio for width, ratio in zip(widths, self.prune_ratios, strict=True))

    def thresholds(self, table: ScoreTable, ranks: Ranks) -> Thresholds:
        """The exact order statistics of the seen scores at the quantiles."""
        fractions = tuple(min(math.ceil(q * 2**32), 2**32 - 1) for q in self.quantiles[::-1])
        return table.quantile_thresholds(fractions, ranks)


@dataclass(frozen=True)
class RandomPruning(Policy):
    """Every seen sample is pruned with the same probability, whatever its score, and weighted accordingly.

    It is the baseline: compare each claim about accuracy with it.

    Args:
        prune_ratio: r in [0, 1).

    Raises:
        ValueError: ``prune_ratio`` is outside [0, 1).
    """

    prune_ratio: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "prune_ratio", check_fraction("prune_ratio", self.prune_ratio, False, _RATIO_MEANING))

    @property
    def prune_ratio_of_tier(self) -> tuple[float, ...]:
        """All seen samples are in tier 1."""
        return (self.prune_ratio,)

    @property
    def expected_saved_fraction(self) -> float:
        """The prune ratio; it applies to the seen samples."""
        return self.prune_ratio

    def thresholds(self, table: ScoreTable, ranks: Ranks) -> Thresholds:
        """Infinity: every seen score is below it."""
        return table.constant_threshold(math.inf, ranks)


@dataclass(frozen=True)
class NoPruning(Policy):
    """Every sample is kept and weighs 1: full epochs, with the same sampler and the same statistics."""

    @property
    def prune_ratio_of_tier(self) -> tuple[float, ...]:
        """No tier is pruned."""
        return ()

    def thresholds(self, table: ScoreTable, ranks: Ranks) -> Thresholds:
        """Minus infinity: no score is below it."""
        return table.constant_threshold(-math.inf, ranks)
