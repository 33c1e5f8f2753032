"""How long a trainer's epoch is: as its plan (dynamic), always the same (constant), or without end (endless).

In the last two cases plans follow each other inside an iteration, like passes over a data set, and a batch may span two plans. The
trainer's epochs and the plans are then counted separately.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .checks import check_int


@dataclass(frozen=True)
class Lengths:
    """The arguments of ``InfoBatch`` that say how long an epoch is.

    Args:
        batch_size: Indices in a batch of a rank, if ``steps_per_epoch`` is a number.
        steps_per_epoch: None: as many as the plan needs. A number: always that many. ``math.inf``: an iteration never ends.
    """

    batch_size: int | None = None
    steps_per_epoch: int | float | None = None

    def __post_init__(self) -> None:
        steps = self.steps_per_epoch
        if steps is None or steps == math.inf:
            if self.batch_size is not None:
                raise ValueError(
                    f"batch_size={self.batch_size!r} is used only with a number of steps: pass steps_per_epoch=S too, or leave "
                    "batch_size out and pass it to the loader"
                )
            return
        object.__setattr__(self, "steps_per_epoch", check_int("steps_per_epoch", _whole(steps), 1))
        if self.batch_size is None:
            raise ValueError(
                f"steps_per_epoch={steps!r} needs batch_size: pass the size of a batch on each rank. An epoch is then "
                "steps_per_epoch * batch_size indices long"
            )
        object.__setattr__(self, "batch_size", check_int("batch_size", self.batch_size, 1))

    @property
    def is_dynamic(self) -> bool:
        """Whether an epoch is as long as its plan."""
        return self.steps_per_epoch is None

    @property
    def is_endless(self) -> bool:
        """Whether an iteration never ends."""
        return self.steps_per_epoch == math.inf

    @property
    def indices(self) -> int | None:
        """Indices of an epoch on each rank, where that is a constant."""
        return None if self.is_dynamic or self.is_endless else int(self.steps_per_epoch or 0) * (self.batch_size or 0)

    def check_batch_size(self, batch_size: Any) -> int:
        """``batch_size`` as an int, if it fits.

        Raises:
            TypeError: It is not an int.
            ValueError: It is less than 1, or not the one that ``InfoBatch`` got with ``steps_per_epoch``.
        """
        size = check_int("batch_size", batch_size, 1)
        if self.batch_size not in (None, size):
            raise ValueError(
                f"batch_size must be {self.batch_size}, which InfoBatch got with steps_per_epoch={self.steps_per_epoch}, got "
                f"{size}: construct InfoBatch with the batch_size of the loader"
            )
        return size


def _whole(steps: Any) -> Any:
    return int(steps) if isinstance(steps, float) and steps.is_integer() else steps
