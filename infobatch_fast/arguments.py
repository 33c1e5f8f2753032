"""The arguments of ``InfoBatch``, as read-only properties."""

from __future__ import annotations

from collections.abc import Sized
from typing import cast

import torch

from .engine.engine import Engine
from .engine.lengths import Lengths
from .engine.schedule import Schedule
from .policy import Policy


class Arguments:
    """The arguments that an ``InfoBatch`` was constructed with. They cannot be set, as the current plan may depend on them."""

    engine: Engine

    @property
    def data_source(self) -> Sized | int:
        """The data set, or the number of its samples."""
        return self.engine.data_source

    @property
    def num_samples(self) -> int:
        """The number of samples."""
        return self.engine.table.num_samples

    @property
    def schedule(self) -> Schedule:
        """Which epochs are pruned."""
        return self.engine.settings.schedule

    @property
    def policy(self) -> Policy:
        """Which samples may be pruned, and how often."""
        return cast(Policy, self.engine.settings.policy)  # the engine knows it as a Rule

    @property
    def shuffle(self) -> bool:
        """Whether samples come in a new random order each epoch."""
        return self.engine.settings.shuffle

    @property
    def shard(self) -> str:
        """How samples are dealt to ranks: scattered or contiguous."""
        return self.engine.settings.shard

    @property
    def seed(self) -> int:
        """The seed. Together with the epoch it decides everything that is random."""
        return self.engine.settings.seed

    @property
    def drop_last(self) -> bool:
        """Whether longer ranks are cut."""
        return self.engine.settings.drop_last

    @property
    def rescale(self) -> str:
        """What the weights preserve of the full data: the sum over an epoch, or the size of a step."""
        return self.engine.settings.rescale

    @property
    def lengths(self) -> Lengths:
        """How long an epoch is."""
        return self.engine.settings.lengths

    @property
    def device(self) -> torch.device:
        """Where scores and plan live."""
        return self.engine.device

    @property
    def num_replicas(self) -> int:
        """Number of data-parallel ranks."""
        return self.engine.ranks.num_replicas

    @property
    def rank(self) -> int:
        """The number of this rank, from 0."""
        return self.engine.ranks.rank
