"""Epochs of constant length and without end: a run that is cut goes on as if it had not been."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from infobatch_fast import InfoBatch
from support.flows import BATCH, EPOCHS, SIZE, STEPS, Trainer, ahead, constant, endless, first_difference
from support.restarts import saved
from support.runs import train


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 3, 12])
@pytest.mark.parametrize("kind", [constant, endless])
def test_a_run_that_is_cut_at_any_step_goes_on_bit_for_bit(device: torch.device, kind: Any, count: int) -> None:
    reference = Trainer(kind(device))
    total = 100
    for _ in range(-(-total // STEPS) if kind is constant else 1):
        for batch in itertools.islice(ahead(reference.pruner.sampler.batches(BATCH), count), total):
            reference.step(batch)
    total = len(reference.visited)
    for cut in range(1, 90, 1 if count else 5):
        trainer = Trainer(kind(device))
        file = None
        while file is None:
            for batch in ahead(trainer.pruner.sampler.batches(BATCH), count):
                trainer.step(batch)
                if len(trainer.visited) == cut * BATCH:
                    file = saved(trainer.pruner)
                    break
        trainer.pruner = kind(device)
        trainer.pruner.load_state_dict(torch.load(file, weights_only=True))
        assert trainer.pruner.progress == pytest.approx(cut * BATCH / (EPOCHS * STEPS * BATCH)) or kind is endless
        first = True
        while len(trainer.visited) < total:
            trainer.pruner.set_epoch(0)  # accelerate, after a restart
            steps = 0
            for batch in itertools.islice(
                ahead(trainer.pruner.sampler.batches(BATCH), count), (total - len(trainer.visited)) // BATCH
            ):
                trainer.step(batch)
                steps += 1
            if kind is constant:
                assert steps == (STEPS - cut % STEPS if first else STEPS), "the cut epoch gets its remaining steps"
                first = False
        assert first_difference(trainer.visited, reference.visited) is None, cut
        assert first_difference(trainer.weights, reference.weights) is None, cut


def test_spinning_through_past_epochs_after_a_restart_changes_nothing(device: torch.device) -> None:
    trainer, reference = Trainer(constant(device)), Trainer(constant(device))
    for each in (trainer, reference):
        for _ in range(2):
            for batch in each.pruner.sampler.batches(BATCH):
                each.step(batch)
        for batch in itertools.islice(each.pruner.sampler.batches(BATCH), 4):
            each.step(batch)
    file = saved(trainer.pruner)
    trainer.pruner = constant(device)
    trainer.pruner.load_state_dict(torch.load(file, weights_only=True))
    for past in range(2):
        trainer.pruner.set_epoch(past)
        list(itertools.islice(trainer.pruner.sampler.batches(BATCH), 2))
        trainer.pruner.set_epoch(past)
        list(trainer.pruner.sampler.batches(BATCH))  # prefetching workers exhaust them
    trainer.pruner.set_epoch(2)
    for _ in range(2):
        for each in (trainer, reference):
            for batch in each.pruner.sampler.batches(BATCH):
                each.step(batch)
    assert first_difference(trainer.visited, reference.visited) is None


def test_a_samplers_own_state_is_a_few_ints_and_a_loader_goes_on_by_it(device: torch.device) -> None:
    pruner = constant(device)
    train(pruner, BATCH)
    batches = pruner.sampler.batches(BATCH)
    iterator = iter(batches)
    for step in range(1, 6):
        next(iterator)
        assert batches.state_dict() == {"epoch": 0, "position": (STEPS + step) * BATCH, "drawn": (STEPS + step) * BATCH}
    rest = list(iterator)
    state = {"epoch": 0, "position": (STEPS + 5) * BATCH, "drawn": (STEPS + 5) * BATCH}
    again = constant(device)
    other = again.sampler.batches(BATCH)
    other.load_state_dict(state)
    assert other.state_dict() == state
    assert list(other) == rest
    assert len(list(other)) == STEPS


def test_a_checkpoint_of_a_run_with_dynamic_epochs_goes_on_in_both_modes_and_back(device: torch.device) -> None:
    old = InfoBatch(SIZE, EPOCHS, delta=0.75, seed=3, device=device)
    train(old, BATCH)
    state = old.state_dict()
    for kind in (constant, endless):
        pruner = kind(device)
        pruner.load_state_dict({name: value.clone() if hasattr(value, "clone") else value for name, value in state.items()})
        list(itertools.islice(pruner.sampler.batches(BATCH), 5))
        back = InfoBatch(SIZE, EPOCHS, delta=0.75, seed=3, device=device)
        back.load_state_dict(pruner.state_dict())
        assert back.epoch == pruner.epoch
