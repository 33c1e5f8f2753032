"""DataLoader's options together: however workers start, prefetch, return and collate, each loss finds its sample."""

import itertools
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Subset, default_collate

from infobatch_fast import IndexedDataset, InfoBatch, collate_with_index, with_index
from support.items import SIZE, Dicts, Items, assert_recorded, collate_names, pruner_for, train_on
from support.loaders import WORKER_WARNINGS

BATCH = 8
pytestmark = WORKER_WARNINGS

SHAPES = ("pairs", "pairs, own collate", "items, own collate", "key", "key, own collate")


def collate_items(items: list[Any]) -> Any:
    """A user's function for items of ``Dicts``, who does not know of indices."""
    return {"x": torch.stack([item["x"] for item in items]), "names": [item["name"] for item in items]}


def loader_of(pruner: InfoBatch, shape: str, **kwargs: Any) -> Any:
    dataset, key = Dicts(), "id" if shape.startswith("key") else None
    collate = {
        "pairs, own collate": collate_names,
        "items, own collate": collate_with_index(collate_items),
        "key, own collate": collate_with_index(collate_items, key="id"),
    }.get(shape)
    return DataLoader(with_index(dataset, key=key), BATCH, sampler=pruner.sampler, collate_fn=collate, **kwargs)


def index_and_values(batch: Any, shape: str) -> tuple[torch.Tensor, torch.Tensor]:
    if shape == "pairs, own collate":
        return batch["ids"], batch["items"][:, 0]
    if shape.startswith("key"):
        names = batch["names" if "own" in shape else "name"]
        assert names == [f"sample {sample}" for sample in batch["id"].tolist()]
        return batch["id"], batch["x"][:, 0]
    index, items = batch
    return index, items["x"][:, 0]


def check(pruner: InfoBatch, loader: Any, shape: str, epochs: int = 2) -> None:
    for epoch in range(epochs):
        pruner.set_epoch(epoch)
        visited: list[int] = []
        length = len(loader)
        for batch in loader:
            index, values = index_and_values(batch, shape)
            assert index.dtype == torch.int64
            pruner.update(index, values * (1 + epoch))
            visited += index.tolist()
        assert -(-len(visited) // BATCH) == length
        assert len(set(visited)) == len(visited) == pruner.stats.kept
        assert_recorded(pruner, visited, epoch)
    assert pruner.stats.kept < SIZE


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_batch_with_forked_persistent_workers(shape: str, in_order: bool) -> None:
    pruner = pruner_for(SIZE)
    loader = loader_of(pruner, shape, num_workers=2, persistent_workers=True, prefetch_factor=3, in_order=in_order)
    check(pruner, loader, shape, epochs=3)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "in_order"), [("items, own collate", True), ("key", False)])
def test_spawned_persistent_workers_with_prefetch(shape: str, in_order: bool) -> None:
    pruner = pruner_for(SIZE)
    loader = loader_of(
        pruner,
        shape,
        num_workers=2,
        multiprocessing_context="spawn",
        persistent_workers=True,
        prefetch_factor=8,
        in_order=in_order,
    )
    check(pruner, loader, shape)


def test_timms_loader_of_many_epochs() -> None:
    try:
        from timm.data.loader import MultiEpochsDataLoader
    except Exception as error:  # timm needs a torchvision that fits torch, which fails in its own ways
        pytest.skip(f"timm cannot be imported: {error}")
    dataset = Items(10 * SIZE)
    for workers in (0, 2):
        pruner = pruner_for(dataset)
        loader = MultiEpochsDataLoader(with_index(dataset), batch_size=BATCH, sampler=pruner.sampler, num_workers=workers)
        lengths, losses = [], torch.full((10 * SIZE,), torch.nan)
        for epoch in range(3):
            pruner.set_epoch(epoch)
            lengths.append(len(loader))
            visited = []
            for index, items in itertools.islice(loader, None):
                losses[index] = items[:, 0] * (1 + epoch)
                pruner.update(index, losses[index])
                visited += index.tolist()
            assert -(-len(visited) // BATCH) == lengths[-1]
            assert len(visited) == len(set(visited))
            assert torch.equal(pruner.scores(), losses), "every score is its sample's own loss"
        assert lengths[1] < lengths[0]


# ---- with_index(key=...) ----


class Fetched(Dicts):
    """Fetches batches of mappings, as Hugging Face data sets do."""

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        return [super(Fetched, self).__getitem__(index) for index in indices]


def test_a_key_is_added_to_a_copy_of_each_item() -> None:
    items = [{"x": 1.0}, {"x": 2.0}]
    wrapped = with_index(items, key="index")
    assert wrapped[1] == {"x": 2.0, "index": 1}
    assert wrapped.__getitems__([1, 0]) == [{"x": 2.0, "index": 1}, {"x": 1.0, "index": 0}]
    assert items == [{"x": 1.0}, {"x": 2.0}]
    batch = default_collate(with_index(Subset(Fetched(), range(10, 20)), key="index").__getitems__([3, 7]))
    assert batch["index"].dtype == torch.int64
    assert batch["index"].tolist() == [3, 7]
    assert batch["name"] == ["sample 13", "sample 17"]


def test_any_mapping_will_do_and_becomes_a_dict() -> None:
    class View(Mapping[str, int]):
        def __getitem__(self, name: str) -> int:
            return {"x": 5}[name]

        def __iter__(self) -> Any:
            return iter(["x"])

        def __len__(self) -> int:
            return 1

    assert with_index([View()], key="index")[0] == {"x": 5, "index": 0}


def test_a_clash_or_an_item_that_is_no_mapping_is_refused_with_what_to_change() -> None:
    with pytest.raises(ValueError, match=r"key='x'\): item 1 of Dicts has that key already: pass another key"):
        with_index(Dicts(), key="x")[1]
    with pytest.raises(TypeError, match=r"needs items that are mappings, and item 0 of Items is a Tensor: leave key out"):
        with_index(Items(), key="index").__getitems__([0])
    with pytest.raises(TypeError, match="key must be a str or None, got 5"):
        with_index(Items(), key=5)  # type: ignore[arg-type]


def test_a_keyed_data_set_pickles_and_forwards_attributes_of_the_wrapped_one() -> None:
    dataset = Dicts()
    dataset.classes = ["a", "b"]  # type: ignore[attr-defined]
    for wrapped in (with_index(dataset, key="id"), with_index(dataset)):
        copy = pickle.loads(pickle.dumps(wrapped))
        assert type(copy) is IndexedDataset
        assert copy.classes == ["a", "b"]
        assert (copy.key, len(copy)) == (wrapped.key, SIZE)
        assert not hasattr(copy, "missing")
        assert not hasattr(copy, "_private")
    assert repr(with_index(range(3), key="id")) == "with_index(range(0, 3), key='id')"
    called = []
    dataset.set_epoch = called.append  # type: ignore[attr-defined]
    with_index(dataset).set_epoch(4)
    assert called == [4]


def test_collate_with_index_pickles_and_leaves_items_as_they_were() -> None:
    batch = [{"x": torch.tensor([1.0, 0.0]), "name": "a", "id": 4}]
    collate = pickle.loads(pickle.dumps(collate_with_index(collate_items, key="id")))
    collated = collate(batch)
    assert collated["id"].tolist() == [4]
    assert collated["names"] == ["a"]
    assert batch[0]["id"] == 4


def test_a_loader_of_items_without_indices_says_what_to_pass() -> None:
    pruner = pruner_for(Items())
    items = next(iter(DataLoader(Items(), BATCH, sampler=pruner.sampler)))
    with pytest.raises(
        TypeError, match=r"pass the sample indices that the batch came with, from DataLoader\(with_index\(dataset\)"
    ):
        pruner.update(items[:, 0], items[:, 0])
    with pytest.raises(ValueError, match="compute the loss with reduction='none'"):
        pruner.update(list(range(BATCH)), items[:, 0].mean())
    train_on(pruner, DataLoader(with_index(Items()), BATCH, sampler=pruner.sampler))
