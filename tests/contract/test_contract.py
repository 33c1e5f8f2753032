"""The contract, sentence by sentence: what is kept, and what it weighs. ``update`` and epochs have files of their own."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from infobatch_fast import InfoBatch, MeanThreshold, NoPruning, QuantileTiers, RandomPruning
from infobatch_fast.policy import Policy
from support.runs import ARBITRARY, kept_set, record, record_all

pytestmark = ARBITRARY

ALL_SIZES = (1, 2, 7, 10, 33, 1000, 4097, 100_003)


def planned(device: torch.device, scores: torch.Tensor, policy: Policy | None = None, seed: int = 0) -> InfoBatch:
    """A pruner in epoch 1, whose scores are ``scores``; NaN = unseen."""
    pruner = InfoBatch(len(scores), 10, delta=1.0, policy=policy, seed=seed, device=device)
    seen = (~scores.isnan()).nonzero().flatten()
    record(pruner, seen, scores[seen])
    pruner.set_epoch(1)
    return pruner


def exact_mean(scores: torch.Tensor) -> Fraction:
    return sum(map(Fraction, scores.double().tolist()), Fraction(0)) / len(scores)


def random_scores(size: int, seed: int) -> torch.Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(seed))


# ---- unseen samples ----


def test_unseen_samples_are_never_pruned_and_weigh_one(device: torch.device) -> None:
    scores = random_scores(1000, seed=1)
    scores[::2] = math.nan
    pruner = planned(device, scores, MeanThreshold(0.9))
    unseen = torch.arange(0, 1000, 2)
    assert pruner.is_kept(unseen).all()
    assert (pruner.weights(unseen) == 1).all()
    assert pruner.stats.kept < 1000


def test_unseen_samples_are_no_part_of_the_threshold(device: torch.device) -> None:
    scores = torch.full((1000,), math.nan)
    scores[::100] = torch.arange(1.0, 11.0)
    stats = planned(device, scores).stats
    assert stats.thresholds == (5.5,)
    assert (stats.seen, stats.tier_sizes) == (10, (995, 5))


def test_there_is_no_magic_initial_score(device: torch.device) -> None:
    pruner = InfoBatch(1000, 10, device=device)
    assert pruner.scores().isnan().all()
    assert pruner.stats.pruned
    assert (pruner.stats.seen, pruner.stats.kept, len(pruner.sampler)) == (0, 1000, 1000)


# ---- scores and the default threshold ----

BELOW_ONE = random_scores(999, seed=2).tolist()


@pytest.mark.parametrize(
    "scores",
    [
        pytest.param([1e-12 * x for x in BELOW_ONE], id="around 1e-12"),
        pytest.param([1e30 * x for x in BELOW_ONE], id="around 1e30"),
        pytest.param([1e-41 * x for x in BELOW_ONE], id="subnormal"),
        pytest.param([3e38, *BELOW_ONE], id="one of 3e38 among ones below 1"),
        pytest.param([3.4e38] * 500 + [3.3e38] * 500, id="a sum above the largest float32"),
        pytest.param([-3.4e38, *BELOW_ONE, 3.4e38], id="what cancels"),
        pytest.param([-x for x in BELOW_ONE], id="negative"),
        pytest.param([x - 0.5 for x in BELOW_ONE], id="either sign"),
        pytest.param([10.0 ** (-40 + k % 78) for k in range(999)], id="all magnitudes"),
        pytest.param([0.0, -0.0, 0.0], id="zeros"),
        pytest.param([16777216.0, 1.0, 1.0, 1.0], id="beyond the precision of float32"),
    ],
)
def test_any_finite_magnitude_and_either_sign_gives_the_right_threshold(device: torch.device, scores: list[float]) -> None:
    table = torch.tensor(scores)
    mean = exact_mean(table)
    stats = planned(device, table).stats
    assert stats.tier_sizes[1] == sum(Fraction(x) < mean for x in table.double().tolist())
    threshold = np.float32(stats.thresholds[0])
    assert Fraction(float(np.nextafter(threshold, np.float32(-np.inf)))) < mean <= Fraction(float(threshold))


def test_the_default_threshold_is_the_mean_below_it_tier_one_else_tier_zero(device: torch.device) -> None:
    scores = torch.tensor([1.0, 2.0, 3.0, 6.0, 3.0, 0.0, 6.0, 3.0])
    pruner = planned(device, scores, MeanThreshold(0.75))
    assert pruner.stats.thresholds == (3.0,)
    assert pruner.weights(torch.arange(8)).tolist() == [4, 4, 1, 1, 1, 4, 1, 1]
    assert pruner.is_kept([2, 3, 4, 6, 7]).all()


@pytest.mark.parametrize("size", ALL_SIZES)
def test_when_all_seen_scores_are_equal_nothing_is_below_the_mean_at_any_n(device: torch.device, size: int) -> None:
    for value in (0.1, 1e-7, -0.7, 3e38, 1e-45, 0.0):
        stats = planned(device, torch.full((size,), value), MeanThreshold(0.9)).stats
        assert (stats.kept, stats.tier_sizes) == (size, (size, 0)), value
        assert stats.thresholds[0] == np.float32(value)


# ---- quantile tiers ----


@pytest.mark.parametrize("quantiles", [(0.5,), (0.2, 0.85), (0.001, 1 / 3, 0.999)], ids=str)
@pytest.mark.parametrize("size", ALL_SIZES)
def test_quantile_tiers_are_exact_order_statistics_of_the_seen_scores(
    device: torch.device, size: int, quantiles: tuple[float, ...]
) -> None:
    draws = random_scores(size, seed=size).double()
    for scores in (
        draws.float(),
        (draws * 5).floor().float(),  # ties
        (10 ** (draws * 70 - 40) * (draws * 1e6 % 2 - 1)).float(),  # all magnitudes, both signs
    ):
        stats = planned(device, scores, QuantileTiers(quantiles, (0.5,) * len(quantiles))).stats
        ascending = scores.sort().values
        expected = [ascending[size * math.ceil(q * 2**32) // 2**32].item() for q in quantiles]
        assert list(stats.thresholds) == expected
        sizes = [int((scores < level).sum()) for level in expected]
        assert list(stats.tier_sizes) == [high - low for low, high in zip([*sizes[::-1], 0], [size, *sizes[::-1]], strict=True)]


def test_quantiles_leave_out_unseen_samples(device: torch.device) -> None:
    scores = torch.full((1000,), math.nan)
    scores[::100] = torch.arange(10.0)
    stats = planned(device, scores, QuantileTiers((0.5,), (0.5,))).stats
    assert (stats.thresholds, stats.seen, stats.tier_sizes) == ((5.0,), 10, (995, 5))


def test_the_default_quantile_recipe_prunes_20_percent_at_075_65_percent_at_05_and_the_top_never(device: torch.device) -> None:
    size = 100_000
    scores = torch.randperm(size, generator=torch.Generator().manual_seed(3)).float()
    pruner = planned(device, scores, QuantileTiers())
    weights = pruner.weights(torch.arange(size)).cpu()
    assert (weights[scores < 20_000] == 4).all()
    assert (weights[(scores >= 20_000) & (scores < 85_000)] == 2).all()
    assert (weights[scores >= 85_000] == 1).all()
    kept_of_tier = [15_000, 32_500, 5_000]
    for kept, expected, spread in zip(pruner.stats.tier_kept, kept_of_tier, (0.0, 127.5, 61.2), strict=True):
        assert abs(kept - expected) <= 5 * spread  # false alarms: 6e-7 a tier


def test_there_are_up_to_four_tiers(device: torch.device) -> None:
    policy = QuantileTiers((0.25, 0.5, 0.75), (0.75, 0.5, 0.2))
    pruner = planned(device, torch.arange(8000.0), policy)
    assert pruner.stats.tier_sizes == (2000,) * 4
    assert pruner.stats.weights == (1.0, np.float32(65536 / 52429), 2.0, 4.0)
    assert pruner.weights([7999, 5999, 3999, 1999]).tolist() == list(pruner.stats.weights)


# ---- keep ----


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.3, 1 / 3, 0.5, 0.9, 0.99999, 1 - 2**-53])
def test_the_weight_is_the_reciprocal_of_the_quantised_probability(device: torch.device, ratio: float) -> None:
    pruner = planned(device, torch.tensor([0.0, 1.0]), MeanThreshold(ratio))
    cutoff = max(1, math.floor((1 - ratio) * 65536 + 0.5))
    assert pruner.weights([0, 1]).tolist() == [np.float32(65536 / cutoff), 1.0]


@pytest.mark.parametrize("policy", [MeanThreshold(0.0), QuantileTiers((0.5,), (0.0,)), RandomPruning(0.0), NoPruning()], ids=str)
def test_r_of_zero_keeps_all(device: torch.device, policy: Policy) -> None:
    pruner = planned(device, random_scores(5000, seed=4), policy)
    assert pruner.stats.kept == 5000
    assert (pruner.weights(torch.arange(5000)) == 1).all()


def test_r_just_below_one_keeps_one_sample_in_65536(device: torch.device) -> None:
    size = 1 << 20
    scores = torch.zeros(size)
    scores[0] = 1.0
    kept = planned(device, scores, MeanThreshold(1 - 2**-53)).stats.tier_kept[1]
    assert 0 < kept < 44  # 16 expected; false alarms below 1e-7 on either side


def test_random_pruning_prunes_whatever_the_score_is_but_never_unseen_samples(device: torch.device) -> None:
    scores = random_scores(10_000, seed=5)
    scores[:5000] = math.nan
    stats = planned(device, scores, RandomPruning(0.5)).stats
    assert (stats.seen, stats.tier_sizes, stats.tier_kept[0]) == (5000, (5000, 5000), 5000)
    assert abs(stats.tier_kept[1] - 2500) < 5 * 35.4  # false alarms: 6e-7


def test_a_decision_depends_on_seed_epoch_sample_score_and_threshold_alone(device: torch.device) -> None:
    scores = random_scores(5000, seed=6)
    expected = kept_set(planned(device, scores))
    pruner = InfoBatch(5000, 10, delta=1.0, device=device)
    for part in torch.randperm(5000, generator=torch.Generator().manual_seed(7)).split(333):  # another history
        record(pruner, part, scores[part])
        pruner.is_kept(part)
    pruner.set_epoch(1)
    assert kept_set(pruner) == expected
    assert kept_set(planned(device, scores, seed=1)) != expected
    pruner.set_epoch(2)
    assert kept_set(pruner) != expected


# ---- schedule ----


@pytest.mark.parametrize(
    ("num_epochs", "delta", "warmup", "pruned"),
    [
        (10, 0.875, 0, range(0, 8)),  # 8.75
        (8, 0.875, 0, range(0, 7)),
        (7, 0.5, 2, range(2, 3)),  # 3.5
        (3, 1.0, 1, range(1, 3)),
        (5, 0.0, 0, range(0, 0)),
        (1, 0.875, 0, range(0, 0)),
        (4, 0.5, 3, range(0, 0)),  # warm-up to beyond the end of pruning
        (10, 0.3, 0, range(0, 3)),  # 0.3 is below 3/10, but the product rounds to 3
    ],
)
def test_epochs_from_warmup_to_floor_of_delta_times_num_epochs_are_pruned_all_others_are_full_with_weight_one(
    device: torch.device, num_epochs: int, delta: float, warmup: int, pruned: range
) -> None:
    pruner = InfoBatch(500, num_epochs, delta=delta, warmup_epochs=warmup, device=device)
    for epoch in range(num_epochs + 3):
        pruner.set_epoch(epoch)
        record_all(pruner)
        assert pruner.stats.pruned == (epoch in pruned)
        if epoch in pruned and epoch > 0:
            assert pruner.stats.kept == len(pruner.sampler) < 500
        else:
            assert pruner.stats.kept == len(pruner.sampler) == 500
            assert (pruner.weights(torch.arange(500)) == 1).all()
