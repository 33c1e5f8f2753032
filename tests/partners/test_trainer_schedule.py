"""The schedule of InfoBatchTrainer, without one: wherever a run like the saved one goes on, it has the same learning rates."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from infobatch_fast import MeanThreshold
from infobatch_fast.integrations.trainer_schedule import RunSchedule
from support.scheduled import EPOCHS, Run


def run_of(by: Any) -> Run:
    return Run("lambda", by, RunSchedule, policy=MeanThreshold(0.8))


@pytest.mark.parametrize("by", ["epochs", "visits"])
def test_it_goes_on_where_it_was_also_if_the_next_plan_tells_another_share(by: Any) -> None:
    reference = run_of(by)
    for epoch in range(EPOCHS):
        reference.epoch(epoch)
    for cut in range(EPOCHS):
        run = run_of(by)
        for epoch in range(cut + 1):
            run.epoch(epoch)
        states, rates = run.saved(), run.rates
        run = run_of(by)
        run.pruner.load_state_dict(states[0])
        len(run.pruner.sampler)  # makes the next plan, as the Trainer does before it loads the schedule
        run.optimizer.load_state_dict(states[1])
        run.scheduler.load_state_dict(states[2])
        for epoch in range(cut + 1, EPOCHS):
            run.epoch(epoch)
        assert rates + run.rates == reference.rates


def test_a_scheduler_that_counts_steps_takes_its_state_up_and_hands_it_back() -> None:
    run = run_of("visits")
    run.epoch(0)
    run.epoch(1, stop=3)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    plain = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    plain.load_state_dict(run.scheduler.state_dict())
    assert plain.last_epoch == len(run.rates)
    for _ in range(4):
        optimizer.step()
        plain.step()
    run.epoch(1)
    share = run.scheduler.last_epoch
    run.scheduler.load_state_dict(plain.state_dict())
    assert run.scheduler.last_epoch == share, "of its own pruner, as the place of the saved run is that of fewer steps"
