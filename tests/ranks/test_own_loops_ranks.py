"""DDP and FSDP2 on two ranks: each rank's scores are its samples' own losses, and the gradient is the ranks' weighted mean."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.distributed as dist

from support.own_loops import SIZE, WIDTH, hand_gradient, linear, loader_of, losses_of, own_losses, problem
from support.ranks import needs_gloo, run_ranks

pytestmark = needs_gloo


def mean_over_ranks(gradient: torch.Tensor) -> torch.Tensor:
    dist.all_reduce(gradient)
    return gradient / dist.get_world_size()


def train_ddp(accumulate: int) -> dict[str, Any]:
    from torch.nn.parallel import DistributedDataParallel

    data, net = problem(), linear()
    model = DistributedDataParallel(net)
    pruner, loader = loader_of(data)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002)
    steps, weights_seen = [], set()
    for epoch in range(3):
        pruner.set_epoch(epoch)
        by_hand, batches = torch.zeros_like(net.weight), len(loader)
        for batch, (index, (x, y)) in enumerate(loader, start=1):
            expected, weights = own_losses(net.weight, index, data), pruner.weights(index)
            by_hand += hand_gradient(net.weight, index, weights, data) / accumulate
            last = batch % accumulate == 0 or batch == batches
            with nullcontext() if last else model.no_sync():
                (pruner.update(index, losses_of(model, x, y)) / accumulate).backward()
            torch.testing.assert_close(pruner.scores(index), expected.float(), rtol=1e-6, atol=1e-9)
            if last:
                torch.testing.assert_close(net.weight.grad, mean_over_ranks(by_hand))
                optimizer.step()
                optimizer.zero_grad()
                by_hand = torch.zeros_like(net.weight)
            weights_seen |= set(weights.tolist())
        steps.append(batches)
    return {"steps": steps, "weights": weights_seen, "weight": net.weight.tolist(), "kept": pruner.stats.kept}


def train_fsdp() -> dict[str, Any]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    data, model = problem(), linear()
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    pruner, loader = loader_of(data)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    steps, weights_seen = [], set()
    for epoch in range(3):
        pruner.set_epoch(epoch)
        for index, (x, y) in loader:
            weight = model.weight.full_tensor()  # type: ignore[operator]
            expected, weights = own_losses(weight, index, data), pruner.weights(index)
            optimizer.zero_grad()
            pruner.update(index, losses_of(model, x, y)).backward()
            torch.testing.assert_close(pruner.scores(index), expected.float(), rtol=1e-6, atol=1e-9)
            found = model.weight.grad.full_tensor()  # type: ignore[union-attr]
            torch.testing.assert_close(found, mean_over_ranks(hand_gradient(weight, index, weights, data)))
            optimizer.step()
            weights_seen |= set(weights.tolist())
        steps.append(len(loader))
    final = model.weight.full_tensor().tolist()  # type: ignore[operator]
    return {"steps": steps, "weights": weights_seen, "weight": final, "kept": pruner.stats.kept}


def assert_trained(ranks: list[dict[str, Any]]) -> None:
    first, second = ranks
    assert first["weight"] == second["weight"]
    assert len(first["weight"][0]) == WIDTH
    assert first["steps"] == second["steps"]
    assert first["steps"][0] == SIZE // 2 // 12
    assert max(first["steps"][1:]) < first["steps"][0]
    assert first["weights"] | second["weights"] == {1.0, 2.0}
    assert first["kept"] == second["kept"] < SIZE


@pytest.mark.parametrize("accumulate", [1, 2])
def test_ddp_averages_the_ranks_weighted_gradients(accumulate: int) -> None:
    assert_trained(run_ranks(2, train_ddp, accumulate))


def test_fsdp2_averages_the_ranks_weighted_gradients() -> None:
    assert_trained(run_ranks(2, train_fsdp))
