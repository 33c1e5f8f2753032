"""When samples may be added: between epochs, and before and after a restart."""

from typing import Any

import pytest
import torch

from infobatch_fast import InfoBatch
from support.items import Items
from support.refusals import raises
from support.restarts import BATCH, restored, saved
from support.runs import decisions, snapshot, train

# ---- when ----


def test_growth_is_refused_in_mid_epoch_and_changes_nothing(device: torch.device) -> None:
    pruner = InfoBatch(20, 10, delta=1.0, device=device)
    twin = InfoBatch(20, 10, delta=1.0, device=device)
    for each in (pruner, twin):
        train(each, 4, steps=2)
    before, expected = snapshot(pruner), decisions(pruner)
    with raises(RuntimeError, "grow: epoch 0 is under way, and its plan is for 20 samples", "set_epoch(1)", "len(loader)"):
        pruner.grow(30)
    assert (snapshot(pruner), decisions(pruner)) == (before, expected)
    assert train(pruner) == train(twin)
    pruner.grow(30)
    assert (pruner.epoch, pruner.num_samples) == (1, 30)


def test_the_rest_of_an_epoch_may_be_left_out(device: torch.device) -> None:
    pruner = InfoBatch(20, 10, device=device)
    iterator = iter(pruner.sampler)
    next(iterator)
    pruner.set_epoch(1)
    pruner.grow(30)
    assert sorted(pruner.sampler) == list(range(30))
    assert len(list(iterator)) == 19  # of the chunk that it had already


@pytest.mark.parametrize(
    ("value", "error"),
    [(1.5, TypeError), (True, TypeError), (19, ValueError), (0, ValueError), (-1, ValueError), (2**40 + 1, ValueError)],
)
def test_a_wrong_size_is_refused(device: torch.device, value: Any, error: type[Exception]) -> None:
    pruner = InfoBatch(20, 10, device=device)
    before = snapshot(pruner)
    with raises(error, "new_size"):
        pruner.grow(value)
    assert snapshot(pruner) == before


def test_a_size_that_is_not_that_of_the_data_set_is_refused(device: torch.device) -> None:
    with raises(ValueError, "new_size must be given, as InfoBatch got the number 20, not a data set"):
        InfoBatch(20, 10, device=device).grow()
    items = Items(20)
    pruner = InfoBatch(items, 10, device=device)
    with raises(ValueError, "new_size=25, but the data source has 20 samples"):
        pruner.grow(25)
    items.size = 19
    with raises(ValueError, "new_size must be at least 20", "got 19"):
        pruner.grow()
    items.size = 25
    with raises(IndexError, "protect: 1 ids out of range for 25 samples, for instance 25"):
        pruner.grow(protect=[25])
    assert pruner.num_samples == 20
    pruner.grow(25)
    assert (pruner.num_samples, pruner.data_source) == (25, items)


# ---- restarts ----


@pytest.mark.parametrize("steps", [0, 1, 3, 100])
def test_a_run_that_grew_and_is_cut_goes_on_bit_for_bit(device: torch.device, steps: int) -> None:
    def grown() -> InfoBatch:
        pruner = InfoBatch(45, 5, device=device, protect=[3, 44])
        train(pruner, BATCH)
        pruner.grow(70, protect=[69])
        return pruner

    pruner, reference = grown(), grown()
    visited = train(pruner, BATCH, steps)
    again = restored(saved(pruner), device, size=70)
    assert again.protected == 3
    if steps < 100:
        assert visited + train(again, BATCH) == train(reference, BATCH)
    else:
        train(reference, BATCH)
        again.grow(90)  # all of the restored epoch was visited, so it is over
        reference.grow(90)
    assert (again.epoch, reference.epoch) == ((1, 1) if steps < 100 else (2, 2))
    for each in (again, reference):
        each.set_epoch(2)
    assert train(again, BATCH) == train(reference, BATCH)
    assert snapshot(again) == snapshot(reference)


def test_a_state_from_before_the_growth_loads_first_and_grows_then(device: torch.device) -> None:
    pruner = InfoBatch(45, 5, device=device)
    train(pruner, BATCH)
    file = saved(pruner)
    pruner.grow(60)
    with raises(ValueError, "state has num_samples=45, this pruner 60"):
        restored(file, device, size=60)
    again = restored(file, device, size=45)
    again.set_epoch(1)
    again.grow(60)
    assert train(again) == train(pruner)
