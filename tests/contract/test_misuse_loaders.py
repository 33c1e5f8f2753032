"""Misuse of loaders is named with its remedy, and the remedies of docs/loaders.md and docs/loops.md work."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, default_collate

from infobatch_fast import InfoBatch, collate_with_index, with_index
from support.items import SIZE, Items, assert_recorded, pruner_for, train_on
from support.own_loops import BATCH as OWN_BATCH
from support.own_loops import WIDTH, linear, loader_of, losses_of, problem
from support.refusals import raises
from support.runs import record_all

BATCH = 8


class Broken(Items):
    """Every tenth item cannot be read."""

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index) if index % 10 else None


def keep_read(pairs: list[tuple[int, Any]]) -> Any:
    return default_collate([(index, item) for index, item in pairs if item is not None])


def leave_out_broken(items: list[Any]) -> torch.Tensor:
    return default_collate([item for item in items if item is not None])


# ---- the wrong argument of the loader ----


def test_a_sampler_in_the_wrong_place_is_named_with_the_right_one() -> None:
    pruner, dataset = pruner_for(SIZE), with_index(Items())
    batches = pruner.sampler.batches(BATCH)
    with raises(TypeError, "InfoBatch is not a sampler: pass sampler=pruner.sampler"):
        next(iter(DataLoader(dataset, BATCH, sampler=pruner)))
    with raises(TypeError, "passed the index", "in place of a batch", "batch_sampler=pruner.sampler.batches(batch_size)"):
        next(iter(DataLoader(dataset, batch_sampler=pruner.sampler)))
    with raises(TypeError, "passed a whole batch in place of an index", "sampler=pruner.sampler with batch_size"):
        next(iter(DataLoader(dataset, BATCH, sampler=batches)))
    assert bool(pruner), "a pruner without a length is true"


# ---- items that a collate function leaves out ----


def test_losses_of_items_that_a_collate_function_left_out_are_named_with_the_remedy() -> None:
    pruner = pruner_for(SIZE, shuffle=False)
    loader = DataLoader(with_index(Broken()), BATCH, sampler=pruner.sampler, collate_fn=collate_with_index(leave_out_broken))
    index, items = next(iter(loader))
    with raises(
        ValueError, f"each of the {BATCH} indices, got shape [{BATCH - 1}]", "a collate function that leaves some out", "pair[1]"
    ):
        pruner.update(index, items[:, 0])


def test_a_collate_function_of_pairs_may_leave_some_out() -> None:
    pruner = pruner_for(SIZE)
    visited = train_on(pruner, DataLoader(with_index(Broken()), BATCH, sampler=pruner.sampler, collate_fn=keep_read))
    assert sorted(visited) == [sample for sample in range(SIZE) if sample % 10]
    assert_recorded(pruner, visited)


@pytest.mark.parametrize(
    ("losses", "remedy"),
    [
        (torch.tensor(1.0), "compute the loss with reduction='none'"),
        (torch.ones(1), "compute the loss with reduction='none'"),
        (torch.ones(12), "take losses.view(4, -1).mean(dim=1)"),
        (torch.ones(4, 3), "reduce to one number a sample"),
        (torch.ones(3), "samples were lost or added between index and losses"),
        (torch.ones(6), "samples were lost or added between index and losses"),
        (torch.ones(0), "samples were lost or added between index and losses"),
    ],
)
def test_the_shape_of_the_losses_decides_what_is_advised(losses: torch.Tensor, remedy: str) -> None:
    with raises(ValueError, f"got shape {list(losses.shape)}: ", remedy):
        InfoBatch(10, 3).update(range(4), losses)


# ---- batches ----


def test_drop_last_that_leaves_no_batch_is_named_once() -> None:
    batches = InfoBatch(5, num_epochs=10).sampler.batches(BATCH, drop_last=True)
    with pytest.warns(RuntimeWarning, match=f"epoch 0 has 5 indices per rank, fewer than batch_size={BATCH}, so drop_last leaves"):
        assert list(batches) == []
    assert list(batches) == []  # a warning that is not expected fails the test


def test_a_rest_of_an_epoch_that_is_smaller_than_a_batch_is_no_misuse() -> None:
    pruner = InfoBatch(BATCH + 3, num_epochs=10)
    for index in list(pruner.sampler.batches(BATCH))[:-1]:  # torch's own drop_last, which the sampler does not know of
        pruner.update(index, torch.ones(BATCH))
    again = InfoBatch(BATCH + 3, num_epochs=10)
    again.load_state_dict(pruner.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(again.sampler.batches(BATCH, drop_last=True)) == []
        assert list(InfoBatch(BATCH, num_epochs=10).sampler.batches(BATCH, drop_last=True)) != []


def test_a_loader_without_batches_trains_one_sample_at_a_time() -> None:
    pruner = pruner_for(SIZE)
    visited = []
    for index, item in DataLoader(with_index(Items()), batch_size=None, sampler=pruner.sampler):
        pruner.update(index, item[:1])
        visited.append(index)
    assert sorted(visited) == list(range(SIZE))
    assert_recorded(pruner, visited)


# ---- data sets that change ----


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (SIZE + 5, f"has {SIZE + 5} samples now, but the pruner knows only {SIZE} of them: call pruner.grow()"),
        (SIZE - 5, f"has {SIZE - 5} samples now, but the pruner draws from {SIZE}"),
    ],
)
@pytest.mark.parametrize("use_batches", [False, True])
def test_a_data_source_of_another_length_than_before_is_named_once(use_batches: bool, size: int, message: str) -> None:
    dataset = Items()
    pruner = pruner_for(dataset)
    sampler: Any = pruner.sampler.batches(BATCH) if use_batches else pruner.sampler
    dataset.size = size
    with pytest.warns(RuntimeWarning) as caught:
        list(sampler)
    assert [message in str(warning.message) for warning in caught] == [True]
    list(sampler)


def test_a_data_source_that_grew_is_no_misuse_where_grow_is_called() -> None:
    dataset = Items()
    pruner = pruner_for(dataset)
    loader = DataLoader(with_index(dataset), BATCH, sampler=pruner.sampler)
    train_on(pruner, loader)
    dataset.size += 5
    pruner.grow()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(range(SIZE, SIZE + 5)) <= set(train_on(pruner, loader))


# ---- update_bn ----


def test_update_bn_gets_the_inputs_alone() -> None:
    data = problem(torch.float32)
    model = nn.Sequential(nn.BatchNorm1d(WIDTH), linear(torch.float32))
    pruner, loader = loader_of(data)
    record_all(pruner, losses_of(model, *data).tolist())
    pruner.set_epoch(1)
    assert len(pruner.sampler) < len(data[0])
    update_bn((x for x, _ in DataLoader(loader.dataset.dataset, OWN_BATCH)), model)  # type: ignore[attr-defined]
    torch.testing.assert_close(model[0].running_mean, data[0].mean(0))
    visited = []

    def inputs() -> Any:
        for index, (x, _) in loader:
            visited.extend(index.tolist())
            yield x

    update_bn(inputs(), model)
    means = [data[0][visited[first : first + OWN_BATCH]].mean(0) for first in range(0, len(visited), OWN_BATCH)]
    torch.testing.assert_close(model[0].running_mean, torch.stack(means).mean(0))
    assert len(visited) == pruner.stats.kept
