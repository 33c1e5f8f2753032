"""How many steps a run takes, how far it is, and what is refused where epochs have a constant length or no end."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from infobatch_fast import InfoBatch, MeanThreshold, NoPruning, QuantileTiers, RandomPruning
from support.flows import BATCH, EPOCHS, SIZE, STEPS, constant
from support.refusals import raises
from support.restarts import saved
from support.runs import loss_of

# ---- steps and progress ----


@pytest.mark.parametrize("policy", [MeanThreshold(), QuantileTiers(), RandomPruning(0.4), NoPruning()], ids=str)
def test_expected_steps_come_true(policy: Any) -> None:
    pruner = InfoBatch(2000, 16, policy=policy)
    taken, expected = 0, []
    for epoch in range(16):
        pruner.set_epoch(epoch)
        assert pruner.steps(10, drop_last=True) in (pruner.steps(10), pruner.steps(10) - 1)
        expected.append(pruner.expected_steps(10))
        steps = pruner.steps(10)
        before = taken
        for batch in pruner.sampler.batches(10):
            pruner.update(batch, loss_of(torch.tensor(batch), epoch))
            taken += 1
        assert taken - before == steps
    assert abs(expected[-1] - taken) <= 16
    assert abs(expected[3] - taken) <= 0.05 * taken
    assert pruner.expected_steps(10) == expected[-1]
    if policy in (RandomPruning(0.4), NoPruning()):
        assert abs(expected[0] - taken) <= 0.03 * taken


def test_the_policies_expected_saved_fractions() -> None:
    assert MeanThreshold(0.6).expected_saved_fraction == 0.3
    assert RandomPruning(0.6).expected_saved_fraction == 0.6
    assert QuantileTiers().expected_saved_fraction == pytest.approx(0.2 * 0.75 + 0.65 * 0.5)
    assert NoPruning().expected_saved_fraction == 0.0
    assert InfoBatch(100, 10).expected_steps(10) == 10 + 7 * 8 + 20
    assert constant().expected_steps(BATCH) == EPOCHS * STEPS


def test_progress_grows_to_one_and_survives_a_restart(device: torch.device) -> None:
    pruner = InfoBatch(SIZE, 5, device=device)
    seen = [pruner.progress]
    for epoch in range(5):
        pruner.set_epoch(epoch)
        for batch in pruner.sampler.batches(BATCH):
            pruner.update(batch, loss_of(torch.tensor(batch), epoch).to(device))
            seen.append(pruner.progress)
            again = InfoBatch(SIZE, 5, device=device)
            again.load_state_dict(torch.load(saved(pruner), weights_only=True))
            assert again.progress == pytest.approx(seen[-1])
            len(again.sampler)
            assert again.progress == pytest.approx(seen[-1])
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0.0, 1.0)


# ---- what is refused ----


def test_bad_combinations_are_refused() -> None:
    for kwargs, kind, parts in (
        ({"steps_per_epoch": 5}, ValueError, ("steps_per_epoch=5", "needs batch_size")),
        ({"batch_size": 5}, ValueError, ("batch_size=5", "steps_per_epoch=S")),
        ({"batch_size": 5, "steps_per_epoch": math.inf}, ValueError, ("batch_size=5", "leave batch_size out")),
        ({"batch_size": 0, "steps_per_epoch": 5}, ValueError, ("batch_size", "at least 1")),
        ({"batch_size": 5, "steps_per_epoch": 0}, ValueError, ("steps_per_epoch", "at least 1")),
        ({"batch_size": 5, "steps_per_epoch": -math.inf}, TypeError, ("steps_per_epoch", "-inf")),
        ({"batch_size": 5, "steps_per_epoch": 2.5}, TypeError, ("steps_per_epoch", "2.5")),
        ({"batch_size": 5, "steps_per_epoch": "2"}, TypeError, ("steps_per_epoch", "'2'")),
        ({"batch_size": 5, "steps_per_epoch": True}, TypeError, ("steps_per_epoch", "True")),
        ({"batch_size": "x", "steps_per_epoch": 5}, TypeError, ("batch_size", "'x'")),
    ):
        with raises(kind, *parts):
            InfoBatch(10, 3, **kwargs)  # type: ignore[arg-type]
    pruner = constant()
    with raises(ValueError, "batch_size must be 8", "steps_per_epoch=11", "got 7"):
        pruner.sampler.batches(7)
    with raises(ValueError, "batch_size must be 8", "got 7"):
        pruner.steps(7)
    with raises(ValueError, "batch_size must be 8", "got 7"):
        pruner.expected_steps(7)
    with raises(RuntimeError, "indices() needs one plan per epoch"):
        pruner.sampler.indices()
    with raises(ValueError, "epoch must be", "-1"):
        pruner.set_epoch(-1)
    state = pruner.state_dict()
    for broken, parts in (
        ({"done": -1}, ("done", "-1")),
        ({"late_ids": "0" * 16}, ("late_ids", "damaged")),
        ({"late_ids": "x"}, ("late_ids",)),
    ):
        with raises(ValueError, *parts):
            pruner.load_state_dict({**state, **broken})
