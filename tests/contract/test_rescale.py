"""``rescale="step"``: weights times kept / N, so that a step's gradient is that of the full data in expectation."""

import math
from fractions import Fraction

import pytest
import torch

from infobatch_fast import ImportanceSampling, InfoBatch, MeanThreshold, QuantileTiers, RandomPruning
from support.compare import RULES, assert_same_decisions, float32, policy_of
from support.oracle import Oracle
from support.refusals import raises
from support.restarts import restored, run_of, saved
from support.runs import ARBITRARY, decisions, loss_of, record_all, train

POLICIES = [MeanThreshold(), QuantileTiers(), RandomPruning(0.7), ImportanceSampling(0.6)]


def planned(policy: object, device: torch.device, n: int = 3000, **kwargs: object) -> InfoBatch:
    pruner = InfoBatch(n, 9, policy=policy, delta=1.0, device=device, **kwargs)  # type: ignore[arg-type]
    record_all(pruner, loss_of(torch.arange(n)))
    pruner.set_epoch(1)
    return pruner


@pytest.mark.parametrize("name", ["mean", "three tiers", "random", "none", "importance"])
def test_plans_are_those_of_the_page(device: torch.device, name: str) -> None:
    rule, protected = RULES[name], [1, 64, 1000]
    pruner = InfoBatch(1031, 9, policy=policy_of(rule), delta=0.5, rescale="step", protect=protected, device=device)
    oracle = Oracle(1031, rule, protected=protected, by_step=True)
    for epoch in range(6):
        pruner.set_epoch(epoch)
        oracle.plan(epoch, pruning=epoch < 4)
        assert_same_decisions(pruner, oracle)
        expected = oracle.orders()[0]
        assert train(pruner) == expected
        oracle.update(expected, loss_of(torch.tensor(expected), epoch).tolist())


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_nothing_but_the_weights_differs_and_they_by_one_factor(device: torch.device, policy: object) -> None:
    by_epoch, by_step = planned(policy, device), planned(policy, device, rescale="step")
    assert by_epoch.sampler.indices().tolist() == by_step.sampler.indices().tolist()
    kept = by_step.stats.kept
    everything = torch.arange(3000)
    exact = [float32(float(Fraction(kept, 3000)) * weight) for weight in by_epoch.weights(everything).tolist()]
    assert by_step.weights(everything).tolist() == pytest.approx(exact, rel=1e-6)
    assert list(by_step.stats.weights) == pytest.approx([kept / 3000 * weight for weight in by_epoch.stats.weights], rel=1e-6)
    index, losses = everything[:64], torch.rand(64, device=device)
    ratio = by_step.weigh(index, losses) / by_epoch.weigh(index, losses)
    assert float(ratio) == pytest.approx(kept / 3000, rel=1e-5)


def test_the_weighted_mean_over_the_kept_samples_is_that_of_all_in_expectation(device: torch.device) -> None:
    losses, means = loss_of(torch.arange(3000)).double(), []
    pruner = planned(RandomPruning(0.7), device, rescale="step")
    for epoch in range(1, 9):
        pruner.set_epoch(epoch)
        kept = pruner.sampler.indices().cpu()
        means.append(float((pruner.weights(kept).cpu().double() * losses[kept]).mean()))
    spread = math.sqrt(0.7 / 0.3 * float((losses**2).sum())) / 3000 / math.sqrt(8)
    assert abs(sum(means) / 8 - float(losses.mean())) < 5 * spread  # one in 2 million for faultless draws


def test_a_full_epoch_weighs_1(device: torch.device) -> None:
    pruner = InfoBatch(100, 9, rescale="step", device=device)
    assert pruner.stats.weights == (1.0,)
    record_all(pruner, loss_of(torch.arange(100)))
    assert pruner.weights([3, 4]).tolist() == [1.0, 1.0]


@ARBITRARY
def test_a_restart_in_the_middle_weighs_as_before_and_rescale_is_the_pruners_own(device: torch.device) -> None:
    pruner = run_of(device, rescale="step", delta=1.0, size=500)
    train(pruner, 50)
    pruner.set_epoch(1)
    train(pruner, 50, steps=2)
    file, expected = saved(pruner), decisions(pruner)
    again = restored(file, device, rescale="step", delta=1.0, size=500)
    assert decisions(again) == expected
    other = restored(file, device, delta=1.0, size=500)
    assert other.weights([7]).item() * pruner.stats.kept / 500 == pytest.approx(pruner.weights([7]).item(), rel=1e-6)


def test_plans_that_follow_each_other_have_their_own_factor(device: torch.device) -> None:
    pruner = InfoBatch(400, 8, rescale="step", delta=1.0, batch_size=40, steps_per_epoch=5, device=device)
    for epoch in range(6):
        pruner.set_epoch(epoch)
        for batch in pruner.sampler.batches(40):
            index = torch.tensor(batch)
            pruner.update(index, loss_of(index, epoch).to(device))
            found = pruner.weights(torch.arange(400))  # as the table has them
            assert found.min().item() == pytest.approx(pruner.stats.kept / 400, rel=1e-6)
            assert set(found.tolist()) <= set(pruner.stats.weights)


def test_another_word_is_refused() -> None:
    with raises(ValueError, "rescale must be one of 'epoch', 'step', got 'batch'"):
        InfoBatch(10, 3, rescale="batch")  # type: ignore[arg-type]
    assert InfoBatch(10, 3).rescale == "epoch"
