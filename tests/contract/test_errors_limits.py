"""What is beyond the last epoch, or longer than any data set, is told in plain words, and changes nothing."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from infobatch_fast import InfoBatch
from infobatch_fast.engine.places import LAST_EPOCH
from support.refusals import raises
from support.runs import ARBITRARY, record_all, snapshot

pytestmark = ARBITRARY


def at_the_end(device: torch.device) -> InfoBatch:
    """The last epoch, iterated to its end."""
    pruner = InfoBatch(20, 10, delta=1.0, device=device)
    record_all(pruner)
    pruner.set_epoch(LAST_EPOCH)
    assert 0 < len(list(pruner.sampler)) <= 20
    return pruner


@pytest.mark.parametrize("go_on", [lambda pruner: next(iter(pruner.sampler)), lambda pruner: pruner.grow(30)], ids=["iter", "grow"])
def test_the_epoch_after_the_last_one_is_an_error_and_the_pruner_stays_where_it_is(device: torch.device, go_on: Any) -> None:
    pruner = at_the_end(device)
    before = snapshot(pruner)
    for _ in range(2):
        with raises(RuntimeError, "epoch 4294967295 is the last possible epoch", "call set_epoch(epoch) before each epoch"):
            go_on(pruner)
        assert (pruner.epoch, pruner.num_samples) == (LAST_EPOCH, 20)
        assert snapshot(pruner) == before
    pruner.set_epoch(3)
    assert len(list(pruner.sampler)) > 0


def test_so_is_the_plan_after_the_last_one_where_plans_follow_each_other(device: torch.device) -> None:
    pruner = InfoBatch(20, 10, delta=1.0, steps_per_epoch=math.inf, device=device)
    pruner.sampler.load_state_dict({"epoch": LAST_EPOCH, "position": 0})
    with raises(RuntimeError, "epoch 4294967295 is the last possible epoch"):
        list(itertools.islice(pruner.sampler.batches(8), 100))
    assert pruner.epoch == LAST_EPOCH


@pytest.mark.parametrize("epoch", [-1, LAST_EPOCH + 1, "1", 1.0, None])
@pytest.mark.parametrize("lengths", [{}, {"steps_per_epoch": 4, "batch_size": 2}], ids=["dynamic", "constant"])
def test_a_refused_epoch_changes_nothing(device: torch.device, lengths: dict[str, Any], epoch: Any) -> None:
    pruner = InfoBatch(20, 10, delta=1.0, device=device, **lengths)
    next(iter(pruner.sampler))
    before, place = snapshot(pruner), pruner.sampler.state_dict()
    with pytest.raises((TypeError, ValueError), match=r"^epoch must be"):
        pruner.set_epoch(epoch)
    with pytest.raises((TypeError, ValueError), match=r"^state\['epoch'\] must be"):
        pruner.sampler.load_state_dict({"epoch": epoch, "position": 3})
    assert (snapshot(pruner), pruner.sampler.state_dict()) == (before, place)


class Long:
    """A data set with a length that Python's ``len`` refuses."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length


@pytest.mark.parametrize("length", [2**63, 2**70, -1])
def test_a_length_that_is_none_is_an_error_that_names_the_argument(length: int) -> None:
    with raises(ValueError, "len(data_source) must be in [1, 1099511627776]", "Long", "pass a data set of fewer samples"):
        InfoBatch(Long(length), 10)
    pruner = InfoBatch(20, 10)
    with raises(ValueError, "len(new_size) must be in [1, 1099511627776]", "Long"):
        pruner.grow(Long(length))
    assert pruner.num_samples == 20
