"""What the engine asks of a policy; the policies themselves are the user's to choose and to write."""

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
        """M in [0, 1): a seen sample's new score is m * its old one + (1 - m) * its loss."""

    @property
    def by(self) -> Norm:
        """What the norm of a sample's gradient is taken from."""

    @property
    def cutoffs(self) -> ops.Cutoffs:
        """Of each tier the keep probability in units of 2^-16."""

    @property
    def expected_saved_fraction(self) -> float:
        """What a pruned epoch is expected to save before one was planned."""

    def thresholds(self, table: ScoreTable, ranks: Ranks) -> Thresholds:
        """Measures where the tiers end, on the seen scores of all ranks."""
