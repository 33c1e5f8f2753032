"""Epochs of constant length: loops that are left, batches without losses and restarts, in any order, and every iteration ends."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infobatch_fast import InfoBatch
from support.runs import ARBITRARY, loss_of, record

pytestmark = ARBITRARY

EPOCHS, BATCH, STEPS = 9, 8, 5


def pruner_of(size: int, device: torch.device) -> InfoBatch:
    return InfoBatch(size, EPOCHS, delta=1.0, batch_size=BATCH, steps_per_epoch=STEPS, device=device)


def train(pruner: InfoBatch, scored: Sequence[int], breaks: bool) -> list[list[int]]:
    """One batch for each number in ``scored``, of which that many losses come; then breaks off, or goes on to the end."""
    visited: list[list[int]] = []
    for step, batch in enumerate(pruner.sampler.batches(BATCH)):
        visited.append(batch)
        assert len(visited) <= STEPS, "the iteration has no end"
        ids = batch[: scored[step] if step < len(scored) else BATCH]
        if ids:
            record(pruner, ids, loss_of(torch.tensor(ids), len(visited)))
        if breaks and len(visited) == len(scored):
            break
    return visited


def peek(pruner: InfoBatch) -> list[list[int]]:
    return list(itertools.islice(pruner.sampler.batches(BATCH), STEPS + 1))


def restarted(pruner: InfoBatch) -> InfoBatch:
    other = pruner_of(pruner.num_samples, pruner.device)
    other.load_state_dict(copy.deepcopy(pruner.state_dict()))
    return other


ITERATIONS = st.lists(
    st.tuples(
        st.lists(st.sampled_from([BATCH, BATCH, 3, 0]), min_size=1, max_size=STEPS),
        st.sampled_from(["break", "break", "exhaust", "restart", "set_epoch"]),
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.slow
def test_any_sequence_of_iterations_trained_skipped_half_scored_broken_off_and_restarted_ends(device: torch.device) -> None:
    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(size=st.sampled_from([1, 5, 20, 33, 130]), iterations=ITERATIONS)
    def check(size: int, iterations: list[tuple[list[int], str]]) -> None:
        pruner = pruner_of(size, device)
        for epoch, (scored, then) in enumerate(iterations):
            visited = train(pruner, scored, breaks=then != "exhaust")
            assert all(len(batch) == BATCH for batch in visited), "an epoch is a number of whole batches"
            if then == "exhaust":
                assert len(pruner.sampler.batches(BATCH)) == STEPS
            elif then == "restart":
                pruner = restarted(pruner)
            elif then == "set_epoch":
                pruner.set_epoch(epoch + 1)
            elif len(visited) < len(scored):
                assert len(pruner.sampler.batches(BATCH)) == STEPS, "the epoch was over before"
            elif size > STEPS * BATCH:  # in smaller ones a sample is drawn under several plans before any loss comes
                if any(scored):
                    assert peek(restarted(pruner)) == peek(pruner), "what was not trained on comes again, as after a restart"
                else:
                    assert peek(pruner)[: len(visited)] == visited, "nothing was trained on, so the same comes again"
        assert 1 <= len(peek(pruner)) <= STEPS

    check()


def test_an_iteration_ends_though_a_batch_without_losses_and_a_loop_that_was_left_came_before(device: torch.device) -> None:
    pruner = pruner_of(20, device)
    train(pruner, [BATCH], breaks=True)
    train(pruner, [0, BATCH, BATCH, BATCH], breaks=True)
    assert 1 <= len(train(pruner, [], breaks=False)) <= STEPS
    assert len(train(pruner, [], breaks=False)) == STEPS


def test_a_batch_sampler_goes_on_in_whole_batches_at_the_place_of_a_plain_sampler(device: torch.device) -> None:
    for drawn in range(2 * BATCH):
        ids = iter(pruner_of(130, device).sampler)
        before = list(itertools.islice(ids, drawn))
        pruner = pruner_of(130, device)
        batches = pruner.sampler.batches(BATCH)
        batches.load_state_dict({"epoch": 0, "position": drawn, "drawn": drawn})
        after = peek(pruner)
        assert len(after) == STEPS - drawn // BATCH
        assert all(len(batch) == BATCH for batch in after)
        whole = pruner_of(130, device).sampler
        assert [*before, *itertools.chain(*after)][: STEPS * BATCH] == list(whole)


def test_ids_that_were_trained_on_one_by_one_leave_whole_batches_to_a_batch_sampler(device: torch.device) -> None:
    pruner = pruner_of(130, device)
    for sample in itertools.islice(pruner.sampler, 3):
        record(pruner, [sample], [1.0])
    assert [len(batch) for batch in peek(pruner)] == [BATCH] * STEPS


def test_an_epoch_that_is_no_whole_number_of_batches_is_an_error_and_no_endless_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    pruner = pruner_of(20, torch.device("cpu"))
    epochs: Any = pruner.engine.epochs
    epochs._clock.drawn = 3
    monkeypatch.setattr(type(epochs._clock), "align", lambda self, unit: None)
    with pytest.raises(RuntimeError, match=r"the 5 indices left of this epoch are not a whole number of batches of 8"):
        peek(pruner)
