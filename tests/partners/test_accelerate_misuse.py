"""With accelerate each sample of a resumed epoch comes once, gathered results are whole, and misuse is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import ConcatDataset, DataLoader

from support.items import Items
from support.ranks import needs_gloo, run_ranks
from support.refusals import raises

pytest.importorskip("accelerate")

from accelerate import skip_first_batches

from infobatch_fast import InfoBatch, with_index
from infobatch_fast.integrations.accelerate import prepare
from support.accelerators import accelerator_of

SIZE, BATCH = 400, 16


def prepared(batch_sampler: bool = False, size: int = SIZE, workers: int = 0) -> tuple[Any, InfoBatch, Any]:
    accelerator, pruner = accelerator_of(), InfoBatch(size, num_epochs=4, delta=1.0)
    order = {"batch_sampler": pruner.sampler.batches(BATCH)} if batch_sampler else {"sampler": pruner.sampler, "batch_size": BATCH}
    return accelerator, pruner, prepare(accelerator, DataLoader(with_index(Items(size)), num_workers=workers, **order))


def train(pruner: InfoBatch, batches: Any, steps: int | None = None) -> list[int]:
    visited: list[int] = []
    for step, (index, items) in enumerate(batches):
        if step == steps:
            break
        pruner.update(index, items[:, 0])
        visited += index.tolist()
    return visited


def save_in_mid_epoch(folder: Path, batch_sampler: bool) -> list[int]:
    """Visited before the checkpoint: 160 of 400."""
    accelerator, pruner, loader = prepared(batch_sampler)
    loader.set_epoch(0)
    visited = train(pruner, loader, steps=10)
    accelerator.save_state(str(folder))
    return visited


@pytest.mark.parametrize("batch_sampler", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning", "ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_prepared_loader_goes_on_by_itself_and_each_sample_comes_once(tmp_path: Path, batch_sampler: bool, workers: int) -> None:
    before = save_in_mid_epoch(tmp_path, batch_sampler)
    accelerator, pruner, loader = prepared(batch_sampler, workers=workers)
    accelerator.load_state(str(tmp_path))
    loader.set_epoch(0)
    assert len(loader) == 15
    assert sorted(before + train(pruner, loader)) == list(range(SIZE))


@pytest.mark.parametrize("batch_sampler", [False, True])
def test_the_documented_loop_has_no_epoch_without_batches_after_a_checkpoint_at_an_epochs_end(
    tmp_path: Path, batch_sampler: bool
) -> None:
    accelerator, pruner, loader = prepared(batch_sampler)
    for epoch in range(2):
        loader.set_epoch(epoch)
        train(pruner, loader)
    accelerator.save_state(str(tmp_path))
    accelerator, pruner, loader = prepared(batch_sampler)
    accelerator.load_state(str(tmp_path))
    trained = []
    for epoch in range(pruner.epoch, 4):
        loader.set_epoch(epoch)
        assert len(train(pruner, loader)) == pruner.stats.kept
        trained.append(pruner.epoch)
    assert trained == [2, 3]


@pytest.mark.parametrize("batch_sampler", [False, True])
def test_skip_first_batches_after_a_restart_is_refused_before_the_first_batch(tmp_path: Path, batch_sampler: bool) -> None:
    before = save_in_mid_epoch(tmp_path, batch_sampler)
    accelerator, pruner, loader = prepared(batch_sampler)
    accelerator.load_state(str(tmp_path))
    loader.set_epoch(0)
    for skip in (skip_first_batches, accelerator.skip_first_batches):
        with raises(RuntimeError, "skip_first_batches skips 10 batches", "iterate over the prepared loader itself"):
            next(iter(skip(loader, 10)))
    assert sorted(before + train(pruner, loader)) == list(range(SIZE))


def test_skip_first_batches_that_loses_nothing_is_let_through(tmp_path: Path) -> None:
    save_in_mid_epoch(tmp_path, batch_sampler=True)
    accelerator, pruner, loader = prepared(batch_sampler=True)
    assert len(train(pruner, skip_first_batches(loader, 5))) == SIZE - 5 * BATCH, "no restart: whoever skips means it"
    accelerator.load_state(str(tmp_path))
    loader.set_epoch(0)
    assert len(train(pruner, skip_first_batches(loader, 0))) == SIZE - 10 * BATCH


def gather(batch_sampler: bool = False) -> list[tuple[int, list[int], int]]:
    """Of three epochs: samples that all ranks' loaders bring, those that gather_for_metrics returned, and how many are kept."""
    accelerator, pruner, loader = prepared(batch_sampler, size=290)
    notes = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        gathered: list[int] = []
        for index, items in loader:
            pruner.update(index, items[:, 0])
            gathered += accelerator.gather_for_metrics(index).tolist()
        notes.append((len(pruner.sampler) * pruner.num_replicas, gathered, pruner.stats.kept))
    return notes


@pytest.mark.parametrize("batch_sampler", [False, True])
def test_gather_for_metrics_leaves_out_no_sample(batch_sampler: bool) -> None:
    lengths = set()
    for length, gathered, kept in gather(batch_sampler):
        assert len(gathered) == len(set(gathered)) == length == kept
        lengths.add(kept % BATCH)
    assert lengths != {290 % BATCH}, "or the length of the data set would do"


@needs_gloo
def test_gather_for_metrics_leaves_out_no_sample_of_two_ranks() -> None:
    for notes in run_ranks(2, gather):
        for length, gathered, kept in notes:
            assert len(gathered) == length
            assert len(set(gathered)) == kept, "a rank that is shorter repeats samples, and nothing else comes twice"


def test_a_loader_over_another_data_set_is_refused() -> None:
    accelerator, pruner = accelerator_of(), InfoBatch(SIZE, 2)
    for dataset, message in (
        (
            Items(SIZE + 1),
            f"the loader's data set has {SIZE + 1} samples and the pruner {SIZE}: pass DataLoader",
        ),
        (ConcatDataset([with_index(Items(200))] * 2), "the loader's data set is ConcatDataset(IndexedDataset)"),
    ):
        with raises(ValueError, message):
            prepare(accelerator, DataLoader(dataset, BATCH, sampler=pruner.sampler))
