"""What all contenders of the benchmark have in common, and infobatch_fast as one of them."""
# ruff: noqa: D102 - methods are documented in Contender

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch.utils.data import BatchSampler

from .. import InfoBatch, Policy, QuantileTiers

PRUNE_RATIO = 0.5
FILL = 1 << 20  # samples that are scored at a time
EPOCHS = 1 << 30  # enough for delta=1 to prune in every one that a benchmark comes to


class Contender:
    """A way to prune, or just to sample. A contender has the methods that ``can`` names.

    Args:
        size: Number of samples N.
        device: Where the losses come from, and where the contender works if it can.

    Attributes:
        name: As tables show it.
        can: Of "plan", "quantiles", "ids", "batches", "tensor", "update" and "save" what it offers.
        once: Whether the ids of a plan can be had once only.
        on_device: Whether it holds its tables on ``device``, and not always on the CPU.
        held: Bytes a sample that it holds, about.
        peak: Bytes a sample that it holds while it plans, about.
    """

    name: ClassVar[str]
    can: ClassVar[frozenset[str]]
    once: ClassVar[bool] = False
    on_device: ClassVar[bool] = False
    held: ClassVar[float] = 0.0
    peak: ClassVar[float] = 0.0

    def __init__(self, size: int, device: torch.device) -> None:
        self.size, self.device = size, device

    def fill(self, first: int, scores: torch.Tensor) -> None:
        """Makes float32 ``scores`` [n] on the CPU those of samples first ... first + n - 1."""

    def plan(self, epoch: int) -> None:
        """Everything that must be done before the first id of an epoch can come."""
        raise NotImplementedError

    def plan_quantiles(self, epoch: int) -> None:
        """The same with two quantile tiers instead of the mean."""
        raise NotImplementedError

    def ids(self) -> Iterator[int]:
        """The ids of the epoch that was planned, one by one."""
        raise NotImplementedError

    def batches(self, size: int) -> Iterator[list[int]]:
        """The same in lists, by default as a DataLoader makes them of a sampler's ids."""
        return iter(BatchSampler(self.ids(), size, drop_last=False))

    def tensor(self) -> torch.Tensor:
        """The same as one int64 tensor."""
        raise NotImplementedError

    def weights(self, ids: torch.Tensor) -> torch.Tensor:
        """Weights of samples, float32 on the CPU."""
        raise NotImplementedError

    def update(self, index: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        """Stores a batch's losses; their weighted mean."""
        raise NotImplementedError

    def state(self) -> Any:
        """What ``torch.save`` writes to go on later."""
        raise NotImplementedError

    def restore(self, state: Any) -> None:
        """Goes on from what ``torch.load`` read."""
        raise NotImplementedError


class Ours(Contender):
    """infobatch_fast."""

    name = "infobatch_fast"
    can = frozenset({"plan", "quantiles", "ids", "batches", "tensor", "update", "save"})
    on_device = True
    held, peak = 4.7, 9.4  # a second one with the other policy

    def __init__(self, size: int, device: torch.device, policy: Policy | None = None) -> None:
        super().__init__(size, device)
        self.pruner = InfoBatch(size, EPOCHS, delta=1.0, policy=policy, device=device)
        self._quantiles: Ours | None = None

    def fill(self, first: int, scores: torch.Tensor) -> None:
        index = torch.arange(first, first + scores.numel(), device=self.device)
        self.pruner.update(index, scores.to(self.device))

    def plan(self, epoch: int) -> None:
        self.pruner.set_epoch(epoch)
        len(self.pruner.sampler)

    def plan_quantiles(self, epoch: int) -> None:
        self.with_quantiles().plan(epoch)

    def with_quantiles(self) -> Ours:
        """The same scores under the other policy."""
        if self._quantiles is None:
            self._quantiles = Ours(self.size, self.device, QuantileTiers())
            self._quantiles.pruner.load_state_dict(self.pruner.state_dict())
        return self._quantiles

    def forget_quantiles(self) -> None:
        """Frees what ``with_quantiles`` made."""
        self._quantiles = None

    def ids(self) -> Iterator[int]:
        return _without_moving_on(self.pruner, iter(self.pruner.sampler))

    def batches(self, size: int) -> Iterator[list[int]]:
        return _without_moving_on(self.pruner, iter(self.pruner.sampler.batches(size)))

    def tensor(self) -> torch.Tensor:
        return self.pruner.sampler.indices()

    def weights(self, ids: torch.Tensor) -> torch.Tensor:
        return self.pruner.weights(ids.to(self.device)).cpu()

    def update(self, index: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        return self.pruner.update(index, losses)

    def state(self) -> Any:
        return self.pruner.state_dict()

    def restore(self, state: Any) -> None:
        self.pruner.load_state_dict(state)


def _without_moving_on(pruner: InfoBatch, elements: Iterator[Any]) -> Iterator[Any]:
    """``elements`` as they are. An epoch that was iterated before is selected again, so that it is yielded and not the next one."""
    pruner.set_epoch(pruner.epoch)
    return elements


def synthetic_scores(first: int, count: int) -> torch.Tensor:
    """Log-normal losses of some samples, float32 [count]: many small ones and a long tail, 69 % of them below the mean."""
    generator = torch.Generator().manual_seed((1 << 40) + first)  # no epoch: contenders seed with those
    return torch.randn(count, generator=generator).exp_()


def fill_all(contenders: list[Contender], size: int) -> None:
    """Gives all contenders the same scores for all samples."""
    for first in range(0, size, FILL):
        scores = synthetic_scores(first, min(FILL, size - first))
        for contender in contenders:
            contender.fill(first, scores)
