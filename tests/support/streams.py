"""Streams for the tests of KeptOnly, in a module that spawned workers can import. Sample i is made of 100 + i."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from infobatch_fast import InfoBatch, KeptOnly

SIZE = 203  # neither a multiple of 8 nor of a batch


def item(sample: int) -> torch.Tensor:
    return torch.tensor([100.0 + sample, 0.0])


class Pairs(IterableDataset[Any]):
    """The samples of a range as (id, item), dealt to the workers in turn, from high to low."""

    def __init__(self, samples: range = range(SIZE)) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        place, workers = (0, 1) if info is None else (info.id, info.num_workers)
        return (self.make(sample) for sample in reversed(self.samples[place::workers]))

    def make(self, sample: int) -> Any:
        return sample, item(sample)


class Dicts(Pairs):
    def make(self, sample: int) -> Any:
        return {"x": item(sample), "id": sample, "name": f"sample {sample:06d}"}


class Places(Pairs):
    def make(self, sample: int) -> Any:
        return item(sample), sample


class Positioned(Pairs):
    """A stream that can go on where it was, and that knows its epoch."""

    def __init__(self, samples: range = range(SIZE)) -> None:
        super().__init__(samples)
        self.position = self.epoch = 0
        self.began_at = -1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        self.began_at = self.position
        for pair in list(super().__iter__())[self.position :]:
            self.position += 1
            yield pair
        self.position = 0

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


def id_in_name(sample: dict[str, Any]) -> int:
    return int(sample["name"].split()[1])


def stream_of(dataset: Any, key: Any = None, size: int = SIZE, **kwargs: Any) -> tuple[InfoBatch, KeptOnly]:
    pruner = InfoBatch(size, 10, **{"delta": 1.0, **kwargs})
    return pruner, KeptOnly(dataset, pruner, key=key)


def train(pruner: InfoBatch, batches: Any, steps: int | None = None) -> list[int]:
    """Records as each sample's loss what only that sample and epoch give; the ids in the order in which they came."""
    visited: list[int] = []
    for step, (index, items) in enumerate(batches):
        if step == steps:
            break
        values = items["x"] if isinstance(items, dict) else items if isinstance(items, torch.Tensor) else items[0]
        pruner.update(index, values[:, 0].to(pruner.device) * (1 + pruner.epoch))
        visited += index.tolist()
    return visited


def assert_recorded(pruner: InfoBatch, visited: list[int], epoch: int) -> None:
    """Every visited sample's score is its own loss, of this epoch."""
    assert pruner.scores(visited).tolist() == [(100.0 + sample) * (1 + epoch) for sample in visited]
