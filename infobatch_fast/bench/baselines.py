"""The alternatives, written for this benchmark: the algorithm as published, NumPy, plain torch, and torch's own samplers."""
# ruff: noqa: D102 - methods are documented in Contender

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.utils.data import DistributedSampler, RandomSampler

from .contender import PRUNE_RATIO, Contender, ready_batches, ready_ids

KEEP = 1.0 - PRUNE_RATIO
QUANTILES, KEEPS = (0.2, 0.85), (0.25, 0.5)  # the defaults of QuantileTiers


class _NumpyTables(Contender):
    def __init__(self, size: int, device: torch.device) -> None:
        super().__init__(size, device)
        self._scores, self._weights = np.ones(size, np.float32), np.ones(size, np.float32)

    def fill(self, first: int, scores: torch.Tensor) -> None:
        self._scores[first : first + scores.numel()] = scores.numpy()

    def weights(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._weights)[ids]


class Published(_NumpyTables):
    """The algorithm as published: tables on the CPU, an epoch's indices in a list, an update that waits for the device."""

    name = "published"
    held, peak = 36.0, 60.0

    def plan(self, epoch: int) -> None:
        random = np.random.RandomState(epoch)  # the legacy generator, seeded with the epoch
        self._order: list[int] = []
        below = self._scores < self._scores.mean()
        candidates = np.flatnonzero(below)
        drawn = random.choice(candidates, int(KEEP * len(candidates)), replace=False)
        self._weights[:] = 1.0
        self._weights[drawn] = 1.0 / KEEP
        self._order = np.flatnonzero(~below).tolist()
        self._order.extend(drawn)
        random.shuffle(self._order)

    def ids(self) -> Iterator[int]:
        return _Forwarding(self._order)

    def update(self, index: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        places = index.cpu()
        weights = torch.from_numpy(self._weights)[places].to(self.device)
        torch.from_numpy(self._scores)[places] = losses.detach().clone().cpu()
        return (losses * weights).mean()


class _Forwarding:
    """An iterator with a ``__next__`` in Python, as the published sampler is one."""

    def __init__(self, elements: list[int]) -> None:
        self._elements = iter(elements)

    def __iter__(self) -> _Forwarding:
        return self

    def __next__(self) -> int:
        return next(self._elements)


class _TensorOrder(Contender):
    """The order of an epoch in a tensor: ids that are computed already are read from it in slices."""

    _order: torch.Tensor

    def ids(self) -> Iterator[int]:
        return ready_ids(self._order.cpu())

    def batches(self, size: int) -> Iterator[list[int]]:
        return ready_batches(self._order.cpu(), size)

    def tensor(self, most: int) -> torch.Tensor:
        return self._order[:most]


class VectorisedNumpy(_NumpyTables, _TensorOrder):
    """The same rule in whole-array NumPy operations and with its new generator, nothing in lists."""

    name = "NumPy"
    held, peak = 14.0, 30.0

    def plan(self, epoch: int) -> None:
        self._draw(np.where(self._scores < self._scores.mean(), np.float32(KEEP), np.float32(1.0)), epoch)

    def plan_quantiles(self, epoch: int) -> None:
        ranks = [int(quantile * self.size) for quantile in QUANTILES]
        low, high = np.partition(self._scores, ranks)[ranks]
        keep = np.where(self._scores < high, np.float32(KEEPS[1]), np.float32(1.0))
        keep[self._scores < low] = KEEPS[0]
        self._draw(keep, epoch)

    def _draw(self, keep: np.ndarray[Any, np.dtype[np.float32]], epoch: int) -> None:
        generator = np.random.default_rng(epoch)
        order = np.flatnonzero(generator.random(self.size, np.float32) < keep)
        generator.shuffle(order)
        self._order = torch.from_numpy(order)
        np.divide(np.float32(1.0), keep, out=self._weights)

    def update(self, index: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        places = index.numpy()
        weights = torch.from_numpy(self._weights[places])
        self._scores[places] = losses.detach().numpy()
        return (losses * weights).mean()


class PlainTorch(_TensorOrder):
    """The same rule in torch operations on the same device: mask, rand, nonzero, randperm."""

    name = "torch ops"
    on_device = True
    held, peak = 14.0, 40.0

    def __init__(self, size: int, device: torch.device) -> None:
        super().__init__(size, device)
        self._scores, self._weights = torch.ones(size, device=device), torch.ones(size, device=device)

    def fill(self, first: int, scores: torch.Tensor) -> None:
        self._scores[first : first + scores.numel()] = scores.to(self.device)

    def plan(self, epoch: int) -> None:
        self._draw(torch.where(self._scores < self._scores.mean(), KEEP, 1.0), epoch)

    def plan_quantiles(self, epoch: int) -> None:
        low, high = (self._scores.kthvalue(1 + int(quantile * self.size)).values for quantile in QUANTILES)
        keep = torch.where(self._scores < high, KEEPS[1], 1.0)
        self._draw(torch.where(self._scores < low, KEEPS[0], keep), epoch)

    def _draw(self, keep: torch.Tensor, epoch: int) -> None:
        generator = torch.Generator(self.device).manual_seed(epoch)
        kept = (torch.rand(self.size, device=self.device, generator=generator) < keep).nonzero().flatten()
        self._order = kept[torch.randperm(len(kept), device=self.device, generator=generator)]
        self._weights = keep.reciprocal_()

    def weights(self, ids: torch.Tensor) -> torch.Tensor:
        return self._weights[ids.to(self.device)].cpu()

    def update(self, index: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        self._scores[index] = losses.detach()
        return (losses * self._weights[index]).mean()


class TorchSampler(Contender):
    """The cost of sampling without pruning. Its plan is what it does before the first id comes."""

    once = True
    held, peak = 41.0, 50.0

    def __init__(self, size: int, device: torch.device) -> None:
        super().__init__(size, device)
        self._ids: Iterator[int] = iter(())

    def ids(self) -> Iterator[int]:
        ids, self._ids = self._ids, iter(())
        return ids

    def _start(self, sampler: Any) -> None:
        self._ids = iter(())  # frees what the last epoch has left
        ids = iter(sampler)
        self._ids = chain((next(ids),), ids)


class TorchRandomSampler(TorchSampler):
    """``DataLoader(shuffle=True)``."""

    name = "RandomSampler"

    def plan(self, epoch: int) -> None:
        self._start(RandomSampler(range(self.size), generator=torch.Generator().manual_seed(epoch)))


class TorchDistributedSampler(TorchSampler):
    """``DistributedSampler`` of one rank."""

    name = "DistributedSampler"
    peak = 58.0

    def plan(self, epoch: int) -> None:
        sampler: DistributedSampler[int] = DistributedSampler(range(self.size), num_replicas=1, rank=0)  # type: ignore[arg-type]
        sampler.set_epoch(epoch)
        self._start(sampler)
