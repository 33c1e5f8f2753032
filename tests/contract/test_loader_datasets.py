"""DataLoaders over all kinds of data sets and batches: indices are right, and each loss finds its sample."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader, Subset

from infobatch_fast import IndexedDataset, with_index
from support.items import SIZE, Batched, Dicts, Items, Stream, assert_recorded, collate_names, pruner_for, train_on
from support.loaders import WORKER_WARNINGS
from support.runs import order

BATCH = 8
pytestmark = WORKER_WARNINGS


def test_a_subset_is_wrapped_as_a_whole_and_indices_are_its_own() -> None:
    subset = Subset(Batched(1000), range(500, 500 + SIZE))
    pruner = pruner_for(subset)
    for index, items in DataLoader(with_index(subset), BATCH, sampler=pruner.sampler):
        assert torch.equal(items[:, 0], 600.0 + index)
        pruner.update(index, items[:, 0] - 500)
    assert_recorded(pruner, list(range(SIZE)))


def test_a_subset_of_the_wrapper_is_caught_by_its_ids_where_the_pruner_knows_a_number_alone() -> None:
    dataset = Items(1000)
    subset = Subset(with_index(dataset), range(500, 500 + SIZE))
    pruner = pruner_for(SIZE)
    for index, items in DataLoader(subset, BATCH, sampler=pruner.sampler):
        pruner.update(index, items[:, 0])
    with pytest.raises(IndexError, match=r"index: 90 out of range for 90 samples.*with_index\(Subset\(\.\.\.\)\)"):
        len(pruner.sampler)


def test_dict_items_go_through_the_default_collate_function() -> None:
    dataset = Dicts()
    pruner = pruner_for(dataset)
    for index, batch in DataLoader(with_index(dataset), BATCH, sampler=pruner.sampler, num_workers=1):
        assert batch["name"] == [f"sample {sample}" for sample in index.tolist()]
        pruner.update(index, batch["x"][:, 0])
    assert_recorded(pruner, list(range(SIZE)))


def test_a_collate_function_of_ones_own_gets_pairs_of_index_and_item() -> None:
    dataset = Dicts()
    pruner = pruner_for(dataset)
    for batch in DataLoader(with_index(dataset), BATCH, sampler=pruner.sampler, num_workers=1, collate_fn=collate_names):
        pruner.update(batch["ids"], batch["items"][:, 0])
    assert_recorded(pruner, list(range(SIZE)))


def test_a_stream_is_filtered_by_the_ids_of_its_samples() -> None:
    pruner = pruner_for(SIZE)
    kept = []
    for epoch in range(3):
        pruner.set_epoch(epoch)
        kept.append([])
        for sample, item in Stream():
            if pruner.is_kept(sample):
                pruner.update(sample, item[None])
                kept[-1].append(sample)
        assert len(kept[-1]) == pruner.stats.kept == pruner.stats.scored
    assert kept[0] == list(range(SIZE))
    assert len(kept[1]) < SIZE
    assert kept[1] != kept[2]


def test_with_index_forwards_getitems_once_a_batch() -> None:
    dataset = Batched()
    pruner = pruner_for(dataset)
    loader = DataLoader(with_index(dataset), BATCH, sampler=pruner.sampler)
    visited = train_on(pruner, loader)
    assert visited == order(pruner_for(dataset))
    assert dataset.batches_fetched == -(-SIZE // BATCH)
    assert_recorded(pruner, visited)


def test_with_index_pickles_and_is_transparent() -> None:
    for dataset in (Items(), Batched(), Subset(Items(), range(5)), list(range(7))):
        wrapped = with_index(dataset)
        copy = pickle.loads(pickle.dumps(wrapped))
        assert type(copy) is IndexedDataset
        assert len(copy) == len(wrapped) == len(dataset)  # type: ignore[arg-type]
        (index, item), (same_index, same_item) = copy.__getitems__([3])[0], wrapped.__getitems__([3])[0]
        assert index == same_index == 3
        assert torch.equal(torch.as_tensor(item), torch.as_tensor(same_item))
        assert wrapped.dataset is dataset
        assert repr(wrapped) == f"with_index({dataset!r})"
