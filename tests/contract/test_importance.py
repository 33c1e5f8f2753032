"""Importance sampling saves what it is told to save, by probabilities that follow the norm of a sample's gradient."""

import math
import random
import warnings
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from infobatch_fast import ImportanceSampling, InfoBatch, RandomPruning
from support.compare import SCORES, float32
from support.refusals import raises
from support.restarts import restored, run_of, saved
from support.runs import ARBITRARY, record, record_all, train

N = 20_000
FORMS = {  # of scores, each with its mean near 1
    "exponential": lambda dice: dice.expovariate(1),
    "lognormal": lambda dice: math.exp(dice.gauss(0, 1.5)),
    "wide": lambda dice: math.exp(dice.gauss(0, 3)),
    "symmetric": lambda dice: dice.gauss(2, 0.2),
    "a few values": lambda dice: dice.choice((0.01, 0.5, 0.5, 4.0)),
    "all equal": lambda dice: 0.7,
    "mostly zero": lambda dice: 0.0 if dice.random() < 0.9 else dice.random(),
    "heavy tail": lambda dice: dice.paretovariate(0.5),
}


def planned(scores: list[float], policy: ImportanceSampling, device: torch.device, **kwargs: Any) -> InfoBatch:
    pruner = InfoBatch(len(scores), 9, policy=policy, delta=1.0, device=device, **kwargs)
    record_all(pruner, scores)
    pruner.set_epoch(1)
    return pruner


def scores_of(form: str, n: int = N) -> list[float]:
    dice = random.Random(form)
    return [float32(FORMS[form](dice)) for _ in range(n)]


def probabilities(pruner: InfoBatch) -> list[float]:
    return [1 / weight for weight in pruner.weights(torch.arange(pruner.num_samples)).tolist()]


def best(norms: torch.Tensor, kept: float, min_keep: float) -> torch.Tensor:
    """min(1, max(min_keep, c * g)) with the mean ``kept``: what four tiers come near."""
    low, high = -100.0, 100.0  # of log2 c
    for _ in range(70):
        found = (norms * 2 ** ((low + high) / 2)).clamp(min_keep, 1)
        low, high = ((low + high) / 2, high) if found.mean() < kept else (low, (low + high) / 2)
    return found


def noise(norms: torch.Tensor, keep: torch.Tensor) -> float:
    return float((norms**2 * (1 / keep - 1)).sum())


@pytest.mark.parametrize("by", ["gradient_norm", "score"])
@pytest.mark.parametrize("form", FORMS)
def test_a_plan_skips_the_fraction_that_was_asked_for_whatever_the_scores_look_like(
    device: torch.device, form: str, by: Any
) -> None:
    for saved_fraction, min_keep in ((0.0, 0.1), (0.1, 0.1), (0.4, 0.1), (0.7, 0.02), (0.9, 0.1), (0.99, 1e-4)):
        pruner = planned(scores_of(form), ImportanceSampling(saved_fraction, by, min_keep), device)
        keep = probabilities(pruner)
        assert sum(keep) / N == pytest.approx(1 - saved_fraction, abs=2.1 / 65536)  # two cutoffs are rounded
        assert min(keep) >= min_keep - 1 / 65536
        # By Bernstein's inequality the false-alarm rate of a case is below 1e-6, as the spread is above 2 or 0.
        spread = math.sqrt(sum(p * (1 - p) for p in keep))
        assert abs(pruner.stats.kept - sum(keep)) <= 6 * spread + 6


@pytest.mark.parametrize("form", ["exponential", "lognormal", "wide", "symmetric", "heavy tail"])
def test_the_noise_is_near_the_least_that_any_probabilities_add(device: torch.device, form: str) -> None:
    scores = scores_of(form, 4000)
    values = torch.tensor(scores, dtype=torch.float64)
    for by, norms in (("gradient_norm", -torch.expm1(-values)), ("score", values)):
        for saved_fraction, min_keep in product((0.3, 0.5, 0.7), (0.1, None)):
            policy = ImportanceSampling(saved_fraction, by, min_keep)  # type: ignore[arg-type]
            keep = torch.tensor(probabilities(planned(scores, policy, device)), dtype=torch.float64)
            least = noise(norms, best(norms, 1 - saved_fraction, policy.min_keep))  # type: ignore[arg-type]
            uniform = noise(norms, torch.full_like(norms, 1 - saved_fraction))
            assert least * 0.999 <= noise(norms, keep) < min(1.25 * least + 0.002 * uniform, 1.001 * uniform)


def test_probabilities_rise_with_the_score(device: torch.device) -> None:
    scores = scores_of("lognormal", 3000)
    keep = probabilities(planned(scores, ImportanceSampling(0.5), device))
    ordered = [p for _, p in sorted(zip(scores, keep, strict=True))]
    assert ordered == sorted(ordered)
    assert len(set(ordered)) in (3, 4)


def test_unseen_and_protected_samples_weigh_1_and_are_not_in_the_fraction(device: torch.device) -> None:
    scores = scores_of("exponential", 9000)
    protected, unseen = range(0, 9000, 3), range(1, 9000, 3)
    pruner = InfoBatch(9000, 9, policy=ImportanceSampling(0.6), delta=1.0, device=device, protect=list(protected))
    seen = [sample for sample in range(9000) if sample % 3 != 1]
    record(pruner, seen, [scores[sample] for sample in seen])
    pruner.set_epoch(1)
    keep = probabilities(pruner)
    assert [keep[sample] for sample in (*protected, *unseen)] == [1.0] * 6000
    assert sum(keep[2::3]) / 3000 == pytest.approx(0.4, abs=2.1 / 65536)
    assert pruner.stats.seen == 6000


def test_scores_at_or_below_zero_have_the_smallest_probability(device: torch.device) -> None:
    scores = [0.0, -0.0, 2.0**-149, 2.0**-127] * 50 + scores_of("exponential", 800)
    keep = probabilities(planned(scores, ImportanceSampling(0.4, min_keep=0.125), device))
    assert keep[:200] == [0.125] * 200
    keep = probabilities(planned(scores, ImportanceSampling(0.1, min_keep=0.125), device))  # only 100 may be skipped
    assert keep[:200] == pytest.approx([0.5] * 200, abs=1e-4)
    assert keep[200:] == [1.0] * 800


def test_negative_scores_count_as_zero_and_are_told_once(device: torch.device) -> None:
    scores = [-1.0, -2.0, -(2.0**-100)] * 50 + scores_of("exponential", 850)
    pruner = InfoBatch(1000, 9, policy=ImportanceSampling(0.5, by="score", min_keep=0.1), delta=1.0, device=device)
    record_all(pruner, scores)
    pruner.set_epoch(1)
    with pytest.warns(RuntimeWarning, match=r"150 scores are negative and count as 0 in ImportanceSampling\(.*by='score'"):
        assert probabilities(pruner)[:150] == pytest.approx([0.1] * 150, abs=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruner.set_epoch(2)
        pruner.stats  # noqa: B018


def test_weights_of_ones_own_are_sampled_in_proportion(device: torch.device) -> None:
    importance = [1.0, 2.0, 4.0] * 1000
    keep = probabilities(planned(importance, ImportanceSampling(0.6, by="score", min_keep=0.01), device))
    assert [p / keep[0] for p in keep[:3]] == pytest.approx([1, 2, 4], rel=1e-3)


@ARBITRARY
def test_a_full_epoch_weighs_1_and_pruning_goes_on_behind_it(device: torch.device) -> None:
    pruner = InfoBatch(500, 10, policy=ImportanceSampling(0.5), delta=0.5, device=device)
    record_all(pruner, scores_of("exponential", 500))
    for epoch, pruned in ((7, False), (3, True)):
        pruner.set_epoch(epoch)
        assert (pruner.stats.kept < 500) == pruned == (pruner.stats.saved_fraction > 0.3)
        assert (set(probabilities(pruner)) == {1.0}) == (not pruned)
        assert pruner.policy.expected_saved_fraction == 0.5


def test_a_state_brings_the_probabilities_of_its_plan_along(device: torch.device) -> None:
    pruner = run_of(device, policy=ImportanceSampling(0.6, min_keep=0.2), size=1000)
    train(pruner, 50)
    pruner.set_epoch(1)
    keep, stats = probabilities(pruner), pruner.stats
    assert len(set(keep)) > 1
    file = saved(pruner)
    for policy in (ImportanceSampling(0.6, min_keep=0.2), ImportanceSampling(0.1), RandomPruning(0.9)):
        again = restored(file, device, policy=policy, size=1000)
        assert probabilities(again) == keep
        assert (again.stats.thresholds, again.stats.weights) == (stats.thresholds, stats.weights)


@ARBITRARY
def test_every_table_has_a_plan(device: torch.device) -> None:
    for name, score in SCORES.items():
        dice = random.Random(name)
        scores = [value for value in (score(dice) for _ in range(300)) if value is not None]
        for by in ("gradient_norm", "score"):
            policy = ImportanceSampling(0.75, by, 0.01)  # type: ignore[arg-type]
            pruner = InfoBatch(301, 9, policy=policy, delta=1.0, device=device)
            if scores:
                record(pruner, list(range(len(scores))), scores)
            pruner.set_epoch(1)
            keep = probabilities(pruner)
            assert sum(keep) == pytest.approx(301 - 0.75 * len(scores), abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ({"saved_fraction": 1.0}, ValueError, ("saved_fraction must be in [0, 1), got 1.0",)),
        ({"saved_fraction": -0.1}, ValueError, ("saved_fraction must be in [0, 1), got -0.1",)),
        ({"saved_fraction": math.nan}, ValueError, ("saved_fraction must be in [0, 1), got nan",)),
        ({"saved_fraction": "40 %"}, TypeError, ("saved_fraction must be a number", "'40 %'")),
        (
            {"saved_fraction": 0.95, "min_keep": 0.1},
            ValueError,
            ("saved_fraction=0.95 is more than 0.9, the most", "min_keep=0.1", "lower saved_fraction or min_keep"),
        ),
        ({"saved_fraction": 0.999999}, ValueError, ("saved_fraction=0.999999 is more than 0.999985, the most", "min_keep=5e-07")),
        ({"min_keep": 0.0}, ValueError, ("min_keep must be in (0, 1], got 0.0", "biases the gradient")),
        ({"min_keep": 1.5}, ValueError, ("min_keep must be in [0, 1], got 1.5",)),
        ({"min_keep": "0.1"}, TypeError, ("min_keep must be a number",)),
        ({"by": "loss"}, ValueError, ("by must be one of 'gradient_norm', 'score', got 'loss'",)),
        ({"by": np.array(["score"])}, ValueError, ("by must be one of 'gradient_norm', 'score', got array(",)),
        ({"saved_fraction": 0.999999, "min_keep": 1e-9}, ValueError, ("is more than 0.999985, the most that min_keep=1e-09",)),
        ({"momentum": 1.0}, ValueError, ("momentum must be in [0, 1), got 1.0",)),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], parts: tuple[str, ...]) -> None:
    with raises(error, *parts):
        ImportanceSampling(**arguments)


def test_ranks_find_equal_policies_equal_however_they_were_written() -> None:
    assert repr(ImportanceSampling(np.float64(0.0), np.str_("score"), 1)) == repr(ImportanceSampling(-0.0, "score", 1.0))  # type: ignore[arg-type]


def test_the_most_that_can_be_saved_is_allowed_however_it_is_rounded() -> None:
    for min_keep in (0.1, 0.2, 0.3, 0.6, 0.7, 0.9, 1.0):
        ImportanceSampling(round(1 - min_keep, 10), min_keep=min_keep)


def test_a_sample_is_kept_with_half_of_the_mean_probability_at_least() -> None:
    for fraction in (0.0, 0.4, 0.9, 0.9999):
        assert ImportanceSampling(fraction).min_keep == (1 - fraction) / 2
    assert ImportanceSampling(0.4) == ImportanceSampling(0.4, min_keep=0.3)
