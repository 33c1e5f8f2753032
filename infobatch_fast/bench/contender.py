"""What all contenders of the benchmark have in common, and infobatch_fast as one of them."""
# ruff: noqa: D102 - methods are documented in Contender

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import ClassVar

import torch
from torch.utils.data import BatchSampler

from .. import ImportanceSampling, InfoBatch, Policy, QuantileTiers
from ..sampler import RUN

PRUNE_RATIO = 0.5
FILL = 1 << 20  # samples that are scored at a time
EPOCHS = 1 << 30  # with delta=1, enough to prune every epoch that a benchmark reaches


class Contender:
    """A way to prune, or just to sample. All have the methods below.

    A contender may also have some of these methods:

    - ``plan_quantiles(epoch)``: a plan with two quantile tiers instead of the mean
    - ``plan_importance(epoch)``: a plan that skips 40 % by importance sampling
    - ``tensor(most)``: the first ids of the epoch that was planned, at most so many, as one int64 tensor
    - ``weights(ids)``: weights of samples, float32 on the CPU
    - ``update(index, losses)``: stores a batch's losses; their weighted mean

    Args:
        size: Number of samples N.
        device: Where the losses come from, and where the contender works if it can.

    Attributes:
        name: As tables show it.
        once: Whether the ids of a plan can be read only once.
        on_device: Whether it holds its tables on ``device``, and not always on the CPU.
        held: Bytes a sample that it holds, about.
        peak: Bytes a sample that it holds while it plans, about.
    """

    name: ClassVar[str]
    once: ClassVar[bool] = False
    on_device: ClassVar[bool] = False
    held: ClassVar[float]
    peak: ClassVar[float]

    def __init__(self, size: int, device: torch.device) -> None:
        self.size, self.device = size, device

    def fill(self, first: int, scores: torch.Tensor) -> None:
        """Makes float32 ``scores`` [n] on the CPU those of samples first ... first + n - 1."""

    def plan(self, epoch: int) -> None:
        """Everything that must be done before the first id of an epoch can come."""
        raise NotImplementedError

    def ids(self) -> Iterator[int]:
        """The ids of the epoch that was planned, one by one."""
        raise NotImplementedError

    def batches(self, size: int) -> Iterator[list[int]]:
        """The same in lists, by default as a DataLoader makes them of a sampler's ids."""
        return iter(BatchSampler(self.ids(), size, drop_last=False))


def ignore_notices() -> None:
    """Silences warnings: measurements pass ids and select epochs as no training run would, and a pruner warns of that."""
    warnings.filterwarnings("ignore", r"update got|index: \d+ losses came|set_epoch|epoch \d+ was trained", RuntimeWarning)


class Ours(Contender):
    """infobatch_fast, through its public face."""

    name = "infobatch_fast"
    on_device = True
    held, peak = 9.2, 9.4  # with the second pruner

    def __init__(self, size: int, device: torch.device) -> None:
        super().__init__(size, device)
        self.pruner = InfoBatch(size, EPOCHS, delta=1.0, device=device)
        self._second: InfoBatch | None = None

    def _by(self, policy: Policy) -> InfoBatch:
        """A second pruner with the scores of the first one, for the policy that is measured."""
        if self._second is None or self._second.policy != policy:
            self._second = None  # there is room for one
            self._second = InfoBatch(self.size, EPOCHS, delta=1.0, policy=policy, device=self.device)
            self._second.load_state_dict(self.pruner.state_dict())
        return self._second

    def fill(self, first: int, scores: torch.Tensor) -> None:
        index = torch.arange(first, first + scores.numel(), device=self.device)
        self.pruner.update(index, scores.to(self.device))

    def plan(self, epoch: int) -> None:
        _plan(self.pruner, epoch)

    def plan_quantiles(self, epoch: int) -> None:
        _plan(self._by(QuantileTiers()), epoch)

    def plan_importance(self, epoch: int) -> None:
        _plan(self._by(ImportanceSampling()), epoch)

    def ids(self) -> Iterator[int]:
        self.pruner.set_epoch(self.pruner.epoch)  # which is yielded again if it was iterated before, and not the next one
        return iter(self.pruner.sampler)

    def batches(self, size: int) -> Iterator[list[int]]:
        self.pruner.set_epoch(self.pruner.epoch)
        return iter(self.pruner.sampler.batches(size))

    def tensor(self, most: int) -> torch.Tensor:
        return self.pruner.sampler.indices(0, min(most, len(self.pruner.sampler)))

    def weights(self, ids: torch.Tensor) -> torch.Tensor:
        return self.pruner.weights(ids.to(self.device)).cpu()

    def update(self, index: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        return self.pruner.update(index, losses)


def _plan(pruner: InfoBatch, epoch: int) -> None:
    pruner.set_epoch(epoch)
    len(pruner.sampler)


def ready_ids(ids: torch.Tensor) -> Iterator[int]:
    """Python ints of ids that are computed already, int64 [k] on the CPU: the least work that a ``DataLoader`` needs."""
    return chain.from_iterable(ready_batches(ids, RUN))


def ready_batches(ids: torch.Tensor, size: int) -> Iterator[list[int]]:
    """The same in lists of ``size``."""
    array = ids.numpy()
    return (array[first : first + size].tolist() for first in range(0, len(array), size))


def fill_all(contenders: Sequence[Contender], size: int) -> torch.Tensor:
    """Gives all contenders the same scores for all samples, log-normal losses: many small ones, 69 % below the mean, a long tail.

    Returns:
        float32 [size] on the CPU.
    """
    scores = torch.empty(size, device="cpu")
    for first in range(0, size, FILL):
        part = scores[first : first + FILL]
        generator = torch.Generator().manual_seed((1 << 40) + first)  # no epoch: contenders seed with those
        torch.randn(len(part), generator=generator, out=part).exp_()
        for contender in contenders:
            contender.fill(first, part)
    return scores
