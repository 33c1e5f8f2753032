"""What the weights are for, on a real model: the weighted gradient of an epoch is the full one in expectation, with known variance.

The model is a small network part-way through its training on scikit-learn's digits. Its per-sample gradients are computed once;
that of an epoch is their weighted sum, which one test verifies by ``backward``. Seeds are fixed, so a test passes always or never.
``ALARM`` is the chance that it would have failed for faultless draws under seeds picked anew: 1e-6 a test, split evenly among the
comparisons that the test makes. Sums of hundreds of draws are taken as normal; the fourth moment of a draw is accounted for.
"""

import math
from functools import cache
from statistics import NormalDist

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from infobatch_fast import ImportanceSampling, InfoBatch, MeanThreshold, Policy, QuantileTiers, RandomPruning
from infobatch_fast.engine import ops
from support.oracle_importance import importance

pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
from sklearn.datasets import load_digits

ALARM = 1e-6
SEEDS, EPOCHS = 20, 100  # one draw of the gradient for each epoch of each seed
DIRECTIONS = 32
POLICIES = [
    MeanThreshold(0.5),
    MeanThreshold(0.9),
    QuantileTiers(),
    QuantileTiers((0.1, 0.5, 0.9), (0.9, 0.7, 1 / 3)),
    RandomPruning(0.3),
    ImportanceSampling(0.4),
    ImportanceSampling(0.6, "score", 0.02),
]


def limit(comparisons: int) -> float:
    """How many standard deviations one of some comparisons may be off, to either side."""
    return NormalDist().inv_cdf(1 - ALARM / comparisons / 2)


@cache
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A network at some 90 % accuracy with its data: both well and badly learned samples are left."""
    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.tensor(digits.data[:700] / 16), torch.tensor(digits.target[:700])
    model = nn.Sequential(nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10)).double()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, x, y


@cache
def per_sample() -> tuple[Tensor, Tensor]:
    """Losses [N] and gradients [N, parameters] of all samples."""
    model, x, y = trained()
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

    gradients = vmap(grad(loss), (None, 0, 0))(parameters, x, y)
    losses = F.cross_entropy(model(x), y, reduction="none").detach()
    return losses, torch.cat([gradient.flatten(1) for gradient in gradients.values()], 1)


def make_pruner(policy: Policy, seed: int) -> InfoBatch:
    losses, _ = per_sample()
    pruner = InfoBatch(len(losses), EPOCHS + 1, delta=1.0, seed=seed, policy=policy)
    pruner.update(torch.arange(len(losses)), losses)
    return pruner


@cache
def draws(policy: Policy) -> tuple[Tensor, Tensor]:
    """Weights [SEEDS * EPOCHS, N], 0 where a sample was skipped; and of each sample the probability that it is kept."""
    n = len(per_sample()[0])
    weights = torch.zeros(SEEDS * EPOCHS, n, dtype=torch.float64)
    rows = iter(weights)
    for seed in range(SEEDS):
        pruner = make_pruner(policy, seed)
        for epoch in range(1, EPOCHS + 1):
            pruner.set_epoch(epoch)
            kept = pruner.sampler.indices()
            next(rows)[kept] = pruner.weights(kept).double()
    return weights, expected_keep_probability(policy)


def expected_keep_probability(policy: Policy) -> Tensor:
    """From the definition of the policies, by a sort: no part of the package but the rounding of a probability."""
    losses, _ = per_sample()
    scores = losses.float()
    if isinstance(policy, ImportanceSampling):
        ends, cutoffs = importance(scores.tolist(), policy.by, policy.saved_fraction, policy.min_keep)
        tiers = (scores[:, None] < torch.tensor(ends)).sum(1)
        return torch.tensor(cutoffs, dtype=torch.float64)[tiers] / 65536
    if isinstance(policy, RandomPruning):
        thresholds, ratios = [math.inf], (policy.prune_ratio,)
    elif isinstance(policy, MeanThreshold):
        thresholds, ratios = [float(scores.double().mean())], (policy.prune_ratio,)
    else:
        assert isinstance(policy, QuantileTiers)
        ordered = scores.sort().values
        thresholds, ratios = [float(ordered[math.floor(q * len(scores))]) for q in policy.quantiles], policy.prune_ratios
    keep = torch.ones(len(scores), dtype=torch.float64)
    for threshold, ratio in reversed(list(zip(thresholds, ratios, strict=True))):
        keep[scores < threshold] = ops.cutoff_of(1 - ratio) / 65536
    return keep


def mean_deviations(weights: Tensor, keep: Tensor) -> Tensor:
    """By parameter: the mean of the weighted gradients less the full gradient, in standard deviations of that mean."""
    _, gradients = per_sample()
    variance = ((1 - keep) / keep) @ gradients**2
    seen = variance > 1e-12 * variance.max()  # some pixels are always black, and nothing is learned from them
    error = (weights @ gradients).mean(0) - gradients.sum(0)
    return (error / (variance / len(weights)).sqrt())[seen]


def variance_deviations(weights: Tensor, keep: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """By random direction: measured variance over ``added`` variance [N] * (gradient)^2, and by how many deviations it is off.

    A sum of independent draws has kurtosis 3 + sum of the draws' excess * their variance^2 / (sum of variances)^2, so that the
    mean square of M such sums has the relative variance (2 + that excess) / M: a chi-square interval, corrected.
    """
    _, gradients = per_sample()
    directions = torch.randn(gradients.shape[1], DIRECTIONS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    projected = gradients @ directions  # [N, directions]
    variances = added[:, None] * projected**2
    expected = variances.sum(0)
    measured = ((weights @ projected - projected.sum(0)) ** 2).mean(0)
    certain = keep == 1
    excess = torch.where(certain, 0.0, (1 - 6 * keep * (1 - keep)) / torch.where(certain, 1.0, keep * (1 - keep)))
    kurtosis = (excess[:, None] * variances**2).sum(0) / expected**2
    return measured / expected, (measured / expected - 1) / ((2 + kurtosis) / len(weights)).sqrt()


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_the_weighted_gradient_of_an_epoch_is_the_full_one_in_expectation(policy: Policy) -> None:
    deviations = mean_deviations(*draws(policy))
    assert len(deviations) > 500
    assert float(deviations.abs().max()) < limit(len(deviations))


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_the_added_variance_is_one_over_p_minus_one_times_the_squared_gradients(policy: Policy) -> None:
    weights, keep = draws(policy)
    _, deviations = variance_deviations(weights, keep, (1 - keep) / keep)
    assert float(deviations.abs().max()) < limit(DIRECTIONS)


def test_the_added_variance_of_the_mean_threshold_is_r_over_one_minus_r_times_the_sum_below_the_mean() -> None:
    losses, _ = per_sample()
    for ratio in (0.5, 0.9):
        weights, keep = draws(MeanThreshold(ratio))
        below = (losses < losses.mean()).double()
        ratios, deviations = variance_deviations(weights, keep, ratio / (1 - ratio) * below)
        assert float(deviations.abs().max()) < limit(2 * DIRECTIONS)
        assert abs(float(ratios.mean()) - 1) < 0.05


def test_weights_of_one_would_be_found_biased_and_another_variance_would_be_found_wrong() -> None:
    weights, keep = draws(MeanThreshold(0.5))
    assert float(mean_deviations((weights > 0).double(), keep).abs().max()) > limit(500) * 3
    _, deviations = variance_deviations(weights, keep, 0.75 * (1 - keep) / keep)
    assert float(deviations.abs().min()) > limit(DIRECTIONS)


@pytest.mark.parametrize("policy", POLICIES[:3], ids=str)
def test_backward_over_the_batches_of_an_epoch_gives_that_weighted_gradient(policy: Policy) -> None:
    model, x, y = trained()
    _, gradients = per_sample()
    weights, _ = draws(policy)
    pruner = make_pruner(policy, seed=0)
    pruner.set_epoch(1)
    model.zero_grad()
    for ids in pruner.sampler.batches(64):
        index = torch.tensor(ids)
        losses = F.cross_entropy(model(x[index]), y[index], reduction="none")
        (pruner.update(index, losses) * len(ids)).backward()  # the batch's mean, back to its sum
    found = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    torch.testing.assert_close(found, weights[0] @ gradients, rtol=1e-6, atol=1e-9)
