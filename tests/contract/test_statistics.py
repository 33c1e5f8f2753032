"""Draws are as random as they claim, and weights make up for what is pruned.

Both devices draw the same bits (test_algorithm), so one of them is examined. Seeds are fixed, so a test passes always or never.
``ALARM`` is the chance that it would have failed for a fault-free generator under a seed picked anew: 1e-6 a test, split evenly
among the comparisons that the test makes.
"""

import math
from functools import cache
from statistics import NormalDist

import pytest
import torch

from infobatch_fast import InfoBatch, QuantileTiers, RandomPruning
from infobatch_fast.engine import ops
from support.oracle import float32
from support.runs import ARBITRARY

pytestmark = ARBITRARY

ALARM = 1e-6


def limit(comparisons: int = 1) -> float:
    """How many standard deviations one of some comparisons may be off, to either side."""
    return NormalDist().inv_cdf(1 - ALARM / comparisons / 2)


def chi_square_deviation(counts: torch.Tensor, expected: float) -> torch.Tensor:
    """Deviation, in standard deviations, of the chi-square of counts [..., cells] of equal expectation (Wilson and Hilferty)."""
    freedom = counts.shape[-1] - 1
    ratio = ((counts - expected) ** 2).sum(-1) / expected / freedom
    return (ratio ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))


def correlation_deviation(one: torch.Tensor, other: torch.Tensor) -> float:
    """Correlation of two sequences of bits, in standard deviations."""
    return float(torch.corrcoef(torch.stack([one.double(), other.double()]))[0, 1]) * math.sqrt(len(one))


def all_seen(n: int, seed: int = 0, **kwargs: object) -> InfoBatch:
    pruner = InfoBatch(n, 2**32, delta=1.0, seed=seed, **kwargs)
    generator = torch.Generator().manual_seed(n)
    pruner.update(torch.arange(n), torch.randn(n, generator=generator).exp())
    return pruner


def kept_bits(pruner: InfoBatch, epoch: int) -> torch.Tensor:
    pruner.set_epoch(epoch)
    return pruner.is_kept(torch.arange(pruner.num_samples))


@cache
def permutations(n: int, count: int) -> torch.Tensor:
    """int64 [count, n]: shuffles of as many epochs."""
    pruner = InfoBatch(n, 1, seed=n)  # nothing is seen, so all is kept
    deal = ops.deal_permutation(n, n)
    slot = torch.tensor([deal.apply(sample) for sample in range(n)])
    orders = []
    for epoch in range(count):
        pruner.set_epoch(epoch)
        orders.append(slot[pruner.sampler.indices()])
    return torch.stack(orders)


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.9, 0.999, 1 - 2**-53])
def test_keep_counts_are_binomial(ratio: float) -> None:
    n = 1_000_000
    pruner = all_seen(n, policy=RandomPruning(ratio))
    probability = ops.cutoff_of(1 - ratio) / 65536
    for epoch in (1, 2, 3):
        kept = int(kept_bits(pruner, epoch).sum())
        assert abs(kept - n * probability) < limit(3) * math.sqrt(n * probability * (1 - probability))


def test_each_sample_is_kept_equally_often() -> None:
    n, epochs, probability = 2000, 1500, 0.25
    pruner = all_seen(n, policy=RandomPruning(0.75))
    counts = sum(kept_bits(pruner, epoch).double() for epoch in range(1, epochs + 1))
    squares = (((counts - epochs * probability) ** 2) / (epochs * probability * (1 - probability))).sum()
    assert abs(float(squares) - n) < limit() * math.sqrt(2 * n)


def test_keep_bits_of_neighbours_are_independent() -> None:
    n = 1 << 20
    for seed, shuffle in ((0, False), (1, False), (2**64 - 1, True)):  # without shuffling neighbours share a Philox block
        bits = kept_bits(all_seen(n, seed, policy=RandomPruning(0.5), shuffle=shuffle), 1)
        for lag in (1, 2, 3, 4, 5, 6, 7, 8, 64, 512):
            assert abs(correlation_deviation(bits[lag:], bits[:-lag])) < limit(30)


def test_keep_bits_of_epochs_and_of_seeds_are_independent() -> None:
    n = 1 << 19
    one, other = (all_seen(n, seed, policy=RandomPruning(0.5)) for seed in (7, 8))
    epochs = [1, 2, 3, 4, 256, 2**16, 2**32 - 1]
    bits = [kept_bits(one, epoch) for epoch in epochs] + [kept_bits(other, 1)]
    deviations = torch.corrcoef(torch.stack(bits).double()).triu(1) * math.sqrt(n)
    assert float(deviations.abs().max()) < limit(28)


def test_keep_bits_and_scores_are_independent() -> None:
    pruner = all_seen(1 << 19, policy=RandomPruning(0.5))
    for epoch in (1, 2):
        bits = kept_bits(pruner, epoch)
        assert abs(correlation_deviation(bits, pruner.scores() > 1.0)) < limit(2)


def test_the_sum_of_weights_is_the_number_of_samples_on_average() -> None:
    n, epochs = 2000, 500
    for policy in (None, QuantileTiers(), QuantileTiers((0.1, 0.5, 0.9), (0.9, 0.7, 1 / 3)), RandomPruning(0.6)):
        pruner = all_seen(n, policy=policy)
        sums = []
        for epoch in range(1, epochs + 1):
            pruner.set_epoch(epoch)
            sums.append(pruner.weights(pruner.sampler.indices()).double().sum())
        variance = float((pruner.weights(torch.arange(n)).double() - 1).sum())  # p (1/p)^2 - 1 = 1/p - 1 a sample
        assert abs(float(torch.stack(sums).mean()) - n) < limit(4) * math.sqrt(variance / epochs)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "count"), [(2, 5000), (3, 5000), (5, 10000)])
def test_all_permutations_of_few_items_are_equally_likely(n: int, count: int) -> None:
    place = n ** torch.arange(n)
    _, counts = (permutations(n, count) * place).sum(1).unique(return_counts=True)
    assert len(counts) == math.factorial(n)
    assert abs(float(chi_square_deviation(counts, count / len(counts)))) < limit()


@pytest.mark.slow
@pytest.mark.parametrize(("n", "count"), [(5, 10000), (7, 10000), (16, 10000), (100, 4000), (1000, 5000), (1025, 5000)])
def test_each_value_is_equally_likely_at_each_position(n: int, count: int) -> None:
    table = torch.zeros(n * n).index_add_(0, (permutations(n, count) + n * torch.arange(n)).flatten(), torch.ones(n * count))
    expected = count / n
    # A sum of permutation matrices has (n - 1)^2 degrees of freedom. Scaled so, its chi-square has mean and variance of one.
    statistic = float(((table.double() - expected) ** 2).sum()) / expected * (n - 1) / n
    freedom = (n - 1) ** 2
    assert abs(statistic - freedom) < limit() * math.sqrt(2 * freedom)


@pytest.mark.parametrize(("n", "count"), [(5, 10000), (7, 10000), (16, 10000)])
def test_pairs_of_values_are_equally_likely_at_each_pair_of_positions(n: int, count: int) -> None:
    orders = permutations(n, count)
    deviations = []
    for first in range(n):
        for second in range(first + 1, n):
            counts = torch.bincount(orders[:, first] * n + orders[:, second], minlength=n * n).view(n, n)
            assert int(counts.diagonal().sum()) == 0
            cells = counts[~torch.eye(n, dtype=torch.bool)].double()
            deviations.append(float(chi_square_deviation(cells, count / len(cells))))
    assert max(map(abs, deviations)) < limit(len(deviations))


@pytest.mark.parametrize(("n", "count"), [(100, 4000), (1000, 5000), (1025, 5000)])
def test_differences_of_the_values_at_two_positions_are_equally_likely(n: int, count: int) -> None:
    orders = permutations(n, count)
    pairs = [(0, 1), (0, n - 1), (1, 2), (3, 35), (n // 2, n // 2 + 1), (31, 32), (0, 32), (5, n // 3)]
    for first, second in pairs:
        difference = (orders[:, second] - orders[:, first]) % n
        counts = torch.bincount(difference, minlength=n)[1:].double()
        assert abs(float(chi_square_deviation(counts, count / (n - 1)))) < limit(len(pairs))


def test_orders_of_successive_epochs_are_independent() -> None:
    n, count = 64, 4000
    orders = permutations(n, count)
    places = orders.argsort(1)
    moved = (places[1:] - places[:-1]) % n  # of each sample from one epoch to the next
    for sample in (0, 1, 31, 63):
        counts = torch.bincount(moved[:, sample], minlength=n).double()
        assert abs(float(chi_square_deviation(counts, (count - 1) / n))) < limit(4)


def test_deals_of_seeds_are_uniform() -> None:
    n, count = 16, 4000
    deals = [ops.deal_permutation(n, seed) for seed in range(count)]
    for sample in range(n):
        counts = torch.bincount(torch.tensor([deal.apply(sample) for deal in deals]), minlength=n).double()
        assert abs(float(chi_square_deviation(counts, count / n))) < limit(n)


def test_the_weighted_gradient_is_the_full_gradient_on_average() -> None:
    """And its variance is larger by r / (1 - r) * sum |g|^2 over the samples below the mean, g being their gradients."""
    n, features, epochs, ratio = 400, 6, 2000, 0.75
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(n, features, dtype=torch.float64, generator=generator)
    targets = inputs.sum(1) + torch.randn(n, dtype=torch.float64, generator=generator)
    model = torch.nn.Linear(features, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(model.weight, 0.8)
    losses = (model(inputs)[:, 0] - targets) ** 2
    each = (2 * (model(inputs)[:, 0] - targets).detach()[:, None] * inputs).double()

    pruner = InfoBatch(n, epochs + 1, delta=1.0, prune_ratio=ratio, seed=1)
    pruner.update(torch.arange(n), losses)
    low = losses.detach().to(torch.float32).double() < losses.detach().to(torch.float32).double().mean()
    gradients = []
    for epoch in range(1, epochs + 1):
        pruner.set_epoch(epoch)
        index = pruner.sampler.indices()
        model.zero_grad()
        pruner.update(index, (model(inputs[index])[:, 0] - targets[index]) ** 2, reduction="sum").backward()
        gradients.append(model.weight.grad[0].clone())
    assert pruner.stats.tier_sizes[1] == int(low.sum())

    errors = torch.stack(gradients) - each.sum(0)
    odds = ratio / (1 - ratio)
    deviation = errors.mean(0) / (odds * (each[low] ** 2).sum(0) / epochs).sqrt()
    assert float(deviation.abs().max()) < limit(2 * features)
    squares = (errors**2).sum(1)
    added = odds * float((each[low] ** 2).sum())
    assert abs(float(squares.mean()) - added) < limit(2) * float(squares.std()) / math.sqrt(epochs)
    assert float(squares.std()) / math.sqrt(epochs) < 0.03 * added  # the comparison above would see a few percent
    assert float32(1 / (1 - ratio)) == pruner.stats.weights[1]
