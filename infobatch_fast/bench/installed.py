"""The published package as a contender, if it is installed. The benchmark does not require it."""
# ruff: noqa: D102 - methods are documented in Contender

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import torch

from .contender import EPOCHS, PRUNE_RATIO, Contender


class InstalledPackage(Contender):
    """The published package, if it is installed."""

    name = "infobatch package"
    once = True
    held, peak = 36.0, 60.0

    def __init__(self, size: int, device: torch.device) -> None:
        super().__init__(size, device)
        self._package = importlib.import_module("infobatch").InfoBatch(range(size), EPOCHS, PRUNE_RATIO, 1.0)
        self._ids: Any = iter(())

    def fill(self, first: int, scores: torch.Tensor) -> None:
        self._package.scores[first : first + scores.numel()] = scores

    def plan(self, epoch: int) -> None:
        self._ids = iter(self._package.sampler)

    def ids(self) -> Iterator[int]:
        return iter(self._ids.__next__, None)  # its own __iter__ would plan again

    def weights(self, ids: torch.Tensor) -> torch.Tensor:
        weights = torch.as_tensor(self._package.weights, device=ids.device)
        return weights[ids].float()

    def update(self, index: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        self._package.set_active_indices(index)
        loss: torch.Tensor = self._package.update(losses.clone())
        return loss
