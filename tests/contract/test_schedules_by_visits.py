"""A schedule by visits follows the share of the run's samples that were visited, as far as is known, and ends with the run."""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from infobatch_fast import EpochProgressLR, InfoBatch, MeanThreshold, NoPruning, QuantileTiers, RandomPruning
from support.refusals import raises
from support.runs import ARBITRARY, loss_of
from support.scheduled import BATCH, EPOCHS, SCHEDULERS, SIZE, TOTAL, Run

POLICIES = [MeanThreshold(0.8), QuantileTiers(), RandomPruning(0.6), NoPruning()]


def trained(run: Run, epochs: Any = range(EPOCHS), **kwargs: Any) -> Run:
    for epoch in epochs:
        run.epoch(epoch, **kwargs)
    return run


@ARBITRARY
@pytest.mark.parametrize("lengths", [{}, {"delta": 0.5, "warmup_epochs": 2}, {"delta": 1.0}])
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_the_share_is_visits_done_by_those_done_and_expected(policy: Any, lengths: dict[str, Any]) -> None:
    pruner = InfoBatch(SIZE, EPOCHS, policy=policy, **lengths)
    first, end = max(1, lengths.get("warmup_epochs", 0)), math.floor(lengths.get("delta", 0.875) * EPOCHS)
    done, keeps = 0, SIZE * (1 - policy.expected_saved_fraction)
    for epoch in range(EPOCHS):
        pruner.set_epoch(epoch)
        later = sum(keeps if first <= each < end else SIZE for each in range(epoch, EPOCHS))
        assert pruner.visited_fraction == pytest.approx(done / (done + later), abs=1e-12)
        kept = len(pruner.sampler)
        keeps = kept if first <= epoch < end else keeps
        later = sum(keeps if first <= each < end else SIZE for each in range(epoch + 1, EPOCHS))
        total = done + kept + later
        for batch in pruner.sampler.batches(BATCH):
            assert pruner.visited_fraction == pytest.approx(done / total, abs=1e-12)
            pruner.update(batch, loss_of(torch.tensor(batch), epoch))
            done += len(batch)
    assert pruner.visited_fraction == 1.0
    pruner.set_epoch(EPOCHS)  # one more than was said
    assert pruner.visited_fraction == 1.0


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_by_visits_a_run_ends_where_the_schedule_ends(name: str, accumulate: int) -> None:
    run = trained(Run(name, "visits", policy=RandomPruning(0.6)), accumulate=accumulate)
    assert len(run.rates) < 0.6 * TOTAL / accumulate
    run.scheduler.step()  # the last batches of an epoch may be too few for a step
    assert run.scheduler.last_epoch == (TOTAL - 1 if name == "one cycle" else TOTAL)


def test_by_visits_each_step_is_the_same_part_of_the_schedule() -> None:
    by_visits, by_epochs = (trained(Run("lambda", by, policy=RandomPruning(0.6))) for by in ("visits", "epochs"))  # type: ignore[arg-type]
    assert by_visits.pruner.stats.kept == SIZE
    last = len(list(by_visits.pruner.sampler.batches(BATCH)))  # steps of the full epoch at the end
    steps = len(by_visits.rates)
    assert steps == len(by_epochs.rates)
    expected = [1 - step / steps for step in range(steps)]
    assert by_visits.rates == pytest.approx(expected, abs=0.05)  # plans keep a few more or fewer samples than was expected
    assert by_epochs.rates[-last] == pytest.approx(1 / EPOCHS, abs=0.01)
    assert by_visits.rates[-last] == pytest.approx(last / steps, abs=0.01)
    assert last / steps > 1.7 / EPOCHS


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("cut", [(0, 3), (0, 26), (1, 0), (1, 1), (2, 5), (2, None), (6, 2), (6, None), (7, 9)], ids=repr)
def test_by_visits_a_restarted_run_has_the_same_rates(policy: Any, cut: tuple[int, int | None]) -> None:
    reference = Run("cosine", "visits", policy=policy)
    trained(reference)
    epoch, stop = cut
    run = trained(Run("cosine", "visits", policy=policy), range(epoch))
    run.epoch(epoch, stop=stop)
    states, rates, share = run.saved(), run.rates, run.pruner.visited_fraction
    run = Run("cosine", "visits", policy=policy)
    run.go_on(states)
    assert run.pruner.visited_fraction == share
    if stop != 0:  # else a plan was made whose number of samples counts from the first step on
        run.scheduler.step()  # in excess
    trained(run, range(epoch, EPOCHS))
    assert rates + run.rates == reference.rates


@ARBITRARY
def test_the_schedule_waits_where_a_plan_keeps_more_than_was_expected() -> None:
    run = Run("cosine", "visits", policy=RandomPruning(0.9))
    run.epoch(0)
    share, at, rate = run.pruner.visited_fraction, run.scheduler.last_epoch, run.scheduler.get_last_lr()
    run.pruner.engine.table.clear()  # no sample is seen any more, so all are kept
    run.pruner.set_epoch(1)
    assert len(run.pruner.sampler) == SIZE
    assert run.pruner.visited_fraction < share
    run.scheduler.step()
    assert (run.scheduler.last_epoch, run.scheduler.get_last_lr()) == (at, rate)
    trained(run, range(1, EPOCHS))
    assert run.rates == sorted(run.rates, reverse=True)
    assert run.scheduler.last_epoch == TOTAL


@pytest.mark.parametrize("steps", [3, 10])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_by_visits_where_epochs_are_cut_short_the_schedule_ends_with_the_run(name: str, steps: int) -> None:
    run, whole = Run(name, "visits"), trained(Run(name, "visits"))
    trained(run, stop=steps)
    assert run.pruner.visited_fraction > 0.95
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(whole.optimizer.param_groups[0]["lr"], abs=0.05)
    jumps = [abs(b - a) for a, b in itertools.pairwise(run.rates[steps + 1 :])]
    assert max(jumps) < 4.0 * max(jumps[steps // 2 : steps]) + 0.1, "no jump at an epoch's end, from the second epoch on"


def test_samples_that_were_added_count_in_the_epochs_to_come() -> None:
    pruner = InfoBatch(100, 4, delta=1.0, policy=RandomPruning(0.5))
    pruner.set_epoch(0)
    for batch in pruner.sampler.batches(10):
        pruner.update(batch, loss_of(torch.tensor(batch)))
    assert pruner.visited_fraction == pytest.approx(100 / (100 + 3 * 50))
    pruner.grow(300)
    assert pruner.visited_fraction == pytest.approx(100 / (100 + 3 * 150))


def test_with_epochs_of_constant_length_both_are_the_same() -> None:
    lengths: dict[str, Any] = {"batch_size": BATCH, "steps_per_epoch": 17, "policy": RandomPruning(0.6)}
    by_visits, by_epochs = trained(Run("cosine", "visits", **lengths)), trained(Run("cosine", "epochs", **lengths))
    assert by_visits.rates == by_epochs.rates
    assert by_visits.pruner.visited_fraction == by_visits.pruner.progress == 1.0


def test_without_end_the_visits_are_those_of_the_plans() -> None:
    runs = [Run("lambda", by, steps_per_epoch=math.inf, policy=RandomPruning(0.6)) for by in ("visits", "epochs")]
    steps = 100  # of 123 that eight plans take
    for run in runs:
        run.epoch(0, stop=steps)
    by_visits, by_epochs = runs
    visited = steps * BATCH / (2 * SIZE + 6 * 0.4 * SIZE)
    assert by_visits.rates[-1] == pytest.approx(1 - visited, abs=0.03)
    assert by_epochs.rates[-1] < by_visits.rates[-1] - 0.05


def test_a_state_goes_on_by_what_it_was_saved_by() -> None:
    by: tuple[Literal["epochs", "visits"], ...] = ("epochs", "visits")
    for saved, other in (by, by[::-1]):
        state = Run("cosine", saved).scheduler.state_dict()
        with raises(ValueError, f"by='{saved}'", f"by='{other}'", f"construct it with by='{saved}'"):
            Run("cosine", other).scheduler.load_state_dict(state)
    state = Run("cosine").scheduler.state_dict()
    del state["by"]  # of a version that knew nothing else
    Run("cosine").scheduler.load_state_dict(state)
    with raises(ValueError, "by='epochs'"):
        Run("cosine", "visits").scheduler.load_state_dict(state)


def test_visits_are_the_default() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = EpochProgressLR(CosineAnnealingLR(optimizer, T_max=10), InfoBatch(SIZE, EPOCHS), 10)
    assert scheduler.state_dict()["by"] == "visits"


def test_by_is_checked() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with raises(ValueError, "by must be one of 'epochs', 'visits'", "'steps'"):
        EpochProgressLR(CosineAnnealingLR(optimizer, T_max=10), InfoBatch(SIZE, EPOCHS), 10, by="steps")  # type: ignore[arg-type]
