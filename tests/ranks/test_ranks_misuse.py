"""What ranks do wrong together is told: a rank that waits for the others says for what, and all restart in the same epoch."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist

from infobatch_fast import InfoBatch
from infobatch_fast.engine import ranks as waiting
from infobatch_fast.integrations import accelerate
from support.ranks import local_value, needs_gloo, run_ranks
from support.runs import ARBITRARY, train

pytestmark = [needs_gloo, pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"), ARBITRARY]

SIZE, EPOCHS = 203, 6

TOGETHER: dict[str, Callable[[InfoBatch], Any]] = {
    "the plan of epoch 0": lambda pruner: len(pruner.sampler),
    "histogram()": lambda pruner: pruner.histogram(),
    "grow()": lambda pruner: pruner.grow(SIZE + 10),
}


def wait_for_each_other(what: str) -> list[str]:
    waiting.PATIENCE = 0.3
    pruner = InfoBatch(SIZE, EPOCHS)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):  # told once, though it happens again
            dist.barrier()
            if dist.get_rank() == 1:
                time.sleep(1.0)
            TOGETHER[what](pruner)
            if what == "the plan of epoch 0":
                pruner.set_epoch(1)
    return [str(each.message) for each in told]


@pytest.mark.parametrize("what", TOGETHER)
def test_a_rank_that_waits_long_warns_once_of_what_it_waits_for(what: str) -> None:
    late, punctual = run_ranks(2, wait_for_each_other, what)[::-1]
    assert late == []
    assert len(punctual) == 1
    assert punctual[0].startswith(f"rank 0 of 2 has waited 0.3 s for the other ranks at {what}, and keeps waiting")
    assert "len(loader)" in punctual[0]


def go_on(folder: str, steps: int | None) -> tuple[int, int, list[int]]:
    pruner = InfoBatch(SIZE, EPOCHS, delta=1.0)
    for epoch in range(3):
        pruner.set_epoch(epoch)
        train(pruner, steps=steps if epoch == 2 else None)
    accelerate.save(pruner, folder)
    again = InfoBatch(SIZE, EPOCHS, delta=1.0)
    accelerate.load(again, folder)
    epoch, length = again.epoch, len(again.sampler)
    again.set_epoch(epoch)
    assert len(train(again)) == length > 0
    return epoch, length, local_value(pruner.state_dict()["scores"])[:0]


@pytest.mark.parametrize(("steps", "epoch"), [(None, 3), (2, 2)])
def test_after_a_checkpoint_at_an_epochs_end_all_ranks_go_on_in_the_next_epoch(
    tmp_path: Any, steps: int | None, epoch: int
) -> None:
    pytest.importorskip("accelerate")
    of_ranks = run_ranks(3, go_on, str(tmp_path / "state"), steps)
    assert [each[0] for each in of_ranks] == [epoch] * 3
    assert len({each[1] for each in of_ranks}) == 1


def train_on_what_others_keep() -> tuple[list[str], int]:
    pruner = InfoBatch(SIZE, EPOCHS, delta=1.0)
    train(pruner)
    pruner.set_epoch(1)
    own = [i for i in range(SIZE) if not pruner.scores([i]).isnan()]
    unkept = [i for i in own if not pruner.is_kept(i)]
    pruner.update(torch.tensor(unkept), torch.ones(len(unkept)))
    pruner.set_epoch(2)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        len(pruner.sampler)
    return [str(each.message) for each in told], len(unkept)


def test_each_rank_warns_of_its_own_losses_of_samples_that_are_not_kept() -> None:
    for told, count in run_ranks(2, train_on_what_others_keep):
        assert len(told) == 1
        assert told[0].startswith(f"index: {count} losses came for samples that the plan of epoch 1 does not keep")
