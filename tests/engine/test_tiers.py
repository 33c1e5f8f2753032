"""Cutoffs and weights lie where they are read: what was launched or captured before goes by the plan that is then in force."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from infobatch_fast import InfoBatch, MeanThreshold, QuantileTiers
from infobatch_fast.engine import ops
from support.policies import Alternating
from support.runs import ARBITRARY, half_pruned, loss_of, record_all

pytestmark = ARBITRARY


def addresses(pruner: InfoBatch) -> list[int]:
    """What a captured CUDA graph of ``update`` holds."""
    table = pruner.engine.table
    return [part.data_ptr() for part in (table.scores, table.marks, table.faults, table.tiers)]


def recorder_of(pruner: InfoBatch) -> Callable[[torch.Tensor], list[float]]:
    """The weights of samples by an update that goes past Python's part, as a replay of a captured graph does."""
    record = pruner.engine.table.record
    return lambda index: record(index, loss_of(index).to(pruner.device)).tolist()


def test_the_tables_stay_where_they_are_over_plans_and_restarts_until_the_data_set_grows(device: torch.device) -> None:
    pruner, other = (InfoBatch(300, 10, policy=QuantileTiers(), delta=1.0, device=device) for _ in range(2))
    before, record = addresses(pruner), pruner.engine.table.record
    for epoch in range(3):
        pruner.set_epoch(epoch)
        record_all(pruner)
        assert addresses(pruner) == before
    record_all(other)
    for state_of in (other.state_dict, lambda: copy.deepcopy(pruner.state_dict()), pruner.state_dict):
        pruner.load_state_dict(state_of())
        assert len(pruner.sampler.indices()) > 0
        assert addresses(pruner) == before
    assert pruner.engine.table.record is record
    pruner.set_epoch(5)
    pruner.grow(301)
    len(pruner.sampler)
    assert set(addresses(pruner)).isdisjoint(before), "while the old table is held"


def test_what_was_captured_under_one_plan_weighs_by_the_tiers_of_each_later_one(device: torch.device) -> None:
    pruner = InfoBatch(300, 10, policy=Alternating(), delta=1.0, device=device)
    everyone, record = torch.arange(300, device=device), recorder_of(pruner)
    record_all(pruner)
    seen = []
    for epoch in range(1, 5):
        pruner.set_epoch(epoch)
        len(pruner.sampler)
        plan = pruner.engine.epochs.plan()
        of_tier = ops.tier_weights(plan.cutoffs)
        marks = pruner.engine.table.look_up(everyone).marks
        expected = [of_tier[mark >> 2] for mark in marks.tolist()]
        assert pruner.weights(everyone).tolist() == expected
        assert record(everyone) == expected
        seen.append(max(expected))
    assert seen == [4.0, 2.0, 4.0, 2.0]


def test_what_was_captured_weighs_by_the_plan_of_a_state_as_soon_as_it_is_loaded(device: torch.device) -> None:
    pruner, other = half_pruned(device), half_pruned(device, policy=MeanThreshold(0.75))
    everyone, record = torch.arange(1000, device=device), recorder_of(pruner)
    assert record(everyone) == [2.0] * 500 + [1.0] * 500
    pruner.load_state_dict(copy.deepcopy(other.state_dict()))
    assert record(everyone) == pruner.weights(everyone).tolist() == [4.0] * 500 + [1.0] * 500
    pruner.set_epoch(2)
    len(pruner.sampler)
    assert max(record(everyone)) == 2.0, "a plan of its own, by its own policy"
