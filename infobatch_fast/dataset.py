"""A data set that hands out each item's index with the item, so that a loss finds its sample whatever the loader does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset

from .engine.sources import hands_out_ids, refuse_ids_inside


class IndexedDataset(Dataset[Any]):
    """Items of ``dataset`` with their indices. Made by :func:`with_index`.

    Attributes:
        dataset: The wrapped data set. Attributes that this class lacks are looked up there: ``classes``, ``set_epoch``.
        key: The key under which an item that is a mapping holds its index; None for pairs (index, item).
    """

    infobatch_hands_out_ids = True  # the engine finds this class inside other data sets by it

    def __init__(self, dataset: Any, key: str | None = None) -> None:
        self.dataset, self.key = dataset, key

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self._with_index(index, self.dataset[index])

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Fetches a batch at once, by the wrapped data set's own ``__getitems__`` if it has one (Hugging Face, ``Subset``)."""
        if isinstance(indices, int):
            raise TypeError(
                f"the loader passed the index {indices} in place of a batch: batch_sampler= needs batches, so pass "
                "batch_sampler=pruner.sampler.batches(batch_size), or sampler=pruner.sampler with batch_size"
            )
        if any(isinstance(index, list) for index in indices):
            raise TypeError(
                "the loader passed a whole batch in place of an index: sampler= needs single indices, so pass "
                "sampler=pruner.sampler with batch_size, or batch_sampler=pruner.sampler.batches(batch_size) without batch_size"
            )
        fetch = getattr(self.dataset, "__getitems__", None)
        items = fetch(indices) if fetch else [self.dataset[index] for index in indices]
        if len(items) != len(indices):
            raise ValueError(
                f"{type(self.dataset).__name__}.__getitems__ returned {len(items)} items for {len(indices)} indices, so they "
                "cannot be matched: it must return one item for each index, in order"
            )
        return [self._with_index(index, item) for index, item in zip(indices, items, strict=True)]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("dataset", "key"):  # asked while unpickling, when there is no data set yet
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.dataset, name)

    def __repr__(self) -> str:
        key = "" if self.key is None else f", key={self.key!r}"
        return f"with_index({self.dataset!r}{key})"

    def _with_index(self, index: int, item: Any) -> Any:
        if self.key is None:
            return index, item
        if not isinstance(item, Mapping):
            raise TypeError(
                f"with_index(..., key={self.key!r}) needs items that are mappings, and item {index} of "
                f"{type(self.dataset).__name__} is a {type(item).__name__}: leave key out, and take batches apart as index, item"
            )
        if self.key in item:
            raise ValueError(
                f"with_index(..., key={self.key!r}): item {index} of {type(self.dataset).__name__} has that key already: pass "
                "another key"
            )
        return {**item, self.key: index}


def with_index(dataset: Any, key: str | None = None) -> IndexedDataset:
    """Wraps a map-style data set so that each item comes as (index, item), or holds its index under a key.

    The default collate function turns the indices into an int64 tensor [B], which is what ``InfoBatch.update`` takes. The wrapper
    must be the outermost one: wrap a ``Subset``, not its data set.

    Args:
        dataset: Anything with ``__getitem__`` and ``__len__``.
        key: For items that are mappings. Each item is copied into a dict, which holds the index under this key. None makes pairs.

    Returns:
        A data set that pickles wherever ``dataset`` does, so it works in worker processes however they are started.

    Raises:
        TypeError: ``dataset`` is iterable-style, or has no ``__getitem__`` or no ``__len__``; ``key`` is not a str; or, with
            ``key``, an item is not a mapping.
        ValueError: ``dataset``, or a data set inside it, is wrapped already; or, with ``key``, an item has that key already.

    Example:
        >>> with_index(["a", "b"])[1]
        (1, 'b')
        >>> with_index([{"x": "a"}, {"x": "b"}], key="index")[1]
        {'x': 'b', 'index': 1}
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise TypeError(
            f"dataset must be map-style, with __getitem__ and __len__, got {type(dataset).__name__}: a stream has no indices; "
            "give its samples ids of your own and wrap it in KeptOnly(dataset, pruner)"
        )
    if key is not None and not isinstance(key, str):
        raise TypeError(f"key must be a str or None, got {key!r}")
    if hands_out_ids(dataset):
        raise ValueError(f"dataset is {dataset!r}, whose items come with their index already: use it as it is, and wrap it once")
    refuse_ids_inside("dataset", dataset)
    return IndexedDataset(dataset, key)


class IndexedCollate:
    """A collate function that sees items without their indices. Made by :func:`collate_with_index`.

    Attributes:
        collate_fn: The function that collates the items.
        key: The key that ``with_index`` got.
    """

    def __init__(self, collate_fn: Callable[[list[Any]], Any], key: str | None = None) -> None:
        self.collate_fn, self.key = collate_fn, key

    def __call__(self, batch: list[Any]) -> Any:
        """Collates items of a data set made by ``with_index``."""
        if self.key is None:
            index = torch.tensor([index for index, _ in batch], dtype=torch.int64, device="cpu")
            return index, self.collate_fn([item for _, item in batch])
        index = torch.tensor([item[self.key] for item in batch], dtype=torch.int64, device="cpu")
        collated = self.collate_fn([{name: value for name, value in item.items() if name != self.key} for item in batch])
        collated[self.key] = index
        return collated


def collate_with_index(collate_fn: Callable[[list[Any]], Any], key: str | None = None) -> IndexedCollate:
    """Adapts a collate function to ``with_index``: the function gets the items alone, and the index is added to its result.

    Args:
        collate_fn: Takes a list of items of the wrapped data set. With ``key`` it must return a mapping.
        key: The ``key`` that ``with_index`` got.

    Returns:
        A function that pickles wherever ``collate_fn`` does. It returns (index, batch), or with ``key`` the batch with the index
        added; index is int64 [B].

    Example:
        >>> collate_with_index(list)([(3, "a"), (1, "b")])
        (tensor([3, 1]), ['a', 'b'])
    """
    return IndexedCollate(collate_fn, key)
