"""Which epochs of a run are pruned."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .checks import check_fraction, check_int

EPOCHS = "the number of epochs of the run; if only max_steps is set, pass max_steps // S, steps_per_epoch=S, batch_size=B"


@dataclass(frozen=True)
class Schedule:
    """Epochs in [warmup_epochs, floor(delta * num_epochs)) are pruned, all others are full (the paper's annealing, Eq. 10)."""

    num_epochs: int
    delta: float
    warmup_epochs: int

    def __post_init__(self) -> None:
        meaning = "the fraction of the epochs after which all samples are used again; the paper's choice is 0.875"
        object.__setattr__(self, "num_epochs", check_int("num_epochs", self.num_epochs, 1, meaning=EPOCHS))
        object.__setattr__(self, "warmup_epochs", check_int("warmup_epochs", self.warmup_epochs, 0))
        object.__setattr__(self, "delta", check_fraction("delta", self.delta, closed=True, meaning=meaning))

    @property
    def end(self) -> int:
        """The first of the full epochs at the end."""
        return math.floor(self.delta * self.num_epochs)

    def prunes(self, epoch: int) -> bool:
        """Whether ``epoch`` is pruned."""
        return self.warmup_epochs <= epoch < self.end
