"""What a run was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from .lengths import Lengths
from .rule import Rule
from .schedule import Schedule


@dataclass(frozen=True)
class Settings:
    """The checked arguments of ``InfoBatch`` that never change. The ranks must agree on them."""

    schedule: Schedule
    policy: Rule
    shuffle: bool
    shard: str
    seed: int
    drop_last: bool
    lengths: Lengths
    rescale: str
    check_first: bool  # this rank's own: it changes no result

    @property
    def shared(self) -> dict[str, str]:
        """What must be the same on all ranks, by name."""
        names = ("schedule", "policy", "shuffle", "shard", "seed", "drop_last", "lengths", "rescale")
        return {name: repr(getattr(self, name)) for name in names}
