"""``stats.added_noise`` compares the variance that a plan adds with that of uniform pruning of as many samples."""

from typing import Any

import pytest
import torch

from infobatch_fast import ImportanceSampling, InfoBatch, MeanThreshold, NoPruning, QuantileTiers, RandomPruning
from support.refusals import raises
from support.runs import ARBITRARY, record, record_all

N = 30_000


def planned(policy: Any, device: torch.device, scores: torch.Tensor, **kwargs: Any) -> InfoBatch:
    pruner = InfoBatch(len(scores), 9, policy=policy, delta=1.0, device=device, **kwargs)
    record_all(pruner, scores)
    pruner.set_epoch(1)
    return pruner


def exact(pruner: InfoBatch, norms: torch.Tensor, free: torch.Tensor) -> float:
    """Sample by sample, in doubles."""
    weights = pruner.weights(torch.arange(len(norms))).cpu().double()[free]
    squares = norms[free] ** 2
    return float((squares * (weights - 1)).sum() / (squares.sum() * (1 / (1 / weights).mean() - 1)))


def lognormal(sigma: float) -> torch.Tensor:
    return (torch.randn(N, generator=torch.Generator().manual_seed(1)) * sigma).exp()


@pytest.mark.parametrize("protect", [None, range(0, N, 3)], ids=["", "protect"])
@pytest.mark.parametrize("sigma", [0.1, 1.5, 4.0])
@pytest.mark.parametrize(
    "policy", [MeanThreshold(), MeanThreshold(0.9), QuantileTiers(), ImportanceSampling(0.3), ImportanceSampling(0.6)], ids=str
)
def test_it_is_that_of_all_samples_one_by_one(device: torch.device, policy: Any, sigma: float, protect: Any) -> None:
    scores = lognormal(sigma)
    pruner = planned(policy, device, scores, protect=None if protect is None else list(protect))
    free = torch.ones(N, dtype=torch.bool)
    if protect is not None:
        free[list(protect)] = False
    expected = exact(pruner, -torch.expm1(-scores.double()), free)
    assert pruner.stats.added_noise == pytest.approx(expected, rel=0.005, abs=1e-4)  # bins are a sixteenth of an octave wide


def test_by_score_takes_the_score_itself(device: torch.device) -> None:
    scores = lognormal(1.0)
    pruner = planned(ImportanceSampling(0.5, by="score"), device, scores)
    assert pruner.stats.added_noise == pytest.approx(exact(pruner, scores.double(), torch.ones(N, dtype=torch.bool)), rel=0.02)


def test_uniform_pruning_has_1_and_full_epochs_have_0(device: torch.device) -> None:
    scores = lognormal(1.0)
    assert planned(RandomPruning(0.3), device, scores).stats.added_noise == pytest.approx(1.0)
    for policy in (NoPruning(), MeanThreshold(0.0), ImportanceSampling(0.0)):
        assert planned(policy, device, scores).stats.added_noise == 0.0
    assert InfoBatch(10, 3, device=device).stats.added_noise == 0.0
    assert planned(MeanThreshold(), device, torch.arange(-50.0, 0.0)).stats.added_noise == 0.0  # no norm is known


@ARBITRARY
def test_unseen_samples_and_thresholds_anywhere_do_no_harm(device: torch.device) -> None:
    normal = torch.randn(20_000, generator=torch.Generator().manual_seed(2)) + 0.3
    for scores in ([1e-40, 3.0], [-2.0, -1.0, 5.0], [2.0**-126, 1e38, 3e38], [0.0, -0.0, 1.0], normal.tolist()):
        for policy in (MeanThreshold(), QuantileTiers()):
            pruner = InfoBatch(len(scores) + 7, 9, policy=policy, delta=1.0, device=device)
            record(pruner, list(range(len(scores))), scores)
            pruner.set_epoch(1)
            free = torch.arange(len(scores) + 7) < len(scores)
            if float(pruner.weights(free.nonzero().flatten()).max()) == 1.0:
                assert pruner.stats.added_noise == 0.0
                continue
            norms = -torch.expm1(-torch.tensor([*scores, *[0.0] * 7]).double().clamp(min=0))
            assert pruner.stats.added_noise == pytest.approx(exact(pruner, norms, free), rel=0.01)


def test_at_an_epochs_end_the_plan_is_measured_by_the_scores_that_came_meanwhile(device: torch.device) -> None:
    scores = lognormal(1.0)
    pruner = planned(MeanThreshold(0.9), device, scores)
    newest = scores.flip(0)
    pruner.record(torch.arange(N), newest.to(device))
    expected = exact(pruner, -torch.expm1(-newest.double()), torch.ones(N, dtype=torch.bool))
    assert expected > 2  # as who is pruned has nothing to do with who should be
    assert pruner.stats.added_noise == pytest.approx(expected, rel=0.01)


def test_it_is_measured_once_a_plan(device: torch.device) -> None:
    pruner = planned(MeanThreshold(), device, lognormal(1.0))
    before = pruner.stats.added_noise
    pruner.record(torch.arange(N), lognormal(3.0).to(device))
    assert pruner.stats.added_noise == before
    pruner.set_epoch(2)
    assert pruner.stats.added_noise != before


def test_importance_sampling_adds_less_than_the_mean_threshold(device: torch.device) -> None:
    scores = lognormal(1.5)
    mean = planned(MeanThreshold(0.9), device, scores).stats
    assert planned(ImportanceSampling(mean.saved_fraction), device, scores).stats.added_noise < 0.85 * mean.added_noise


def test_a_policy_of_ones_own_with_another_meaning_of_by_is_refused() -> None:
    class Mine(MeanThreshold):
        by = "tier"  # type: ignore[assignment]

    with raises(ValueError, "policy.by must be one of 'gradient_norm', 'score', got 'tier'"):
        InfoBatch(10, 3, policy=Mine())
