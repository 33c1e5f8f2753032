"""Means, spreads, and 95 % confidence intervals of differences between methods, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student

CONFIDENCE = 0.95
Runs = dict[int, dict[str, Any]]  # of one method, by seed


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences and half the width of its t-interval; infinite for a single pair."""

    mean: float
    half_width: float
    pairs: int

    @property
    def has_interval(self) -> bool:
        """Not for one pair, nor where the pairs hardly differ: a few test samples then decide, and the spread is unknown."""
        return 1e-2 * abs(self.mean) < self.half_width < math.inf

    @property
    def is_resolved(self) -> bool:
        """Whether zero lies outside of the interval."""
        return self.has_interval and abs(self.mean) > self.half_width


def spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else math.nan


def quantile(pairs: int) -> float:
    """How many standard errors half the interval is wide."""
    return float(student.ppf((1 + CONFIDENCE) / 2, pairs - 1)) if pairs > 1 else math.inf


def difference(one: Runs, other: Runs, value: Callable[[dict[str, Any]], float]) -> Difference | None:
    """Of ``one`` minus ``other``, over the seeds that both have; None where there is none."""
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        return None
    values = [value(one[seed]) - value(other[seed]) for seed in seeds]
    if len(values) == 1:
        return Difference(values[0], math.inf, 1)
    return Difference(mean(values), quantile(len(values)) * stdev(values) / math.sqrt(len(values)), len(values))
