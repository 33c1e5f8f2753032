"""An iterator whose plan or iteration is over says so at its next batch, and one that has nothing left to yield just ends."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from infobatch_fast import InfoBatch
from infobatch_fast.sampler import RUN
from support.runs import record_all

SIZE, BATCH = 694, 64


def learned(device: torch.device, size: int = SIZE, **kwargs: Any) -> InfoBatch:
    pruner = InfoBatch(size, 10, delta=1.0, device=device, **kwargs)
    record_all(pruner)
    if not kwargs:
        pruner.set_epoch(1)
    return pruner


def select(pruner: InfoBatch) -> None:
    pruner.set_epoch(2)


def select_and_plan(pruner: InfoBatch) -> None:
    pruner.set_epoch(2)
    len(pruner.sampler)


def load(pruner: InfoBatch) -> None:
    pruner.load_state_dict(copy.deepcopy(pruner.state_dict()))


MOVES = [select, select_and_plan, load]


@pytest.mark.parametrize("move_on", MOVES)
def test_a_stale_iterator_of_batches_is_told_at_its_next_batch(device: torch.device, move_on: Callable[[InfoBatch], None]) -> None:
    pruner = learned(device)
    iterator = iter(pruner.sampler.batches(BATCH))
    next(iterator)
    move_on(pruner)
    with pytest.raises(RuntimeError, match="this iterator belongs to epoch 1, but the sampler has moved on to epoch"):
        next(iterator)


@pytest.mark.parametrize("move_on", MOVES)
def test_a_stale_iterator_of_ids_is_told_at_its_next_run(device: torch.device, move_on: Callable[[InfoBatch], None]) -> None:
    pruner = learned(device, 10 * RUN)
    iterator = iter(pruner.sampler)
    next(iterator)
    move_on(pruner)
    assert len(list(itertools.islice(iterator, RUN - 1))) == RUN - 1
    with pytest.raises(RuntimeError, match="this iterator belongs to epoch 1, but the sampler has moved on to epoch"):
        next(iterator)


def follow(pruner: InfoBatch) -> None:
    next(iter(pruner.sampler.batches(BATCH)))


@pytest.mark.parametrize("move_on", [load, follow])
@pytest.mark.parametrize("steps", [10, math.inf])
def test_where_plans_follow_each_other_it_is_told_as_well(
    device: torch.device, steps: float, move_on: Callable[[InfoBatch], None]
) -> None:
    pruner = learned(device, steps_per_epoch=steps, **({} if steps == math.inf else {"batch_size": BATCH}))
    iterator = iter(pruner.sampler.batches(BATCH))
    next(iterator)
    move_on(pruner)
    with pytest.raises(RuntimeError, match="take the batches of one iterator at a time"):
        next(iterator)


@pytest.mark.parametrize("drop_last", [False, True])
def test_an_iterator_without_a_batch_left_ends_though_the_next_epoch_has_begun(device: torch.device, drop_last: bool) -> None:
    pruner = learned(device)
    batches = pruner.sampler.batches(BATCH, drop_last)
    iterator = iter(batches)
    assert len(list(itertools.islice(iterator, len(batches)))) == len(batches)
    select_and_plan(pruner)
    assert list(iterator) == []
    exhausted = iter(batches)
    assert len(list(exhausted)) == len(batches)
    pruner.set_epoch(3)
    assert list(exhausted) == []


def test_iterators_of_one_epoch_may_take_turns_and_selecting_it_again_ends_none(device: torch.device) -> None:
    pruner = learned(device)
    one, other = iter(pruner.sampler.batches(BATCH)), iter(pruner.sampler.batches(BATCH))
    first = [next(one), next(one)]
    assert [next(other), next(other)] == first
    pruner.set_epoch(1)
    len(pruner.sampler)
    assert list(one) == list(other)


def test_set_epoch_where_plans_follow_each_other_ends_no_iterator(device: torch.device) -> None:
    pruner = learned(device, steps_per_epoch=10, batch_size=BATCH)
    iterator = iter(pruner.sampler.batches(BATCH))
    next(iterator)
    pruner.set_epoch(1)
    assert len(list(iterator)) == 9
