"""Misuse of ``update`` is noticed, and what else may be called is right."""

import copy
import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Subset, WeightedRandomSampler

from infobatch_fast import InfoBatch, MeanThreshold, with_index
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
    text = rf"index: {len(wrong)} losses came of samples that the plan of epoch 1 does not keep, for instance ({one}):"
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
    with pytest.raises(IndexError, match=rf"index: 2 losses came of samples that the plan of epoch 1 does not keep.*{unkept[0]}"):
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

    with pytest.warns(RuntimeWarning, match=r"update got \d+ losses in epoch 0, and 160 samples .*weigh\(index, losses\)") as told:
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


def test_an_epoch_may_be_iterated_again_with_losses(device: torch.device) -> None:
    pruner = InfoBatch(160, 4, device=device)
    for steps in (7, 20, 20):
        pruner.set_epoch(0)
        for _, batch in zip(range(steps), pruner.sampler.batches(8), strict=False):
            record(pruner, batch, [1.0] * 8)
    assert pruner.progress == 0.25


# ---- record and weigh ----


def test_weigh_returns_what_update_would_and_records_nothing(device: torch.device) -> None:
    pruner = half_pruned(device)
    losses = torch.tensor([0.5, 1.25, 3.0, 0.25], device=device, requires_grad=True)
    before = snapshot(pruner)
    for reduction in ("mean", "sum", "none"):
        weighed = pruner.weigh([1, 2, 600, 700], losses, reduction)
        assert torch.equal(weighed, pruner.weights([1, 2, 600, 700]) * losses if reduction == "none" else weighed)
        assert snapshot(pruner) == before
        updated = copy_of(pruner, device).update([1, 2, 600, 700], losses, reduction=reduction)
        torch.testing.assert_close(weighed, updated)
        assert torch.equal(*(torch.autograd.grad(each.sum(), losses)[0] for each in (weighed, updated)))
    with torch.no_grad():
        assert pruner.weigh([1, 600], torch.ones(2, device=device)).item() == 1.5


def copy_of(pruner: InfoBatch, device: torch.device) -> InfoBatch:
    other = InfoBatch(pruner.num_samples, 10, delta=1.0, device=device)
    other.load_state_dict(copy.deepcopy(pruner.state_dict()))
    return other


def test_recorded_scores_count_in_the_next_plan_and_are_no_visits(device: torch.device) -> None:
    pruner = InfoBatch(1000, 10, delta=1.0, device=device)
    with torch.no_grad():  # before the first plan, which is then a pruned one
        pruner.record(torch.arange(1000), torch.tensor([0.0] * 500 + [2.0] * 500, dtype=torch.float64, device=device))
    assert pruner.engine.epochs.plan_in_force is None
    assert 0 < pruner.stats.saved_fraction < 0.3
    unkept = [i for i in range(500) if not pruner.is_kept(i)]
    list(zip(range(3), pruner.sampler, strict=False))
    pruner.record(torch.arange(1000), torch.ones(1000, device=device))
    stats = pruner.stats
    assert (stats.scored, stats.unkept, pruner.progress) == (0, 0, 0.0)
    assert pruner.scores(unkept[:2]).tolist() == [1.0, 1.0]
    again = copy_of(pruner, device)
    assert list(again.sampler) == pruner.sampler.indices().tolist(), "nothing of the epoch was visited"
    pruner.record([3, 4], torch.tensor([math.nan, 7.0], device=device))
    assert (pruner.stats.non_finite, pruner.scores([3, 4]).tolist()) == (1, [1.0, 7.0])


def test_recorded_scores_are_averaged(device: torch.device) -> None:
    pruner = InfoBatch(10, 10, policy=MeanThreshold(0.5, momentum=0.75), device=device)
    pruner.record([1, 2], torch.tensor([4.0, 8.0], device=device))
    pruner.record([2, 3], torch.tensor([0.0, 1.0], device=device))
    assert pruner.scores([1, 2, 3]).tolist() == [4.0, 6.0, 1.0]


@pytest.mark.parametrize("bad", [-1, 1000])
def test_record_and_weigh_refuse_what_update_refuses(device: torch.device, bad: int) -> None:
    pruner = half_pruned(device, check="sync")
    before = snapshot(pruner)
    for call in (pruner.record, pruner.weigh):
        with pytest.raises(IndexError, match=f"for instance {bad};"):
            call([600, bad], torch.ones(2, device=device))
        with pytest.raises(ValueError, match="must hold one number for each of the 2 indices"):
            call([600, 601], torch.ones(3, device=device))
        with pytest.raises(TypeError, match="must be a plain tensor"):
            call([600, 601], torch.ones(2, device=device).to_sparse())
        with pytest.raises(TypeError, match="index must be"):
            call([1.5], torch.ones(1, device=device))
    with pytest.raises(ValueError, match="reduction must be one of"):
        pruner.weigh([600], torch.ones(1, device=device), "max")  # type: ignore[arg-type]
    assert snapshot(pruner) == before


def test_weigh_and_record_compile_in_one_graph_with_update(device: torch.device) -> None:
    eager, compiled = half_pruned(device), half_pruned(device)

    def step(pruner: InfoBatch, index: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        first = pruner.weigh(index, x.square())
        loss = pruner.update(index, x) + first
        pruner.record(index, x + 1)
        return loss

    fast = torch.compile(step, fullgraph=True, backend="aot_eager")
    for epoch in (1, 2):
        index = torch.tensor([i for i in range(8) if eager.is_kept(i)] + [600], device=device)
        x = torch.rand(len(index), device=device)
        assert step(eager, index, x).item() == pytest.approx(fast(compiled, index, x).item())
        assert snapshot(eager) == snapshot(compiled)
        for pruner in (eager, compiled):
            pruner.set_epoch(epoch + 1)


# ---- copies ----


def test_a_copy_of_a_model_or_a_loader_refers_to_the_same_pruner(device: torch.device) -> None:
    module = torch.nn.Linear(2, 1)
    module.pruner = pruner = half_pruned(device)
    for copied in (copy.deepcopy(module), copy.copy(module)):
        assert copied.pruner is pruner
        assert copied.weight.shape == (1, 2)
    loader = DataLoader(with_index(range(1000)), 10, sampler=pruner.sampler)
    assert copy.deepcopy(loader.sampler).engine is pruner.engine
    assert torch.equal(copy.deepcopy(pruner.sampler).indices(), pruner.sampler.indices())


def test_an_averaged_model_is_made_of_one_that_holds_its_pruner() -> None:
    module = torch.nn.Linear(2, 1)
    module.pruner = InfoBatch(10, 3)
    averaged = torch.optim.swa_utils.AveragedModel(module)
    averaged.update_parameters(module)
    assert averaged.module.pruner is module.pruner
