"""Epochs of constant length on ranks whose losses do not all come: they go back to the same place, whatever each has counted."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from infobatch_fast import InfoBatch
from support.flows import Trainer
from support.ranks import needs_gloo, run_ranks

pytestmark = needs_gloo

SIZE, BATCH, STEPS, RANKS = 203, 8, 5, 2


def broken_off(skipped_by: list[list[int]], moves_on: bool) -> dict[str, Any]:
    pruner = InfoBatch(SIZE, 9, delta=1.0, batch_size=BATCH, steps_per_epoch=STEPS)
    trainer, skipped = Trainer(pruner), skipped_by[pruner.rank]
    lengths, places = [], []
    for iteration in range(4):
        if moves_on:
            pruner.set_epoch(iteration)
        for step, batch in enumerate(itertools.islice(pruner.sampler.batches(BATCH), 4 if iteration < 2 else STEPS)):
            if iteration > 1 or step not in skipped:
                trainer.step(batch)
            taken = step + 1
        lengths.append(taken)
        places.append((pruner.epoch, pruner.sampler.state_dict()["drawn"]))
    return {"lengths": lengths, "places": places}


@pytest.mark.parametrize("moves_on", [False, True], ids=["one epoch", "set_epoch"])
@pytest.mark.parametrize("skipped", [[[], [1]], [[0, 1, 2, 3], []], [[3], [0, 2]]], ids=str)
def test_ranks_go_back_to_the_same_place_though_losses_of_one_are_missing(skipped: list[list[int]], moves_on: bool) -> None:
    first, second = run_ranks(RANKS, broken_off, skipped, moves_on)
    assert first == second
    assert all(1 <= length <= STEPS for length in first["lengths"])
