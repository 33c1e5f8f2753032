"""A data set that hands out each item's index with the item, so that a loss finds its sample whatever the loader does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset, IterableDataset


class IndexedDataset(Dataset[tuple[int, Any]]):
    """Items of ``dataset`` as (index, item). Made by :func:`with_index`.

    Attributes:
        dataset: The wrapped data set.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        return index, self.dataset[index]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[int, Any]]:
        """A batch at once, by the wrapped data set's own ``__getitems__`` where it has one (Hugging Face, ``Subset``)."""
        fetch = getattr(self.dataset, "__getitems__", None)
        items = fetch(indices) if fetch else [self.dataset[index] for index in indices]
        if len(items) != len(indices):
            raise ValueError(
                f"{type(self.dataset).__name__}.__getitems__ returned {len(items)} items for {len(indices)} indices, so they "
                "cannot be matched: it must return one item an index, in order"
            )
        return list(zip(indices, items, strict=True))

    def __repr__(self) -> str:
        return f"with_index({self.dataset!r})"


def with_index(dataset: Any) -> IndexedDataset:
    """Wraps a map-style data set so that each item comes as (index, item).

    The default collate function makes of the indices an int64 tensor [B], which is what ``InfoBatch.update`` takes. The
    wrapper must be the outermost one: wrap a ``Subset``, not its data set.

    Args:
        dataset: Anything with ``__getitem__`` and ``__len__``.

    Returns:
        A data set that pickles wherever ``dataset`` does, so it works in worker processes however they are started.

    Raises:
        TypeError: ``dataset`` is iterable-style, or has no ``__getitem__`` or no ``__len__``.

    Example:
        >>> with_index(["a", "b"])[1]
        (1, 'b')
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise TypeError(
            f"dataset must be map-style, with __getitem__ and __len__, got {type(dataset).__name__}: a stream has no indices; "
            "give its samples ids of your own and wrap it in KeptOnly(dataset, pruner)"
        )
    return IndexedDataset(dataset)
