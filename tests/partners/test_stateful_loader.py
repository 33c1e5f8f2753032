"""torchdata's StatefulDataLoader: a run goes on from a loader's state, a pruner's, or both, with nothing lost or repeated."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch

from support.items import SIZE, Items, assert_recorded, pruner_for, train_on

pytest.importorskip("torchdata")
from torchdata.stateful_dataloader import StatefulDataLoader

from infobatch_fast import InfoBatch, with_index

BATCH = 8
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning",
    "ignore:This DataLoader will create:UserWarning",
    "ignore:.set_vital. is deprecated:UserWarning",  # torchdata calls it
)

LOADERS: dict[str, dict[str, Any]] = {
    "no workers": {},
    "two workers": {"num_workers": 2},
    "persistent": {"num_workers": 2, "persistent_workers": True},
    "rare snapshots": {"num_workers": 2, "snapshot_every_n_steps": 3},
    "rare snapshots, no workers": {"snapshot_every_n_steps": 3},
}


def loader_of(pruner: InfoBatch, kind: str, batches: bool, dataset: Any = None) -> Any:
    batching: dict[str, Any] = {"batch_size": BATCH, "sampler": pruner.sampler}
    if batches:
        batching = {"batch_sampler": pruner.sampler.batches(BATCH)}
    return StatefulDataLoader(with_index(dataset or Items()), **batching, **LOADERS[kind])


def restored(pruner: InfoBatch) -> InfoBatch:
    file = io.BytesIO()
    torch.save(pruner.state_dict(), file)
    file.seek(0)
    again = pruner_for(Items())
    again.load_state_dict(torch.load(file, weights_only=True))
    return again


def cloned(pruner: InfoBatch) -> InfoBatch:
    """A pruner that knows the scores of another one, as it was before the epoch: what a loader's state alone goes on with."""
    again = pruner_for(Items())
    index = torch.arange(SIZE)
    again.update(index, pruner.scores(index))
    return again


def run(pruner: InfoBatch, loader: Any, epochs: range) -> list[list[int]]:
    visited = []
    for epoch in epochs:
        pruner.set_epoch(epoch)
        visited.append(train_on(pruner, loader))
        assert_recorded(pruner, visited[-1], epoch)
    return visited


@pytest.mark.slow
@pytest.mark.parametrize("batches", [False, True], ids=["sampler", "batches"])
@pytest.mark.parametrize("kind", [kind for kind in LOADERS if kind != "rare snapshots"])
def test_a_run_goes_on_after_any_step_from_the_states_of_loader_and_pruner(kind: str, batches: bool) -> None:
    reference = pruner_for(Items())
    expected = run(reference, loader_of(reference, kind, batches), range(3))
    length = -(-len(expected[1]) // BATCH)
    for steps in (1, 3, 7, length):
        pruner = pruner_for(Items())
        loader = loader_of(pruner, kind, batches)
        run(pruner, loader, range(1))
        pruner.set_epoch(1)
        iterator = iter(loader)
        visited = train_on(pruner, iterator, steps)
        state = copy.deepcopy(loader.state_dict())
        again = restored(pruner)
        loader = loader_of(again, kind, batches)
        loader.load_state_dict(state)
        again.set_epoch(1)
        if steps < length:
            visited += train_on(again, loader)
            assert again.stats.scored == again.stats.kept
        assert visited == expected[1], steps
        assert run(again, loader, range(2, 3)) == expected[2:], steps
        assert torch.equal(again.scores(), reference.scores())


@pytest.mark.parametrize("batches", [False, True], ids=["sampler", "batches"])
@pytest.mark.parametrize("kind", [kind for kind in LOADERS if kind != "rare snapshots"])
def test_a_second_cut_within_the_same_epoch(kind: str, batches: bool) -> None:
    reference = pruner_for(Items())
    expected = run(reference, loader_of(reference, kind, batches), range(1))[0]
    pruner = pruner_for(Items())
    loader = loader_of(pruner, kind, batches)
    visited: list[int] = []
    for steps in (3, 1, 4):
        visited += train_on(pruner, iter(loader), steps)
        state = loader.state_dict()
        pruner = restored(pruner)
        loader = loader_of(pruner, kind, batches)
        loader.load_state_dict(state)
    assert visited + train_on(pruner, loader) == expected


@pytest.mark.slow
@pytest.mark.parametrize("batches", [False, True], ids=["sampler", "batches"])
@pytest.mark.parametrize("kind", ["no workers", "two workers", "persistent"])
def test_the_loaders_state_alone_goes_on_at_its_position_in_the_same_plan(kind: str, batches: bool) -> None:
    for steps in (1, 3, 7):
        pruner = pruner_for(Items())
        loader = loader_of(pruner, kind, batches)
        run(pruner, loader, range(1))
        again = cloned(pruner)
        pruner.set_epoch(1)
        expected = pruner.sampler.indices().tolist()
        visited = train_on(pruner, iter(loader), steps)
        state = loader.state_dict()
        loader = loader_of(again, kind, batches)
        loader.load_state_dict(state)
        rest = train_on(again, loader)
        assert again.epoch == 1
        assert visited + rest == expected, steps
        assert_recorded(again, rest, 1)


def test_the_pruners_state_alone_is_enough() -> None:
    pruner = pruner_for(Items())
    expected = pruner.sampler.indices().tolist()
    visited = train_on(pruner, iter(loader_of(pruner, "two workers", False)), 4)
    again = restored(pruner)
    assert visited + train_on(again, loader_of(again, "two workers", False)) == expected


@pytest.mark.parametrize("batches", [False, True], ids=["sampler", "batches"])
@pytest.mark.parametrize("kind", ["no workers", "two workers"])
def test_the_loaders_state_is_small_whatever_the_size_of_the_table(kind: str, batches: bool) -> None:
    sizes = []
    for size in (1000, 1_000_000):
        dataset = Items(size)
        pruner = pruner_for(dataset)
        loader = loader_of(pruner, kind, batches, dataset)
        train_on(pruner, iter(loader), 3)
        sizes.append(len(pickle.dumps(loader.state_dict())))
    assert max(sizes) < 3000
    assert abs(sizes[1] - sizes[0]) < 50


@pytest.mark.parametrize("batches", [False, True], ids=["sampler", "batches"])
def test_with_rare_snapshots_and_workers_the_pruners_state_alone_goes_on_right(batches: bool) -> None:
    # The loader would go back to its last snapshot and drop what it takes for delivered, and the pruner has left that out already.
    pruner = pruner_for(Items())
    expected = pruner.sampler.indices().tolist()
    visited: list[int] = []
    for steps in (4, 1, 3):
        visited += train_on(pruner, iter(loader_of(pruner, "rare snapshots", batches)), steps)
        pruner = restored(pruner)
    assert visited + train_on(pruner, loader_of(pruner, "rare snapshots", batches)) == expected
