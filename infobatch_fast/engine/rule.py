"""What the engine asks of a policy. Users choose policies, or write their own."""

from __future__ import annotations

from typing import Protocol

from . import ops
from .norms import Norm
from .ranks import Ranks
from .table import ScoreTable, Thresholds


class Rule(Protocol):
    """Thresholds that cut the seen scores into tiers, and how often each tier is kept. See ``infobatch_fast.Policy``."""

    @property
    def momentum(self) -> float:
        """The momentum m in [0, 1): a seen sample's new score is m * old score + (1 - m) * loss."""

    @property
    def by(self) -> Norm:
        """How the norm of a sample's gradient is computed from its score."""

    @property
    def cutoffs(self) -> ops.Cutoffs:
        """Keep probability of each tier in units of 2^-16."""

    @property
    def expected_saved_fraction(self) -> float:
        """The fraction that a pruned epoch is expected to save, before one was planned."""

    def thresholds(self, table: ScoreTable, ranks: Ranks) -> Thresholds:
        """Measures where the tiers end, on the seen scores of all ranks."""
