"""The contract, sentence by sentence: which epoch it is, and how long."""

import pytest
import torch

from infobatch_fast import InfoBatch
from support.runs import ARBITRARY, kept_set, loss_of, order, pruner_of, record, record_all, snapshot, train

pytestmark = ARBITRARY

# ---- len ----


@pytest.mark.parametrize("selects", [True, False], ids=["set_epoch", "no set_epoch"])
def test_len_is_exact_before_each_iteration(device: torch.device, selects: bool) -> None:
    pruner = pruner_of(device)
    batches = pruner.sampler.batches(7)
    lengths = set()
    for epoch in range(6):
        if selects:
            pruner.set_epoch(epoch)
        length, num_batches = len(pruner.sampler), len(batches)
        assert pruner.epoch == epoch
        visited = train(pruner, batch_size=7)
        assert (len(visited), -(-len(visited) // 7)) == (length, num_batches)
        assert len(set(visited)) == length == pruner.stats.kept or not selects
        lengths.add(length)
    assert len(lengths) > 3


def test_len_of_batches_counts_the_last_smaller_one_unless_it_is_dropped(device: torch.device) -> None:
    pruner = pruner_of(device)
    for drop_last, length in ((False, 43), (True, 42)):
        batches = pruner.sampler.batches(7, drop_last)
        assert len(batches) == length
        pruner.set_epoch(0)
        assert sum(1 for _ in batches) == length
        pruner.set_epoch(0)
        assert [len(batch) for batch in batches] == [7] * 42 + [6] * (not drop_last)


def test_without_set_epoch_len_moves_on_when_the_iteration_is_exhausted_and_all_its_losses_are_in(device: torch.device) -> None:
    pruner = pruner_of(device)
    ids = list(pruner.sampler)  # as loaders with workers do, which exhaust the sampler long before the last loss
    for part in torch.tensor(ids).split(64):
        assert (len(pruner.sampler), pruner.epoch) == (300, 0)
        record(pruner, part, loss_of(part))
    assert len(pruner.sampler) < 300
    assert pruner.epoch == 1


def test_without_set_epoch_len_moves_on_though_a_last_batch_was_dropped(device: torch.device) -> None:
    pruner = pruner_of(device)
    batches = pruner.sampler.batches(7, drop_last=True)
    for epoch in range(4):
        length = len(batches)
        assert pruner.epoch == epoch
        steps = 0
        for batch in batches:
            record(pruner, batch, loss_of(torch.tensor(batch), epoch))
            steps += 1
        assert steps == length == pruner.stats.kept // 7


def test_without_set_epoch_len_moves_on_after_the_rest_of_an_epoch_at_whose_middle_a_loader_went_on(device: torch.device) -> None:
    pruner = pruner_of(device)
    pruner.sampler.load_state_dict({"epoch": 0, "position": 200})
    rest = list(pruner.sampler)
    record(pruner, rest, [1.0] * len(rest))
    assert len(rest) == 100
    assert len(pruner.sampler) == pruner.stats.kept
    assert pruner.epoch == 1


def test_len_stays_for_somebody_who_called_set_epoch_until_the_next_epoch_or_iteration(device: torch.device) -> None:
    pruner = pruner_of(device)
    pruner.set_epoch(0)
    train(pruner)
    assert (len(pruner.sampler), pruner.epoch) == (300, 0)  # asked in the last step, for instance by a progress bar
    pruner.set_epoch(1)
    assert len(pruner.sampler) < 300


def test_all_ranks_yield_the_same_number_of_indices_trivially_where_there_is_one(device: torch.device) -> None:
    for drop_last in (False, True):
        pruner = pruner_of(device, drop_last=drop_last)
        record_all(pruner)
        pruner.set_epoch(1)
        sampler = pruner.sampler
        assert (sampler.num_replicas, sampler.rank, sampler.drop_last) == (1, 0, drop_last)
        assert sampler.num_samples == sampler.total_size == len(sampler) == pruner.stats.kept


# ---- which epoch ----


def test_set_epoch_selects_an_epoch_as_in_distributed_sampler(device: torch.device) -> None:
    pruner = pruner_of(device)
    orders = {}
    for epoch in (0, 5, 3):
        pruner.sampler.set_epoch(epoch)
        assert (pruner.epoch, pruner.sampler.epoch, pruner.stats.epoch) == (epoch,) * 3
        orders[epoch] = list(pruner.sampler)
        pruner.sampler.set_epoch(epoch)
        assert list(pruner.sampler) == orders[epoch], "the same epoch again"
    assert len({tuple(ids) for ids in orders.values()}) == 3
    other = pruner_of(device)
    other.set_epoch(3)
    assert list(other.sampler) == orders[3], "whatever came before"


def test_each_epoch_comes_in_a_new_order_and_without_shuffle_in_that_of_the_indices(device: torch.device) -> None:
    for shuffle in (True, False):
        pruner = pruner_of(device, shuffle=shuffle)
        record_all(pruner)
        pruner.set_epoch(1)
        ids = list(pruner.sampler)
        assert sorted(ids) == kept_set(pruner)
        assert (ids == sorted(ids)) is not shuffle


def test_without_set_epoch_the_epoch_moves_on_when_an_iteration_was_exhausted(device: torch.device) -> None:
    by_itself, selected = pruner_of(device), pruner_of(device)
    for epoch in range(4):
        selected.set_epoch(epoch)
        assert train(by_itself) == train(selected)
        assert by_itself.epoch == epoch
        assert selected.epoch == epoch
    assert snapshot(by_itself) == snapshot(selected)


def test_a_new_iteration_after_an_exhausted_one_moves_on_though_losses_are_missing(device: torch.device) -> None:
    pruner = pruner_of(device)
    first = list(pruner.sampler)
    assert pruner.epoch == 0
    assert list(pruner.sampler) != first
    assert pruner.epoch == 1


def test_batches_and_sampler_move_on_together(device: torch.device) -> None:
    pruner = pruner_of(device)
    batches = pruner.sampler.batches(8)
    for epoch, iterable in enumerate((batches, pruner.sampler, batches)):
        list(iterable)
        assert pruner.epoch == batches.epoch == epoch


# ---- after load_state_dict ----


def restored(device: torch.device, epoch: int, steps: int) -> tuple[InfoBatch, list[int]]:
    """A pruner that goes on in ``epoch`` after ``steps`` batches, and the indices that are left."""
    saved = pruner_of(device)
    for past in range(epoch):
        saved.set_epoch(past)
        train(saved)
    saved.set_epoch(epoch)
    visited = train(saved, steps=steps)
    pruner = pruner_of(device)
    pruner.load_state_dict(saved.state_dict())
    return pruner, order(saved)[len(visited) :]


def test_after_load_state_dict_a_set_epoch_to_an_earlier_epoch_is_ignored(device: torch.device, made: list[int]) -> None:
    pruner, rest = restored(device, epoch=3, steps=5)
    made.clear()
    pruner.sampler.set_epoch(0)  # accelerate, after a restart
    assert pruner.epoch == 3
    for past in (0, 1, 2, 3):  # Composer, which spins through the old epochs
        pruner.set_epoch(past)
        iter(pruner.sampler)
        assert pruner.epoch == 3
    assert made == []
    assert train(pruner) == rest
    pruner.set_epoch(4)
    assert len(pruner.sampler) == pruner.stats.kept
    assert made == [4]


def test_spinning_through_past_epochs_changes_nothing_though_prefetching_workers_exhaust_them(device: torch.device) -> None:
    pruner, rest = restored(device, epoch=3, steps=5)
    for past in range(4):
        pruner.set_epoch(past)
        assert list(pruner.sampler) == rest
    pruner.set_epoch(3)
    assert train(pruner) == rest


def test_a_trainer_that_counts_from_zero_after_a_restart_never_goes_back(device: torch.device) -> None:
    pruner, rest = restored(device, epoch=2, steps=5)
    epochs = []
    for count in range(5):
        pruner.set_epoch(count)
        visited = train(pruner)
        epochs.append(pruner.epoch)
        if count == 0:
            assert visited == rest
    assert epochs == [2, 3, 4, 5, 6]
