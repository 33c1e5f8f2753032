"""Training loops on a GPU: data that stays there, captured graphs over several plans, restarts, and NCCL."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from infobatch_fast import ImportanceSampling, InfoBatch, MeanThreshold, Policy, QuantileTiers
from support.gpus import ON_A_GPU
from support.policies import Alternating
from support.ranks import run_ranks
from support.restarts import BATCH, restored, run_of, saved
from support.runs import capture, loss_of, order, record, record_all, snapshot, train
from support.syncs import no_host_sync

pytestmark = ON_A_GPU

EACH = [MeanThreshold(), QuantileTiers(), MeanThreshold(momentum=0.9), ImportanceSampling(momentum=0.5)]
POLICIES = pytest.mark.parametrize("policy", EACH, ids=str)


@POLICIES
def test_an_epoch_over_data_on_the_gpu_waits_for_nothing_after_its_plan(policy: Policy) -> None:
    size = 5000
    generator = torch.Generator("cuda").manual_seed(0)
    x, y = (torch.randn(size, *shape, device="cuda", generator=generator) for shape in ((8,), ()))
    weight = torch.zeros(8, device="cuda", requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.01)
    pruner = InfoBatch(size, 5, policy=policy, delta=1.0, device="cuda")
    newest = torch.full((size,), torch.nan, device="cuda")
    for epoch in range(5):
        pruner.set_epoch(epoch)
        ids = pruner.sampler.indices()
        with no_host_sync():
            for index in ids.split(128):
                losses = (x[index] @ weight - y[index]) ** 2
                optimizer.zero_grad()
                pruner.update(index, losses).backward()
                optimizer.step()
                newest[index] = losses.detach()
        stats = pruner.stats
        assert stats.scored == stats.kept == len(ids.unique()) == len(ids)
        assert (stats.kept == size) == (epoch == 0)
        if not policy.momentum:
            assert torch.equal(pruner.scores(), newest)


def assert_same_tables(one: InfoBatch, other: InfoBatch) -> None:
    tables = one.engine.table, other.engine.table
    assert torch.equal(*(table.scores.view(torch.int32) for table in tables))
    assert torch.equal(*(table.row_marks for table in tables))
    assert torch.equal(*(table.tiers for table in tables))


# The last two's cutoffs differ from plan to plan.
@pytest.mark.parametrize("policy", [*EACH, Alternating()], ids=str)
@pytest.mark.parametrize("batch", [256, 1025, 5000])  # in one launch where there are clusters; else the first alone is
def test_a_captured_update_goes_on_under_later_plans(policy: Policy, batch: int) -> None:
    size = 20_000
    eager, captured = (InfoBatch(size, 6, policy=copy.deepcopy(policy), delta=0.7, seed=4, device="cuda") for _ in range(2))
    index, losses = torch.arange(batch, device="cuda"), torch.rand(batch, device="cuda")
    graph, out = capture(captured, index, losses)
    eager.update(index, losses)
    for epoch in range(6):  # the first four are pruned
        for each in (eager, captured):
            each.set_epoch(epoch)
        ids = eager.sampler.indices()
        assert torch.equal(captured.sampler.indices(), ids)
        assert (len(ids) == size) == (epoch == 0 or epoch >= 4)
        for part in ids[: len(ids) // batch * batch].split(batch):
            index.copy_(part)
            losses.uniform_()
            graph.replay()
            assert torch.equal(out, eager.update(part, losses))
        assert_same_tables(captured, eager)


@POLICIES
@pytest.mark.parametrize("batch", [256, 1025])
def test_a_captured_update_goes_on_under_the_plan_of_a_state_that_is_loaded(policy: Policy, batch: int) -> None:
    size = 20_000
    eager, captured = (InfoBatch(size, 6, policy=policy, delta=0.7, seed=4, device="cuda") for _ in range(2))
    other = InfoBatch(size, 6, policy=MeanThreshold(0.8), delta=0.7, seed=4, device="cuda")
    everyone = torch.arange(size, device="cuda")
    record_all(other)
    other.set_epoch(2)
    visited = other.sampler.indices()[:3000]
    record(other, visited, loss_of(visited, 2))
    index, losses = torch.arange(batch, device="cuda"), torch.rand(batch, device="cuda")
    graph, out = capture(captured, index, losses)
    for each in (eager, captured):
        each.load_state_dict(copy.deepcopy(other.state_dict()))
    for epoch in (2, 3):
        if epoch == 3:
            for each in (eager, captured):
                each.set_epoch(epoch)
            assert torch.equal(captured.sampler.indices(), eager.sampler.indices())
        ids = eager.sampler.indices()
        assert batch < len(ids) < size
        for part in ids[: len(ids) // batch * batch].split(batch):
            index.copy_(part)
            losses.uniform_()
            graph.replay()  # in epoch 2 without another call of the captured pruner since the state was loaded
            assert torch.equal(out, eager.update(part, losses))
        assert_same_tables(captured, eager)
        weights = captured.weights(everyone)
        assert torch.equal(weights, eager.weights(everyone))
        assert (weights.max() > 4.9) == (epoch == 2)


@POLICIES
def test_a_restart_in_mid_epoch_leaves_the_same_rest_of_the_order_as_on_the_cpu(policy: Policy) -> None:
    size, rests = 300_007, []
    for device in ("cpu", "cuda"):
        pruner, again = (InfoBatch(size, 8, policy=policy, delta=1.0, seed=5, device=device) for _ in range(2))
        record_all(pruner)
        pruner.set_epoch(1)
        whole = pruner.sampler.indices()
        place = torch.arange(len(whole), device=device)
        visited = (place < 100_000) | (place % 7 == 0)  # workers hand out some batches earlier than others
        for part in whole[visited].split(10_000):
            record(pruner, part, loss_of(part, 1))
        again.load_state_dict(copy.deepcopy(pruner.state_dict()))
        rest = again.sampler.indices()
        assert torch.equal(rest, whole[~visited])
        record(pruner, rest, loss_of(rest, 1))
        record(again, rest, loss_of(rest, 1))
        for each in (pruner, again):
            each.set_epoch(2)
        assert torch.equal(again.sampler.indices(), pruner.sampler.indices())
        rests.append((rest.cpu(), again.sampler.indices().cpu(), again.engine.table.scores.view(torch.int32).cpu()))
    assert all(torch.equal(*pair) for pair in zip(*rests, strict=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # the compiler's own, at its import
@pytest.mark.parametrize("mode", [None, "reduce-overhead"])  # the second one captures graphs where it can
def test_a_compiled_step_records_under_every_plan_what_an_eager_one_does(mode: str | None) -> None:
    torch._dynamo.reset()
    eager, compiled = (InfoBatch(5000, 6, delta=0.7, seed=4, device="cuda") for _ in range(2))
    factor = torch.ones((), device="cuda", requires_grad=True)

    @torch.compile(fullgraph=True, mode=mode)
    def step(index: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        return compiled.update(index, losses * factor * 2)

    for epoch in range(6):
        for each in (eager, compiled):
            each.set_epoch(epoch)
        ids = eager.sampler.indices()
        assert torch.equal(compiled.sampler.indices(), ids)
        for index in ids[: len(ids) // 256 * 256].split(256):
            losses = loss_of(index, epoch).to("cuda")
            factor.grad = None
            result = step(index.clone(), losses)
            result.backward()
            expected = eager.update(index, losses * 2)
            torch.testing.assert_close(result, expected)
            torch.testing.assert_close(factor.grad, expected)
        assert_same_tables(compiled, eager)


# ---- NCCL ----


def go_through(device: str, folder: str | None) -> list[Any]:
    """Two epochs, of which the second one is cut, and the third; what came in which order, and all that is known in the end."""
    pruner = run_of(torch.device(device))
    visited = [train(pruner, BATCH)]
    pruner.set_epoch(1)
    visited.append(train(pruner, BATCH, steps=3))
    again = restored(saved(pruner), torch.device(device))
    assert order(again) == order(pruner)[3 * BATCH :]
    if folder is not None:
        dcp.save({"pruner": pruner}, checkpoint_id=folder)
        again = run_of(torch.device(device))
        dcp.load({"pruner": again}, checkpoint_id=folder)
    visited.append(train(again, BATCH))
    again.set_epoch(2)
    visited.append(train(again, BATCH))
    return [visited, snapshot(again)]


@pytest.mark.skipif(not dist.is_nccl_available(), reason="this torch has no NCCL")
def test_one_rank_of_nccl_decides_trains_and_goes_on_as_a_process_without_a_group(tmp_path: Path) -> None:
    assert run_ranks(1, go_through, "cuda", str(tmp_path), backend="nccl") == [go_through("cpu", None)]
