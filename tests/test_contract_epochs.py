"""The contract, sentence by sentence: epochs, lengths, and when a plan is made."""

import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from runs import decisions, kept_set, loss_of, order, record, record_all, snapshot, train

from infobatch_fast import InfoBatch
from infobatch_fast import sampler as sampler_module
from infobatch_fast.plan import Planner

SIZE = 300


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Epochs of the plans that are made during the test."""
    epochs: list[int] = []
    make = Planner.make

    def counting(self: Planner, epoch: int, *args: Any) -> Any:
        epochs.append(epoch)
        return make(self, epoch, *args)

    monkeypatch.setattr(Planner, "make", counting)
    return epochs


def pruner_of(device: torch.device, **kwargs: Any) -> InfoBatch:
    return InfoBatch(SIZE, 10, delta=1.0, device=device, **kwargs)


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
        assert (len(pruner.sampler), pruner.epoch) == (SIZE, 0)
        record(pruner, part, loss_of(part))
    assert len(pruner.sampler) < SIZE
    assert pruner.epoch == 1


def test_len_stays_for_somebody_who_called_set_epoch_until_the_next_epoch_or_iteration(device: torch.device) -> None:
    pruner = pruner_of(device)
    pruner.set_epoch(0)
    train(pruner)
    assert (len(pruner.sampler), pruner.epoch) == (SIZE, 0)  # asked in the last step, for instance by a progress bar
    pruner.set_epoch(1)
    assert len(pruner.sampler) < SIZE


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
        assert decisions(selected)["epoch"] == epoch
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


# ---- when a plan is made ----

FIRST_CALLS: dict[str, Callable[[InfoBatch], object]] = {
    "next": lambda pruner: next(iter(pruner.sampler)),
    "len": lambda pruner: len(pruner.sampler),
    "update": lambda pruner: record(pruner, [1], [1.0]),
    "weights": lambda pruner: pruner.weights([1]),
    "is_kept": lambda pruner: pruner.is_kept(1),
    "stats": lambda pruner: pruner.stats,
}


@pytest.mark.parametrize("first", FIRST_CALLS)
def test_a_plan_is_made_once_an_epoch_at_the_first_call_that_needs_it(device: torch.device, made: list[int], first: str) -> None:
    pruner = pruner_of(device)
    for epoch in (0, 1, 4):
        made.clear()
        pruner.set_epoch(epoch)
        FIRST_CALLS[first](pruner)
        assert made == [epoch]
        for call in FIRST_CALLS.values():
            call(pruner)
            pruner.set_epoch(epoch)
        train(pruner)
        assert made == [epoch]


def test_a_plan_is_never_made_in_iter_nor_in_set_epoch(device: torch.device, made: list[int]) -> None:
    pruner = pruner_of(device)
    iterators = []
    for epoch in range(3):
        pruner.set_epoch(epoch)
        iterators += [iter(pruner.sampler), iter(pruner.sampler), iter(pruner.sampler.batches(8))]
        pruner.state_dict()
        pruner.sampler.state_dict()
        repr(pruner)
    assert made == []
    next(iterators[-1])
    assert made == [2]


def test_peeking_at_a_batch_a_second_iter_and_a_broken_off_epoch_change_nothing(device: torch.device, made: list[int]) -> None:
    pruner, reference = pruner_of(device), pruner_of(device)
    for epoch in range(3):
        expected = order(reference)
        next(iter(pruner.sampler))
        iterator = iter(pruner.sampler)
        assert [next(iterator) for _ in range(100)] == expected[:100]
        batches = iter(pruner.sampler.batches(8))
        next(batches)
        iter(pruner.sampler)
        assert (pruner.epoch, len(pruner.sampler)) == (epoch, len(expected))
        assert train(pruner) == expected == train(reference)
        assert snapshot(pruner) == snapshot(reference)
    assert made == [0, 0, 1, 1, 2, 2]


def test_a_broken_off_epoch_starts_again_with_the_same_plan_though_losses_were_recorded(device: torch.device) -> None:
    pruner = pruner_of(device)
    record_all(pruner)
    pruner.set_epoch(1)
    expected = order(pruner)
    assert train(pruner, steps=5) == expected[:40]
    assert (pruner.epoch, len(pruner.sampler)) == (1, len(expected))
    assert train(pruner) == expected


def test_a_plan_may_be_made_while_the_last_batches_are_unscored(device: torch.device) -> None:
    pruner = pruner_of(device)
    train(pruner)
    pruner.set_epoch(1)
    before = pruner.scores()
    batches = list(pruner.sampler.batches(8))
    for batch in batches[:-2]:
        record(pruner, batch, [0.5] * len(batch))
    late = torch.tensor([*batches[-2], *batches[-1]])
    pruner.set_epoch(2)
    assert next(iter(pruner.sampler)) >= 0
    assert torch.equal(pruner.scores(late), before[late.to(before.device)]), "they keep their previous scores"
    record(pruner, late, [0.25] * len(late))  # under the new plan
    assert (pruner.scores(late) == 0.25).all()
    pruner.set_epoch(3)
    assert pruner.stats.seen == SIZE


def test_an_iterator_of_a_past_epoch_says_so_instead_of_yielding_other_samples(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler_module, "CHUNK", 64)
    pruner = pruner_of(device)
    iterator = iter(pruner.sampler)
    next(iterator)
    pruner.set_epoch(1)
    len(pruner.sampler)
    with pytest.raises(RuntimeError, match="this iterator belongs to epoch 0, but the sampler has moved on to epoch 1"):
        list(iterator)


def test_the_order_does_not_depend_on_the_pieces_in_which_it_is_computed(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruner = pruner_of(device)
    expected = order(pruner)
    for chunk in (1, 5, 8, 299, 300, 301):
        monkeypatch.setattr(sampler_module, "CHUNK", chunk)
        for iterable in (pruner.sampler, pruner.sampler.batches(1), pruner.sampler.batches(7), pruner.sampler.batches(400)):
            pruner.set_epoch(0)
            ids: list[int] = []
            for element in iterable:
                assert type(element) in (int, list)
                ids += [element] if isinstance(element, int) else element
            assert ids == expected
    assert pruner.sampler.indices(17, 42).tolist() == expected[17:42]
    assert pruner.sampler.indices(stop=3).tolist() == expected[:3]
    assert pruner.sampler.indices(300).tolist() == []


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


# ---- nobody else's state ----


def test_the_users_random_generators_are_never_touched(device: torch.device) -> None:
    def states() -> list[Any]:
        legacy = np.random.get_state()  # noqa: NPY002
        of_cuda = torch.cuda.get_rng_state(device).tolist() if device.type == "cuda" else None
        return [torch.get_rng_state().tolist(), of_cuda, random.getstate(), str(legacy)]

    before = states()
    pruner = pruner_of(device)
    for _ in range(3):
        train(pruner)
    pruner.load_state_dict(pruner.state_dict())
    assert pruner.stats.epoch == 2
    assert states() == before


WATCH = """
import torch
import torch.utils.data as data
from torch.utils.data._utils import collate, fetch, worker

modules = [torch, torch.nn.functional, data, data.dataloader, data.sampler, data.distributed, collate, fetch, worker]
classes = [torch.Tensor, *(c for m in modules[2:] for c in vars(m).values() if isinstance(c, type))]
owners = [*modules, *classes]
watched = lambda: [{k: id(v) for k, v in vars(owner).items() if not k.startswith("__")} for owner in owners]
before = watched()
import infobatch_fast
pruner = infobatch_fast.InfoBatch(range(10), 3)
loader = data.DataLoader(infobatch_fast.with_index(range(10)), 4, sampler=pruner.sampler)
for index, x in loader:
    pruner.update(index, x.float())
assert pruner.stats.scored == 10
changed = [str(owner) for owner, old, new in zip(owners, before, watched()) if old != new]
assert not changed, changed
"""


def test_nothing_is_monkeypatched() -> None:
    subprocess.run([sys.executable, "-c", WATCH], check=True)
