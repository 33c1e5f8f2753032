"""Misuse of ``update`` is noticed, and what else may be called is right."""

import copy
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, WeightedRandomSampler

from infobatch_fast import InfoBatch, with_index
from support.runs import half_pruned, loss_of, record, snapshot

SIZE = 400


def numbers(size: int = SIZE) -> list[float]:
    return [float(i) for i in range(size)]


def permuted(data: Any) -> Any:
    return Subset(data, torch.randperm(len(data), generator=torch.Generator().manual_seed(1)).tolist())


# ---- samples that the plan does not keep ----

FOREIGN_LOADERS: dict[str, Callable[[InfoBatch], Iterable[Any]]] = {
    "shuffle=True": lambda pruner: DataLoader(with_index(numbers()), 20, shuffle=True),
    "a sampler of its own": lambda pruner: DataLoader(
        with_index(numbers()), 20, sampler=WeightedRandomSampler(torch.ones(SIZE), SIZE // 2)
    ),
    "no sampler": lambda pruner: DataLoader(with_index(numbers()), 20),
    "a data set that is permuted behind its indices": lambda pruner: DataLoader(
        permuted(with_index(numbers())), 20, sampler=pruner.sampler
    ),
}


@pytest.mark.parametrize("kind", FOREIGN_LOADERS)
def test_a_loader_that_draws_other_samples_than_the_plan_is_noticed_at_the_next_plan(device: torch.device, kind: str) -> None:
    pruner = InfoBatch(SIZE, 10, device=device)
    loader = FOREIGN_LOADERS[kind](pruner)
    for epoch in (0, 1):
        pruner.set_epoch(epoch)
        came = [int(i) for index, _ in loader for i in index]
        for i in came:
            if pruner.stats.scored < pruner.stats.kept:  # more of them is another kind of mistake
                record(pruner, [i], [float(i)])
        wrong = [i for i in came[: pruner.stats.scored] if not pruner.is_kept(i)]
        assert pruner.stats.unkept == len(wrong) > (0 if epoch else -1)
    pruner.set_epoch(2)
    one = "|".join(map(str, wrong))
    text = rf"index: {len(wrong)} losses came for samples that the plan of epoch 1 does not keep, for instance ({one}):"
    with pytest.warns(RuntimeWarning, match=text):
        len(pruner.sampler)
    assert pruner.stats.unkept == 0


def test_it_is_told_once(device: torch.device) -> None:
    pruner = half_pruned(device)
    unkept = [i for i in range(500) if not pruner.is_kept(i)]
    record(pruner, unkept[:3], [0.0] * 3)
    pruner.set_epoch(2)
    with pytest.warns(RuntimeWarning, match=f"index: 3 losses came .* epoch 1 does not keep, for instance {unkept[2]}"):
        len(pruner.sampler)
    unkept = [i for i in range(500) if not pruner.is_kept(i)]
    record(pruner, unkept[:3], [0.0] * 3)
    pruner.set_epoch(3)
    assert pruner.stats.unkept == 0  # the plan is made, and nothing warns


def test_with_check_sync_an_unkept_sample_is_raised_at_once_and_nothing_is_recorded(device: torch.device) -> None:
    pruner = half_pruned(device, check="sync")
    unkept = [i for i in range(500) if not pruner.is_kept(i)][:2]
    before = snapshot(pruner)
    with pytest.raises(IndexError, match=rf"index: 2 losses came for samples that the plan of epoch 1 does not keep.*{unkept[0]}"):
        record(pruner, [600, *unkept, 601], [5.0] * 4)
    assert snapshot(pruner) == before
    record(pruner, [600, 601], [5.0] * 2)


@pytest.mark.parametrize("check", ["deferred", "sync"])
def test_losses_that_come_after_the_next_plan_was_made_are_none_of_them(device: torch.device, check: Any) -> None:
    pruner = InfoBatch(SIZE, 10, delta=1.0, device=device, check=check)
    waiting: list[list[int]] = []
    for _ in range(5):  # a loader that runs into the next epoch ahead of training
        for batch in pruner.sampler.batches(16):
            waiting.append(batch)
            if len(waiting) > 6:
                now = waiting.pop(0)
                record(pruner, now, loss_of(torch.tensor(now), len(waiting)))
    assert pruner.epoch == 4
    assert pruner.stats.unkept == 0


def test_with_check_sync_a_second_loss_of_late_samples_is_none_of_them(device: torch.device) -> None:
    pruner = InfoBatch(64, 10, prune_ratio=0.9, steps_per_epoch=40, batch_size=8, delta=1.0, device=device, check="sync")
    waiting: list[torch.Tensor] = []
    for batch in pruner.sampler.batches(8):
        waiting.append(torch.tensor(batch))
        if len(waiting) > 2:
            index = waiting.pop(0)
            for _ in range(2):
                record(pruner, index, (index >= 50).float())
    assert pruner.epoch > 3


def test_where_warnings_are_errors_the_epoch_after_one_can_be_trained(device: torch.device) -> None:
    pruner = half_pruned(device)
    record(pruner, [i for i in range(500) if not pruner.is_kept(i)], [0.0] * (500 - pruner.stats.tier_kept[1]))
    pruner.set_epoch(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="index: "):
            len(pruner.sampler)
    assert len(list(pruner.sampler)) == pruner.stats.kept


# ---- validation ----


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_validation_step_cannot_overwrite_training_scores(device: torch.device, mode: type) -> None:
    pruner = half_pruned(device)
    before = snapshot(pruner)
    with mode(), pytest.raises(RuntimeError, match=r"where gradients are off.*record\(index, scores\)"):
        pruner.update([1, 2], torch.ones(2, device=device))
    assert snapshot(pruner) == before


# ---- several losses of a batch ----


def visit(pruner: InfoBatch, batch: list[int], kind: str) -> None:
    index = torch.tensor(batch)
    losses = torch.ones(len(batch), device=pruner.device)
    if kind == "update, update":
        pruner.update(index, losses)
        pruner.update(index, losses + 1)
    elif kind == "weigh, update":
        pruner.weigh(index.clone(), losses)
        pruner.update(index, losses)
    else:
        pruner.update(index, losses)
        pruner.record(index.clone(), losses + 1)


@pytest.mark.parametrize("kind", ["update, update", "weigh, update", "update, record"])
@pytest.mark.parametrize("lengths", [{}, {"batch_size": 8, "steps_per_epoch": 20}], ids=["dynamic", "constant"])
def test_progress_counts_samples_and_not_losses(device: torch.device, kind: str, lengths: dict[str, int]) -> None:
    pruner = InfoBatch(160, 4, device=device, **lengths)  # type: ignore[arg-type]
    for step, batch in enumerate(pruner.sampler.batches(8)):
        visit(pruner, batch, kind)
        assert pruner.progress == pytest.approx((step + 1) / 20 / 4)
        if step == 9:
            break
    again = InfoBatch(160, 4, device=device, **lengths)  # type: ignore[arg-type]
    again.load_state_dict(copy.deepcopy(pruner.state_dict()))
    left = list(again.sampler.batches(8))
    assert (len(left), again.progress) == (10, pytest.approx(0.125))


@pytest.mark.parametrize("lengths", [{}, {"batch_size": 8, "steps_per_epoch": 20}], ids=["dynamic", "constant"])
def test_more_losses_than_samples_are_one_warning_that_names_weigh(device: torch.device, lengths: dict[str, int]) -> None:
    pruner = InfoBatch(160, 4, device=device, **lengths)  # type: ignore[arg-type]

    def train_twice() -> None:
        for batch in pruner.sampler.batches(8):
            for _ in range(2):
                record(pruner, torch.tensor(batch), [1.0] * len(batch))

    with pytest.warns(
        RuntimeWarning, match=r"update got \d+ losses in epoch 0, but the epoch visits 160 samples: .*weigh\(index, losses\)"
    ) as told:
        train_twice()
    assert len(told) == 1


@pytest.mark.parametrize("written", ["by torch", "anew"])
def test_a_tensor_of_indices_that_is_used_again_counts_where_its_contents_are_new(device: torch.device, written: str) -> None:
    pruner = InfoBatch(160, 4, device=device)
    index = torch.empty(8, dtype=torch.int64)
    for batch in pruner.sampler.batches(8):
        index = torch.tensor(batch) if written == "anew" else index.copy_(torch.tensor(batch))
        pruner.update(index, torch.ones(8, device=device))
    assert pruner.stats.scored == 160
    pruner.set_epoch(1)
    everyone = torch.arange(160)[pruner.is_kept(torch.arange(160)).cpu()]
    for epoch in (1, 2):  # the same object in the next epoch
        pruner.set_epoch(epoch)
        pruner.update(everyone, torch.ones(len(everyone), device=device))
        assert pruner.stats.scored == len(everyone)


@pytest.mark.parametrize("lengths", [{}, {"batch_size": 8, "steps_per_epoch": 20}], ids=["dynamic", "constant"])
def test_a_buffer_that_others_than_torch_write_counts_where_its_contents_are_new(lengths: dict[str, int]) -> None:
    pruner = InfoBatch(160, 4, **lengths)  # type: ignore[arg-type]
    buffer = np.empty(8, dtype=np.int64)
    index = torch.from_numpy(buffer)
    for step, batch in enumerate(pruner.sampler.batches(8)):
        buffer[:] = batch
        for _ in range(2):
            pruner.update(index, torch.ones(8))
        assert pruner.progress == pytest.approx((step + 1) / 80)


def test_an_epoch_may_be_iterated_again_with_losses(device: torch.device) -> None:
    pruner = InfoBatch(160, 4, device=device)
    for steps in (7, 20, 20):
        pruner.set_epoch(0)
        for _, batch in zip(range(steps), pruner.sampler.batches(8), strict=False):
            record(pruner, batch, [1.0] * 8)
    assert pruner.progress == 0.25
