"""torchdata.nodes: a SamplerWrapper around the pruner's sampler, behind a Prefetcher that runs ahead on a thread."""

import copy
from typing import Any

import pytest
import torch

from support.items import SIZE, Items, assert_recorded, pruner_for

pytest.importorskip("torchdata")
from torchdata.nodes import Loader, Mapper, Prefetcher, SamplerWrapper

from infobatch_fast import InfoBatch, with_index

BATCH = 8


class Fetch:
    """A batch of indices to the batch that a DataLoader would make of it."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __call__(self, indices: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        return tuple(torch.utils.data.default_collate(self.dataset.__getitems__(indices)))  # type: ignore[return-value]


def loader_of(pruner: InfoBatch) -> Any:
    indices = SamplerWrapper(pruner.sampler.batches(BATCH))
    return Loader(Prefetcher(Mapper(indices, Fetch(with_index(Items()))), prefetch_factor=4))


def train(pruner: InfoBatch, batches: Any, steps: int | None = None) -> list[int]:
    visited: list[int] = []
    for step, (index, items) in enumerate(batches):
        epoch = pruner.epoch
        pruner.update(index, items[:, 0] * (1 + epoch))
        visited += index.tolist()
        if step + 1 == steps:
            break
    return visited


def test_every_loss_finds_its_sample_and_the_epochs_are_those_of_the_wrapper() -> None:
    pruner, reference = pruner_for(Items()), pruner_for(Items())
    loader = loader_of(pruner)
    for epoch in range(3):
        visited = train(pruner, loader)
        reference.set_epoch(epoch)
        assert visited == reference.sampler.indices().tolist()
        reference.update(visited, (100.0 + torch.tensor(visited)) * (1 + epoch))
        assert pruner.epoch == epoch
        assert pruner.stats.scored == pruner.stats.kept
        assert_recorded(pruner, visited, epoch)
    assert len(visited) < SIZE


@pytest.mark.parametrize("steps", [1, 3, 7])
@pytest.mark.parametrize("with_pruner", [True, False])
def test_a_run_goes_on_in_the_middle_of_an_epoch(steps: int, with_pruner: bool) -> None:
    pruner, again = pruner_for(Items()), pruner_for(Items())
    loader = loader_of(pruner)
    train(pruner, loader)
    scores = pruner.scores()
    iterator = iter(loader)
    visited = train(pruner, iterator, steps)
    assert pruner.epoch == 1
    expected = pruner.sampler.indices().tolist()
    state = copy.deepcopy(loader.state_dict())
    if with_pruner:
        again.load_state_dict(copy.deepcopy(pruner.state_dict()))
    else:
        again.update(torch.arange(SIZE), scores)
    loader = loader_of(again)
    loader.load_state_dict(state)
    rest = train(again, loader)
    assert again.epoch == 1
    assert visited + rest == expected


@pytest.mark.parametrize("restored", ["both", "pruner"])
def test_after_a_checkpoint_at_an_epochs_end_each_epoch_is_trained_on_once(restored: str) -> None:
    pruner, again = pruner_for(Items()), pruner_for(Items())
    loader = loader_of(pruner)
    for _ in range(2):
        train(pruner, loader)
    state, again_loader = copy.deepcopy(loader.state_dict()), loader_of(again)
    again.load_state_dict(copy.deepcopy(pruner.state_dict()))
    if restored == "both":
        again_loader.load_state_dict(state)
    trained = []
    for _ in range(again.epoch, 5):
        assert len(train(again, again_loader)) == again.stats.kept
        trained.append(again.epoch)
    assert trained == [2, 3, 4]


def test_a_loop_that_is_broken_off_leaves_its_reader_behind_and_the_next_one_is_right() -> None:
    pruner = InfoBatch(300_000, 100, delta=1.0)
    pruner.update(torch.arange(300_000), torch.rand(300_000))
    loader: Any = Loader(Prefetcher(SamplerWrapper(pruner.sampler.batches(256)), prefetch_factor=64))
    for _ in range(20):
        for step, batch in enumerate(loader):
            assert 0 <= min(batch) <= max(batch) < 300_000
            if step == 3:
                break
    whole = [sample for batch in loader for sample in batch]
    assert len(set(whole)) == len(whole) == len(pruner.sampler)
