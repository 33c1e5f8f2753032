"""Policies for the tests."""

from __future__ import annotations

from dataclasses import dataclass, field

from infobatch_fast import MeanThreshold
from infobatch_fast.engine.ranks import Ranks
from infobatch_fast.engine.table import ScoreTable, Thresholds


@dataclass(frozen=True)
class Alternating(MeanThreshold):
    """Prunes with probability 0.5 in every second plan, and with 0.75 in the others. Each pruner needs one of its own."""

    plans: list[None] = field(default_factory=list, repr=False, compare=False)

    @property
    def prune_ratio_of_tier(self) -> tuple[float, ...]:
        return (0.5 if len(self.plans) % 2 else 0.75,)

    def thresholds(self, table: ScoreTable, ranks: Ranks) -> Thresholds:
        self.plans.append(None)
        return super().thresholds(table, ranks)
