"""Loops of one's own: accumulation, mixed precision, compiled steps. Scores are samples' own, and weights reach the gradient."""

import pytest
import torch

from support.own_loops import SIZE, hand_gradient, linear, loader_of, losses_of, own_losses, problem

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_loop_has_every_samples_own_loss_and_the_weighted_gradient(workers: int) -> None:
    data, model = problem(), linear()
    pruner, loader = loader_of(data, workers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002)
    steps, seen_weights = [], set()
    for epoch in range(3):
        pruner.set_epoch(epoch)
        steps.append(0)
        for index, (x, y) in loader:
            expected = own_losses(model.weight, index, data)
            weights = pruner.weights(index)
            loss = pruner.update(index, losses_of(model, x, y))
            optimizer.zero_grad()
            loss.backward()
            assert model.weight.grad is not None
            torch.testing.assert_close(pruner.scores(index), expected.float(), rtol=1e-6, atol=1e-9)
            torch.testing.assert_close(model.weight.grad, hand_gradient(model.weight, index, weights, data))
            optimizer.step()
            steps[-1] += 1
            seen_weights |= set(weights.tolist())
    assert steps[0] == SIZE // 12
    assert max(steps[1:]) < steps[0]
    assert seen_weights == {1.0, 2.0}


def test_gradient_accumulation_sums_the_weighted_gradients_of_its_batches() -> None:
    data, model = problem(), linear()
    pruner, loader = loader_of(data)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002)
    for epoch in range(3):
        pruner.set_epoch(epoch)
        by_hand, batches = torch.zeros_like(model.weight), len(loader)
        for batch, (index, (x, y)) in enumerate(loader, start=1):
            expected = own_losses(model.weight, index, data)
            (pruner.update(index, losses_of(model, x, y)) / 3).backward()
            by_hand += hand_gradient(model.weight, index, pruner.weights(index), data) / 3
            torch.testing.assert_close(pruner.scores(index), expected.float(), rtol=1e-6, atol=1e-9)
            if batch % 3 == 0 or batch == batches:
                torch.testing.assert_close(model.weight.grad, by_hand)
                optimizer.step()
                optimizer.zero_grad()
                by_hand.zero_()
    assert 0 < pruner.stats.kept < SIZE


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_mixed_precision_with_a_grad_scaler_scores_the_unscaled_losses(dtype: torch.dtype) -> None:
    data, model = problem(torch.float32), linear(torch.float32)
    pruner, loader = loader_of(data)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    kept = []
    for epoch in range(3):
        pruner.set_epoch(epoch)
        for index, (x, y) in loader:
            with torch.autocast("cpu", dtype=dtype):
                losses = losses_of(model, data[0][index], data[1][index])  # by hand, of the samples that index names
                (by_hand,) = torch.autograd.grad((pruner.weights(index) * losses).mean(), model.weight)
                found = losses_of(model, x, y).to(dtype)
                loss = pruner.update(index, found)
            assert loss.dtype == torch.float32
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            assert model.weight.grad is not None
            assert torch.equal(pruner.scores(index), losses.to(dtype).float())
            difference = (model.weight.grad - by_hand).norm() / by_hand.norm()
            assert difference < 0.02, "dtype's rounding; weights of 1 instead of 2 would be half as much again"
            scaler.step(optimizer)
            scaler.update()
        kept.append(pruner.stats.kept)
        assert pruner.stats.scored == pruner.stats.kept
    assert kept[0] == SIZE
    assert max(kept[1:]) < SIZE


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # the compiler's own, at its import
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_step_weights_the_gradient_as_an_eager_one(backend: str) -> None:
    torch._dynamo.reset()
    data, model = problem(), linear()
    pruner, loader = loader_of(data)
    loader.batch_sampler.drop_last = True  # type: ignore[union-attr]  # one shape, so one compilation
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002)

    @torch.compile(fullgraph=True, backend=backend)
    def step(index: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return pruner.update(index, losses_of(model, x, y))

    for epoch in range(2):
        pruner.set_epoch(epoch)
        for index, (x, y) in loader:
            expected = own_losses(model.weight, index, data)
            optimizer.zero_grad()
            step(index, x, y).backward()
            torch.testing.assert_close(pruner.scores(index), expected.float(), rtol=1e-6, atol=1e-9)
            torch.testing.assert_close(model.weight.grad, hand_gradient(model.weight, index, pruner.weights(index), data))
            optimizer.step()
    assert pruner.stats.kept < SIZE
    assert 2.0 in pruner.weights(range(SIZE)).tolist()
