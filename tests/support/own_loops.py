"""A linear model whose gradients are known in closed form, for the tests of training loops of one's own."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from infobatch_fast import InfoBatch, with_index

SIZE, WIDTH, BATCH = 96, 5, 12


def problem(dtype: torch.dtype = torch.float64, size: int = SIZE) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs [size, WIDTH] and targets [size]; the first half is easy, so that it is pruned."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(size, WIDTH, dtype=torch.float64, generator=generator)
    y = x.sum(1) * torch.where(torch.arange(size) < size // 2, 0.05, 3.0)
    return x.to(dtype), y.to(dtype)


def linear(dtype: torch.dtype = torch.float64) -> nn.Linear:
    model = nn.Linear(WIDTH, 1, bias=False, dtype=dtype)
    nn.init.constant_(model.weight, 0.01)
    return model


def losses_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Half the squared errors, [B]."""
    return 0.5 * (model(x).squeeze(1) - y) ** 2


def own_losses(weight: torch.Tensor, index: torch.Tensor, data: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """What the samples' losses are, computed from the data set and not from what a loader brought."""
    x, y = data[0][index], data[1][index]
    return 0.5 * (x @ weight.detach().flatten() - y) ** 2


def hand_gradient(
    weight: torch.Tensor, index: torch.Tensor, weights: torch.Tensor, data: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """sum(w_i * grad_i) / B, in closed form: grad_i = (x_i . weight - y_i) x_i."""
    x, y = data[0][index], data[1][index]
    error = x @ weight.detach().flatten() - y
    return ((weights.to(x.dtype) * error)[:, None] * x).sum(0, keepdim=True) / len(index)


def loader_of(
    data: tuple[torch.Tensor, torch.Tensor], workers: int = 0, **kwargs: object
) -> tuple[InfoBatch, DataLoader[tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]]]:
    dataset = TensorDataset(*data)
    pruner = InfoBatch(dataset, 10, delta=1.0, **kwargs)  # type: ignore[arg-type]
    return pruner, DataLoader(with_index(dataset), BATCH, sampler=pruner.sampler, num_workers=workers)
