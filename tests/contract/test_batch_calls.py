"""``record`` and ``weigh``, which are for what ``update`` is not; and copies of what holds a pruner."""

import copy
import math

import pytest
import torch
from torch.utils.data import DataLoader

from infobatch_fast import InfoBatch, MeanThreshold, with_index
from support.runs import half_pruned, snapshot

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
