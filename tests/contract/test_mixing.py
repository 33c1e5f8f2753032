"""mixup, cutmix, SAM and several heads: the recipes of docs/losses.md weigh each sample by its own weight, so they are unbiased."""

import math
from collections.abc import Callable
from statistics import mean, stdev

import pytest
import torch

from infobatch_fast import InfoBatch
from support.runs import record

SIZE, BATCH, SEEDS, SHARE = 512, 16, 20, 0.6

Step = Callable[[InfoBatch, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def as_in_the_recipe(pruner: InfoBatch, index: torch.Tensor, losses: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
    theirs = pruner.weigh(index[partner], (1 - SHARE) * losses[partner])
    return theirs + pruner.update(index, SHARE * losses, scores=losses)


def as_one_loss(pruner: InfoBatch, index: torch.Tensor, losses: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
    return pruner.update(index, SHARE * losses + (1 - SHARE) * losses[partner])


def flipped(pruner: InfoBatch, index: torch.Tensor, losses: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
    """What timm's Mixup does in batch mode: a sample's partner is its mirror image in the batch."""
    return as_in_the_recipe(pruner, index, losses, torch.arange(len(index) - 1, -1, -1, device=index.device))


def mean_of_epoch(step: Step, seed: int, device: torch.device) -> float:
    """The mean over the data set of the losses of a pruned epoch; 1.0 without pruning."""
    values = torch.cat([torch.full((SIZE // 2,), 0.25), torch.full((SIZE // 2,), 1.75)]).to(device)
    pruner = InfoBatch(SIZE, 10, prune_ratio=0.75, delta=1.0, seed=seed, device=device)
    record(pruner, torch.arange(SIZE), values)
    pruner.set_epoch(1)
    dice, total = torch.Generator().manual_seed(seed), 0.0
    for batch in pruner.sampler.batches(BATCH):
        index = torch.tensor(batch, device=device)
        partner = torch.randperm(len(batch), generator=dice).to(device)
        total += step(pruner, index, values[index], partner).item() * len(batch)
    return total / SIZE


@pytest.mark.parametrize("step", [as_in_the_recipe, flipped])
def test_mixed_samples_that_carry_their_own_weights_are_unbiased(device: torch.device, step: Step) -> None:
    means = [mean_of_epoch(step, seed, device) for seed in range(SEEDS)]
    assert abs(mean(means) - 1.0) < 3 * stdev(means) / math.sqrt(SEEDS)
    assert stdev(means) < 0.05


def test_one_weight_for_a_mixed_loss_is_biased(device: torch.device) -> None:
    means = [mean_of_epoch(as_one_loss, seed, device) for seed in range(SEEDS)]
    assert mean(means) > 1.0 + 10 * stdev(means) / math.sqrt(SEEDS), "so the test above can tell"


def test_scores_of_mixed_samples_are_their_own_losses(device: torch.device) -> None:
    pruner = InfoBatch(8, 10, device=device)
    losses = torch.arange(8.0, device=device)
    as_in_the_recipe(pruner, torch.arange(8), losses, torch.arange(7, -1, -1))
    assert pruner.scores().tolist() == losses.tolist()


def test_a_loss_that_a_kernel_hands_out_as_a_mean_is_exact_for_each_weight_of_its_own(device: torch.device) -> None:
    pruner = InfoBatch(SIZE, 10, prune_ratio=0.75, delta=1.0, device=device)
    values = torch.rand(SIZE, generator=torch.Generator().manual_seed(1)).to(device)
    record(pruner, torch.arange(SIZE), values)
    pruner.set_epoch(1)
    for batch in pruner.sampler.batches(BATCH):
        index = torch.tensor(batch, device=device)
        weights, losses = pruner.weights(index), torch.empty(len(batch), device=device)
        for weight in weights.unique():
            same = weights == weight
            losses[same] = values[index[same]].mean()
        exact = (weights * values[index]).mean()
        torch.testing.assert_close(pruner.update(index, losses), exact)
