"""Data sets for the loader tests, in a module that spawned workers can import. Item i is made of 100 + i."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, default_collate

from infobatch_fast import InfoBatch

SIZE = 90


class Items(Dataset[torch.Tensor]):
    def __init__(self, size: int = SIZE) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        assert type(index) is int
        return torch.tensor([100.0 + index, 0.0])


class Batched(Items):
    """Fetches whole batches, and counts them."""

    batches_fetched = 0

    def __getitem__(self, index: int) -> torch.Tensor:
        raise AssertionError("one by one, though it has __getitems__")

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        self.batches_fetched += 1
        return [torch.tensor([100.0 + index, 0.0]) for index in indices]


class Dicts(Items):
    def __getitem__(self, index: int) -> Any:
        return {"x": super().__getitem__(index), "name": f"sample {index}"}


class Stream(IterableDataset[tuple[int, torch.Tensor]]):
    """Samples by name, in an order of its own."""

    def __iter__(self) -> Iterator[tuple[int, torch.Tensor]]:
        return ((sample, torch.tensor(100.0 + sample)) for sample in range(SIZE))


def collate_names(batch: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """A user's own collate function."""
    return {"ids": torch.tensor([index for index, _ in batch]), "items": default_collate([item["x"] for _, item in batch])}


def train_on(pruner: InfoBatch, batches: Any, steps: int | None = None) -> list[int]:
    """Records as each item's loss what only that item gives; the indices in the order in which they came."""
    visited: list[int] = []
    for index, items in itertools.islice(batches, steps):
        assert index.dtype == torch.int64
        pruner.update(index, items[:, 0].to(pruner.device) * (1 + pruner.epoch))
        visited += index.tolist()
    return visited


def assert_recorded(pruner: InfoBatch, visited: list[int], epoch: int = 0) -> None:
    """Every visited sample's score is its own loss, of this epoch."""
    expected = [(100.0 + sample) * (1 + epoch) for sample in visited]
    assert pruner.scores(visited).tolist() == expected


def pruner_for(dataset: Any, **kwargs: Any) -> InfoBatch:
    return InfoBatch(dataset, 10, **{"delta": 1.0, **kwargs})
