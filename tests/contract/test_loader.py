"""Real DataLoaders: with and without workers, however they are started, each loss finds its sample and each plan is made once."""

import io
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, Subset

from infobatch_fast import InfoBatchBatchSampler, with_index
from support.items import SIZE, Batched, Items, assert_recorded, pruner_for, train_on
from support.loaders import KINDS, WORKER_WARNINGS
from support.runs import order

BATCH = 8
pytestmark = WORKER_WARNINGS

# ---- workers ----

LOADERS = {name: kind for name, kind in KINDS.items() if name != "spawned"}


@pytest.mark.parametrize("selects", [True, False], ids=["set_epoch", "no set_epoch"])
@pytest.mark.parametrize("kind", LOADERS)
def test_every_loss_finds_its_sample_and_a_plan_is_made_once_an_epoch(made: list[int], kind: str, selects: bool) -> None:
    dataset = Items()
    pruner = pruner_for(dataset)
    loader = DataLoader(with_index(dataset), batch_size=BATCH, sampler=pruner.sampler, **LOADERS[kind])
    for epoch in range(3):
        if selects:
            pruner.set_epoch(epoch)
        length = len(loader)
        visited = train_on(pruner, loader)
        assert pruner.epoch == epoch
        expected = pruner.stats
        assert len(visited) == len(set(visited)) == expected.kept
        assert -(-len(visited) // BATCH) == length
        assert_recorded(pruner, visited, epoch)
        assert expected.scored == len(visited)
    assert made == [0, 1, 2]
    assert pruner.stats.kept < SIZE


@pytest.mark.parametrize(("kind", "iterations"), [("no workers", 3), ("two workers", 6), ("persistent", 4)])
def test_workers_call_iter_twice_before_the_first_batch_and_it_is_one_epoch(
    made: list[int], monkeypatch: pytest.MonkeyPatch, kind: str, iterations: int
) -> None:
    calls = []
    method = InfoBatchBatchSampler.__iter__
    monkeypatch.setattr(InfoBatchBatchSampler, "__iter__", lambda self: calls.append(self) or method(self))
    dataset = Items()
    pruner, reference = pruner_for(dataset), pruner_for(dataset)
    loader = DataLoader(with_index(dataset), batch_sampler=pruner.sampler.batches(BATCH), **LOADERS[kind])
    plain = DataLoader(with_index(dataset), BATCH, sampler=reference.sampler)
    for _ in range(3):
        assert train_on(pruner, loader) == train_on(reference, plain)
    assert len(calls) == iterations
    assert made == [0, 0, 1, 1, 2, 2]


def test_the_order_is_the_plans_however_it_is_loaded() -> None:
    dataset = Items()
    orders = []
    for kind in ("no workers", "two workers"):
        for use in ("sampler", "batches", "torch.BatchSampler"):
            pruner = pruner_for(dataset)
            batching: dict[str, Any] = {
                "sampler": {"sampler": pruner.sampler, "batch_size": BATCH},
                "batches": {"batch_sampler": pruner.sampler.batches(BATCH)},
                "torch.BatchSampler": {"batch_sampler": BatchSampler(pruner.sampler, BATCH, drop_last=False)},
            }[use]
            loader = DataLoader(with_index(dataset), **batching, **LOADERS[kind])
            epochs = []
            for _ in range(2):
                length = len(loader)
                epochs.append(train_on(pruner, loader))
                assert length == -(-len(epochs[-1]) // BATCH)
            orders.append(epochs)
    assert orders == orders[:1] * 6
    reference = pruner_for(dataset)
    assert orders[0][0] == order(reference)


def test_workers_may_be_spawned() -> None:
    dataset = Subset(Batched(2 * SIZE), range(SIZE, 2 * SIZE))
    pruner = pruner_for(dataset)
    loader = DataLoader(
        with_index(dataset), BATCH, sampler=pruner.sampler, num_workers=2, multiprocessing_context="spawn", persistent_workers=True
    )
    for epoch in range(2):
        pruner.set_epoch(epoch)
        for index, items in loader:
            assert torch.equal(items[:, 0], 100.0 + SIZE + index)
            pruner.update(index, items[:, 0])
        assert pruner.stats.scored == pruner.stats.kept
    assert pruner.scores().tolist() == [100.0 + SIZE + sample for sample in range(SIZE)]


@pytest.mark.parametrize("kind", ["no workers", "persistent"])
def test_abandoned_iterators_change_nothing(made: list[int], kind: str) -> None:
    dataset = Items(10 * SIZE)
    pruner, reference = pruner_for(dataset), pruner_for(dataset)
    loader = DataLoader(with_index(dataset), BATCH, sampler=pruner.sampler, **LOADERS[kind])
    next(iter(loader))
    iter(loader)
    abandoned = iter(loader)
    assert next(abandoned)[0].tolist() == order(reference)[:BATCH]
    assert train_on(pruner, loader, steps=2) == order(reference)[: 2 * BATCH]
    assert (pruner.epoch, len(loader)) == (0, -(-10 * SIZE // BATCH))
    assert train_on(pruner, loader) == order(reference)
    assert made == [0, 0]


def test_a_next_epoch_may_begin_while_the_last_batches_are_in_flight() -> None:
    # As with loaders that repeat their sampler for ever, so that workers never run dry between epochs.
    dataset = Items()
    pruner = pruner_for(dataset)

    class Repeated:
        def __iter__(self) -> Iterator[list[int]]:
            while True:
                yield from pruner.sampler.batches(BATCH)

    loader = DataLoader(with_index(dataset), batch_sampler=Repeated(), num_workers=2)  # type: ignore[arg-type]
    visited = [index for index, items in itertools.islice(loader, 40) if pruner.update(index, items[:, 0]) is not None]
    assert pruner.epoch >= 2
    assert sorted(torch.cat(visited[:12]).tolist()) == list(range(SIZE)), "first the whole of epoch 0"
    assert_recorded(pruner, list(range(SIZE)))


# ---- what trainers look at ----


def test_the_sampler_is_a_distributed_sampler_that_trainers_leave_alone() -> None:
    dataset = Items()
    pruner = pruner_for(dataset, seed=5)
    batches = pruner.sampler.batches(BATCH, drop_last=True)
    for sampler in (pruner.sampler, batches):
        assert isinstance(sampler, DistributedSampler)
        assert sampler.dataset is dataset
        assert (sampler.num_replicas, sampler.rank, sampler.epoch, sampler.shuffle, sampler.seed) == (1, 0, 0, True, 5)
        assert (sampler.num_samples, sampler.total_size) == (SIZE, SIZE)
        sampler.set_epoch(3)
        assert pruner.epoch == sampler.epoch == 3
        sampler.set_epoch(0)
    assert batches.sampler is pruner.sampler
    assert (batches.batch_size, batches.drop_last, pruner.sampler.drop_last) == (BATCH, True, False)
    loader = DataLoader(with_index(dataset), BATCH, sampler=pruner.sampler)
    assert loader.sampler is pruner.sampler


def test_drop_last_leaves_out_the_smaller_batch() -> None:
    dataset = Items()
    for use_batches in (False, True):
        pruner = pruner_for(dataset)
        batching: Any = {"sampler": pruner.sampler, "batch_size": BATCH, "drop_last": True}
        if use_batches:
            batching = {"batch_sampler": pruner.sampler.batches(BATCH, drop_last=True)}
        loader = DataLoader(with_index(dataset), **batching)
        for epoch in range(2):
            pruner.set_epoch(epoch)
            length = len(loader)
            visited = train_on(pruner, loader)
            assert len(visited) == length * BATCH == pruner.stats.kept // BATCH * BATCH


def test_a_checkpoint_in_the_middle_of_a_loader_with_workers() -> None:
    dataset = Items()
    pruner = pruner_for(dataset)
    loader = DataLoader(with_index(dataset), BATCH, sampler=pruner.sampler, **LOADERS["persistent"])
    train_on(pruner, loader)
    visited = train_on(pruner, loader, steps=3)
    expected = order(pruner)
    file = io.BytesIO()
    torch.save(pruner.state_dict(), file)
    del loader
    file.seek(0)
    again = pruner_for(dataset)
    again.load_state_dict(torch.load(file, weights_only=True))
    loader = DataLoader(with_index(dataset), BATCH, sampler=again.sampler, **LOADERS["two workers"])
    rest = train_on(again, loader)
    assert again.epoch == 1
    assert visited + rest == expected
    assert_recorded(again, expected, epoch=1)
