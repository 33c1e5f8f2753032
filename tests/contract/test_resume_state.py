"""What ``state_dict`` and the sampler's own state promise."""

import json
from typing import Any

import pytest
import torch

from infobatch_fast import InfoBatch
from support.restarts import BATCH, SIZE, run_of, saved, sealed
from support.runs import ARBITRARY, loss_of, order, record, snapshot, train

# ---- state_dict ----


def test_state_dict_has_no_side_effects(device: torch.device, made: list[int]) -> None:
    pruner, reference = run_of(device), run_of(device)
    for epoch in range(3):
        pruner.set_epoch(epoch)
        reference.set_epoch(epoch)
        pruner.state_dict()
        assert made.count(epoch) == 0
        visited: list[int] = []
        for batch in pruner.sampler.batches(BATCH):
            pruner.state_dict()
            pruner.sampler.state_dict()
            record(pruner, batch, loss_of(torch.tensor(batch), epoch))
            pruner.state_dict()
            visited += batch
        assert visited == train(reference, BATCH)
        assert snapshot(pruner) == snapshot(reference)
        assert made.count(epoch) == 2


def test_state_dict_aliases_the_live_tables(device: torch.device) -> None:
    pruner = run_of(device, shuffle=False)
    len(pruner.sampler)
    state = pruner.state_dict()
    marks = state["marks"].clone()
    record(pruner, [7], [0.75])
    assert state["scores"][7] == 0.75
    assert not torch.equal(state["marks"], marks)
    for name in ("scores", "marks"):
        assert state[name].data_ptr() == pruner.state_dict()[name].data_ptr()
        assert state[name].device == pruner.device


def test_a_checkpoint_takes_4_75_bytes_a_sample(device: torch.device) -> None:
    pruner = run_of(device, size=100_000)
    len(pruner.sampler)
    tensors = [value for value in pruner.state_dict().values() if isinstance(value, torch.Tensor)]
    assert sum(tensor.untyped_storage().nbytes() for tensor in tensors) < 4.8 * 100_000
    assert saved(pruner).getbuffer().nbytes < 4.8 * 100_000


def test_loading_leaves_nothing_of_what_was_there_before(device: torch.device) -> None:
    pruner, other = run_of(device), run_of(device)
    train(pruner, BATCH, steps=2)
    train(other, BATCH)
    other.set_epoch(3)
    train(other, BATCH, steps=1)
    record(other, [1000], [1.0])  # a bad index that is not reported yet
    iterator = iter(other.sampler)
    next(iterator)
    file = saved(pruner)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert snapshot(other) == snapshot(pruner)
    assert other.sampler.state_dict() == {"epoch": 0, "position": 0}
    assert train(other, BATCH) == order(pruner)[2 * BATCH :]


def test_any_nan_in_a_state_is_an_unseen_sample(device: torch.device) -> None:
    """Also one with its sign set, as 0 / 0 leaves it on x86: its sample must not pass for one with a low score."""
    pruner = InfoBatch(64, num_epochs=10, device=device)
    scores = torch.arange(64.0)
    scores.view(torch.int32)[:32] = 0x7FC00000 - 2**31  # a NaN with its sign set
    assert scores[:32].isnan().all()
    pruner.load_state_dict(sealed({**pruner.state_dict(), "scores": scores.to(device)}))
    pruner.set_epoch(1)
    assert pruner.stats.tier_sizes == (48, 16)  # the mean is 47.5


def test_a_state_may_be_loaded_into_the_pruner_that_it_came_from(device: torch.device) -> None:
    pruner, reference = run_of(device), run_of(device)
    for each in (pruner, reference):
        train(each, BATCH, steps=2)
    pruner.load_state_dict(pruner.state_dict())
    assert snapshot(pruner) == snapshot(reference)
    assert train(pruner, BATCH) == order(reference)[2 * BATCH :]


# ---- the sampler's own state ----


def test_the_samplers_state_is_a_few_bytes_and_json(device: torch.device) -> None:
    pruner = run_of(device)
    assert pruner.sampler.state_dict() == {"epoch": 0, "position": 0}
    iterator = iter(pruner.sampler)
    for position in range(1, SIZE + 1):
        next(iterator)
        assert pruner.sampler.state_dict() == {"epoch": 0, "position": position}
    batches = pruner.sampler.batches(BATCH)
    assert batches.state_dict() == {"epoch": 0, "position": 0}
    iterator_of_batches = iter(batches)
    for position in [*range(BATCH, SIZE, BATCH), SIZE]:
        next(iterator_of_batches)
        assert batches.state_dict() == {"epoch": 0, "position": position}
    state = pruner.sampler.state_dict()
    assert json.loads(json.dumps(state)) == state
    pruner.set_epoch(2)
    assert pruner.sampler.state_dict() == {"epoch": 2, "position": 0}


@pytest.mark.parametrize("batched", [False, True], ids=["sampler", "batches"])
def test_the_samplers_state_alone_resumes_at_the_position_once(device: torch.device, batched: bool) -> None:
    pruner = run_of(device)
    expected = order(pruner)
    for taken in (1, 3, 7):
        sampler: Any = pruner.sampler.batches(BATCH) if batched else pruner.sampler
        iterator = iter(sampler)
        for _ in range(taken):
            next(iterator)
        state = json.loads(json.dumps(sampler.state_dict()))
        fresh: Any = pruner.sampler.batches(BATCH) if batched else pruner.sampler
        fresh.load_state_dict(state)
        assert fresh.state_dict() == state, "and again, before it has gone on"
        iter(fresh)
        iter(fresh)  # as loaders with workers call it
        position = taken * BATCH if batched else taken
        resumed = [ids if batched else [ids] for ids in fresh]
        assert [sample for ids in resumed for sample in ids] == expected[position:]
        pruner.set_epoch(0)
        again = [ids if batched else [ids] for ids in fresh]
        assert [sample for ids in again for sample in ids] == expected, "a second iteration starts at the front"
        pruner.set_epoch(0)


def test_a_second_resume_in_the_same_epoch_lands_at_the_right_place(device: torch.device) -> None:
    sampler = run_of(device).sampler
    expected, taken = sampler.indices().tolist(), []
    for steps in (3, 5, 2):
        iterator = iter(sampler)
        taken += [next(iterator) for _ in range(steps)]
        assert sampler.state_dict() == {"epoch": 0, "position": len(taken)}
        sampler.load_state_dict(sampler.state_dict())
    assert taken == expected[:10]


def test_an_exhausted_state_is_followed_by_the_whole_next_epoch(device: torch.device) -> None:
    sampler = run_of(device).sampler
    list(sampler)
    state = sampler.state_dict()
    assert state == {"epoch": 0, "position": SIZE}
    again = run_of(device).sampler
    again.load_state_dict(state)
    assert len(list(again)) == SIZE
    assert again.epoch == 1
    again.load_state_dict(state)
    again.set_epoch(0)  # the trainer insists on it
    assert list(again) == []
    assert len(list(again)) == SIZE
    assert again.epoch == 1


@ARBITRARY
def test_a_position_is_of_its_epoch_alone(device: torch.device) -> None:
    pruner = run_of(device)
    pruner.sampler.load_state_dict({"epoch": 2, "position": 30})
    assert (pruner.epoch, pruner.sampler.state_dict()) == (2, {"epoch": 2, "position": 30})
    pruner.set_epoch(3)
    assert pruner.sampler.state_dict() == {"epoch": 3, "position": 0}
    assert len(list(pruner.sampler)) == SIZE


@pytest.mark.parametrize("sampler_first", [True, False])
def test_a_restored_pruner_and_a_restored_sampler_do_not_skip_twice(device: torch.device, sampler_first: bool) -> None:
    pruner = run_of(device)
    expected = order(pruner)
    visited = train(pruner, BATCH, steps=3)
    state, position = pruner.state_dict(), {"epoch": 0, "position": len(visited)}
    again = run_of(device)
    if sampler_first:
        again.sampler.load_state_dict(position)
    again.load_state_dict(state)
    if not sampler_first:
        again.sampler.load_state_dict(position)
    assert visited + train(again, BATCH) == expected
    again.set_epoch(1)
    assert len(list(again.sampler)) == again.stats.kept


@pytest.mark.parametrize("selects", [True, False], ids=["set_epoch", "no set_epoch"])
@pytest.mark.parametrize("sampler_first", [True, False])
def test_after_the_end_of_an_epoch_the_position_does_not_spoil_the_next(
    device: torch.device, sampler_first: bool, selects: bool
) -> None:
    pruner, reference = run_of(device), run_of(device)
    train(reference)
    list(pruner.sampler)
    position = pruner.sampler.state_dict()
    assert position == {"epoch": 0, "position": SIZE}
    pruner.set_epoch(0)
    train(pruner)
    again = run_of(device)
    if sampler_first:
        again.sampler.load_state_dict(position)
    again.load_state_dict(pruner.state_dict())
    if not sampler_first:
        assert again.stats.epoch == 1  # the plan is made
        again.sampler.load_state_dict(position)
    assert again.epoch == 1, "nothing is left of the first epoch"
    if selects:
        if sampler_first:
            again.set_epoch(0)
            assert list(again.sampler) == [], "nothing is left of it"
        again.set_epoch(1)
    assert again.sampler.epoch == 1
    assert train(again) == train(reference)
    assert again.epoch == 1
