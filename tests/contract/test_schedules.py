"""Learning rates follow the fraction of the run that is done, and end where the schedule ends."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from infobatch_fast import EpochProgressLR, InfoBatch, NoPruning
from support.refusals import raises
from support.runs import loss_of
from support.scheduled import BATCH, EPOCHS, SCHEDULERS, SIZE, TOTAL, Run


def full_rates(name: str) -> list[float]:
    """The learning rates of a run of TOTAL steps by the scheduler alone, and the last one it sets."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = SCHEDULERS[name](optimizer, TOTAL)
    rates = []
    for step in range(TOTAL):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < TOTAL - 1 or name != "one cycle":
            scheduler.step()
    return [*rates, optimizer.param_groups[0]["lr"]]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_pruned_run_ends_where_the_schedule_ends(name: str, accumulate: int) -> None:
    run, full = Run(name), full_rates(name)
    for epoch in range(EPOCHS):
        run.epoch(epoch, accumulate)
    assert len(run.rates) < 0.9 * TOTAL / accumulate
    assert min(abs(run.rates[len(run.rates) // 2] - rate) for rate in full) < 1e-9, "rates are those of the schedule"
    assert max(run.rates) == pytest.approx(max(full), abs=0.01)
    if accumulate == 1:
        assert run.optimizer.param_groups[0]["lr"] == pytest.approx(full[-1], abs=1e-9)
        assert run.scheduler.last_epoch == (TOTAL - 1 if name == "one cycle" else TOTAL)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_full_run_has_the_schedulers_own_rates(name: str) -> None:
    run = Run(name, policy=NoPruning())
    for epoch in range(EPOCHS):
        run.epoch(epoch)
    assert run.rates == pytest.approx(full_rates(name)[:TOTAL], rel=0.1, abs=0.011)  # the last batch of an epoch is smaller


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_run_resumed_in_mid_epoch_has_the_same_rates(name: str) -> None:
    reference = Run(name)
    for epoch in range(EPOCHS):
        reference.epoch(epoch)
    for cut in (2, 5):
        run = Run(name)
        for epoch in range(cut):
            run.epoch(epoch)
        run.epoch(cut, stop=7)
        states, rates = run.saved(), run.rates
        run = Run(name)
        run.go_on(states)
        for epoch in range(cut, EPOCHS):
            run.epoch(epoch)
        assert rates + run.rates == reference.rates


def test_calls_in_excess_do_nothing_as_the_scheduler_follows_the_run() -> None:
    run = Run("cosine")
    run.epoch(0)
    rate = run.scheduler.get_last_lr()
    for _ in range(5):  # accelerate calls it once for each process
        run.scheduler.step()
    assert run.scheduler.get_last_lr() == rate
    assert isinstance(run.scheduler, LRScheduler)
    assert run.scheduler.optimizer is run.optimizer
    assert run.scheduler.base_lrs == [1.0]
    assert not hasattr(run.scheduler, "total_steps"), "accelerate would stop at it"


def test_what_cannot_be_driven_is_refused() -> None:
    pruner = InfoBatch(SIZE, EPOCHS)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    inner = CosineAnnealingLR(optimizer, T_max=10)
    with raises(TypeError, "got InfoBatch: write EpochProgressLR(scheduler, pruner, total_steps=...)"):
        EpochProgressLR(pruner, inner, 10)  # type: ignore[arg-type]
    with raises(TypeError, "ReduceLROnPlateau follows a metric"):
        EpochProgressLR(ReduceLROnPlateau(optimizer), pruner, 10)
    with raises(TypeError, "scheduler", "str"):
        EpochProgressLR("cosine", pruner, 10)  # type: ignore[arg-type]
    with raises(TypeError, "pruner", "int"):
        EpochProgressLR(inner, 3, 10)  # type: ignore[arg-type]
    with raises(ValueError, "total_steps", "0"):
        EpochProgressLR(inner, pruner, 0)
    with raises(ValueError, "total_steps=11", "12"):
        EpochProgressLR(OneCycleLR(optimizer, 1.0, total_steps=12), pruner, 11)
    scheduler = EpochProgressLR(inner, pruner, 10)
    with raises(ValueError, "epoch=3"):
        scheduler.step(3)
    with raises(ValueError, "total_steps=10"):
        scheduler.load_state_dict({"last_epoch": 1})


@pytest.mark.parametrize("steps", [3, 10])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_where_epochs_are_cut_short_the_learning_rate_still_ends_where_the_run_ends(name: str, steps: int) -> None:
    run, full = Run(name), full_rates(name)
    for epoch in range(EPOCHS):
        run.epoch(epoch, stop=steps)
    assert run.pruner.progress < 0.99
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(full[-1], abs=0.04)  # as many steps are less of a full epoch
    jumps = [abs(b - a) for a, b in itertools.pairwise(run.rates[steps + 1 :])]
    assert max(jumps) < 4.0 * max(jumps[steps // 2 : steps]) + 0.1, "no jump at an epoch's end, from the second epoch on"


def test_a_dropped_last_batch_leaves_nothing_of_the_schedule() -> None:
    run = Run("cosine")
    for epoch in range(EPOCHS):
        run.pruner.set_epoch(epoch)
        for batch in run.pruner.sampler.batches(60, drop_last=True):
            run.pruner.update(batch, loss_of(torch.tensor(batch), epoch))
            run.optimizer.step()
            run.scheduler.step()
    assert run.pruner.progress < 0.99
    assert run.scheduler.last_epoch == TOTAL


@pytest.mark.parametrize(("lengths", "done"), [({}, 0), ({}, 3), ({"batch_size": BATCH, "steps_per_epoch": 20}, 3)])
def test_epochs_that_are_cut_short_go_on_after_a_restart_as_they_were(lengths: dict[str, int], done: int) -> None:
    reference = Run("cosine", **lengths)
    for epoch in range(EPOCHS):
        reference.epoch(epoch, stop=7)
    run = Run("cosine", **lengths)
    for epoch in range(3):
        run.epoch(epoch, stop=7)
    if done:
        run.epoch(3, stop=done)
    states, rates = run.saved(), run.rates
    run = Run("cosine", **lengths)
    run.go_on(states)
    for epoch in range(3, EPOCHS):
        run.epoch(epoch, stop=7 - done * (epoch == 3))
    assert rates + run.rates == reference.rates
