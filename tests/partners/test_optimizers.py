"""The paper's optimisers: each takes the step that it takes on the gradient of the weighted losses, computed by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from support.own_loops import SIZE, hand_gradient, linear, loader_of, losses_of, own_losses, problem

pytorch_optimizer = pytest.importorskip("pytorch_optimizer")
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.002, momentum=0.9, weight_decay=5e-4),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    "LARS": lambda parameters: pytorch_optimizer.LARS(parameters, lr=20.0, momentum=0.9, weight_decay=5e-4),
    "LAMB": lambda parameters: pytorch_optimizer.Lamb(parameters, lr=0.01),
}


@pytest.mark.parametrize("rescale", ["epoch", "step"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_step_is_that_on_the_weighted_gradient(name: str, rescale: str) -> None:
    data, model, by_hand, unweighted = problem(), linear(), linear(), linear()
    pruner, loader = loader_of(data, rescale=rescale)
    optimizer, reference, wrong = (OPTIMIZERS[name](each.parameters()) for each in (model, by_hand, unweighted))
    for epoch in range(3):
        pruner.set_epoch(epoch)
        for index, (x, y) in loader:
            expected, weights = own_losses(model.weight, index, data), pruner.weights(index)
            factor = pruner.stats.kept / SIZE if rescale == "step" else 1.0
            assert set((weights / factor).round(decimals=5).tolist()) <= {1.0, 2.0}
            by_hand.weight.grad = hand_gradient(by_hand.weight, index, weights, data)
            unweighted.weight.grad = hand_gradient(unweighted.weight, index, torch.ones_like(weights), data)
            optimizer.zero_grad()
            pruner.update(index, losses_of(model, x, y)).backward()
            torch.testing.assert_close(pruner.scores(index), expected.float(), rtol=1e-6, atol=1e-9)
            torch.testing.assert_close(model.weight.grad, by_hand.weight.grad, rtol=1e-9, atol=1e-12)
            for each in (optimizer, reference, wrong):
                each.step()
            torch.testing.assert_close(model.weight, by_hand.weight, rtol=1e-9, atol=1e-12)
    assert pruner.stats.kept < SIZE
    assert (model.weight - linear().weight).norm() > 1e-3
    assert (model.weight - unweighted.weight).norm() > 1e-6 * model.weight.norm(), "weights made no difference"
