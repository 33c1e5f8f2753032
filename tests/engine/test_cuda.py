"""What holds on a GPU beyond what every test with the ``device`` fixture asks of both devices."""

from itertools import islice

import pytest
import torch

from infobatch_fast import ImportanceSampling, InfoBatch, MeanThreshold, QuantileTiers
from support.gpus import GPUS, ON_A_GPU
from support.runs import capture
from support.syncs import host_syncs, no_host_sync

pytestmark = ON_A_GPU

SIZES = (1, 31, 32, 33, 1023, 5000, 300_001)


def pair(size, **arguments):
    return [InfoBatch(size, num_epochs=8, delta=1.0, seed=3, device=device, **arguments) for device in ("cpu", "cuda")]


def train(pruner, epoch, generator, batch=257):
    """One epoch in which losses come from a generator, with duplicates and non-finite values among them."""
    pruner.set_epoch(epoch)
    ids = torch.tensor(list(pruner.sampler))
    for first in range(0, len(ids), batch):
        index = ids[first : first + batch]
        index = torch.cat([index, index[:5].flip(0), index[:5]])
        losses = torch.randn(len(index), generator=generator).exp()
        losses[3::97] = torch.nan
        pruner.update(index.to(pruner.device), losses.to(pruner.device))
    return ids


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("policy", [None, QuantileTiers(), ImportanceSampling()])
def test_cpu_and_gpu_leave_the_same_bits_after_any_sequence_of_updates(size, policy):
    cpu, gpu = pair(size, policy=policy)
    for epoch in range(4):
        orders = [train(pruner, epoch, torch.Generator().manual_seed(epoch)) for pruner in (cpu, gpu)]
        assert torch.equal(*orders)
        assert torch.equal(cpu.engine.table.row_marks, gpu.engine.table.row_marks.cpu())
        assert torch.equal(cpu.engine.table.scores.view(torch.int32), gpu.engine.table.scores.view(torch.int32).cpu())
        assert cpu.stats.thresholds == gpu.stats.thresholds
        assert cpu.stats.tier_kept == gpu.stats.tier_kept


def test_a_state_moves_between_devices():
    cpu, gpu = pair(5000)
    train(cpu, 0, torch.Generator().manual_seed(0))
    cpu.set_epoch(1)
    seen = cpu.sampler.indices(0, 999)
    cpu.update(seen, torch.ones(999))
    gpu.load_state_dict({k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in cpu.state_dict().items()})
    assert list(gpu.sampler) == cpu.sampler.indices(999).tolist()


def test_update_issues_no_host_sync():
    _, gpu = pair(5000)
    index, losses = torch.arange(512, device="cuda"), torch.rand(512, device="cuda", requires_grad=True)
    on_cpu = index.cpu()
    pinned = on_cpu.pin_memory()
    gpu.update(index, losses)
    torch.cuda.synchronize()
    with no_host_sync():
        for where in (index, on_cpu, pinned):
            gpu.update(where, losses).backward()
            gpu.update(where, losses.half(), scores=losses.detach().double(), reduction="none")


def test_late_losses_are_recorded_without_a_host_sync():
    gpu = InfoBatch(5000, 8, delta=1.0, steps_per_epoch=40, batch_size=250, device="cuda")
    losses = torch.rand(250, device="cuda", requires_grad=True)
    batches = [torch.tensor(batch, device="cuda") for batch in islice(gpu.sampler.batches(250), 25)]  # 20 of the plan before
    gpu.update(batches[0], losses)
    torch.cuda.synchronize()
    with no_host_sync():
        for index in batches[1:]:
            gpu.update(index, losses).backward()
            gpu.update(index, losses).backward()
    assert gpu.epoch == 1
    assert gpu.stats.unkept == 0


def test_an_epoch_has_one_host_sync():
    _, gpu = pair(5000)
    gpu.update(torch.arange(5000, device="cuda"), torch.rand(5000, device="cuda"))
    for epoch in (1, 2):
        gpu.set_epoch(epoch)
        with host_syncs() as found:  # a wait for an event, which torch does not tell of, would take the place of its one
            len(gpu.sampler)
        assert len(found) <= 1, found


def test_update_is_captured_in_a_graph_and_replayed():
    _, gpu = pair(5000)
    index, losses = torch.arange(256, device="cuda"), torch.rand(256, device="cuda")
    graph, out = capture(gpu, index, losses)
    for shift in (0, 1000, 2000):
        index.copy_(torch.arange(256, device="cuda") + shift)
        losses.uniform_()
        graph.replay()
        assert torch.equal(gpu.scores(index), losses)
        torch.testing.assert_close(out, losses.mean())


CALLS = {
    "update": lambda gpu, index, losses: gpu.update(index, losses),
    "weights": lambda gpu, index, losses: gpu.weights(index),
    "is_kept": lambda gpu, index, losses: gpu.is_kept(index),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("index", [torch.arange(4), [0, 1, 2, 3]], ids=["tensor", "list"])
def test_an_index_of_the_cpu_is_refused_while_a_graph_is_captured_and_taken_again_afterwards(call, index):
    _, gpu = pair(5000)
    losses = torch.ones(4, device="cuda")

    def capture_it():
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            losses.mul_(2)  # torch warns of graphs with nothing in them
            CALLS[call](gpu, index, losses)

    CALLS[call](gpu, index, losses)  # makes the plan
    with pytest.raises(RuntimeError, match="put it on cuda:0 before capturing"):
        capture_it()
    CALLS[call](gpu, index, losses)
    assert gpu.stats.scored == (8 if call == "update" else 0)


def test_weights_are_looked_up_without_a_host_sync():
    _, gpu = pair(5000)
    index = torch.arange(512, device="cuda")
    gpu.weights(index)
    with no_host_sync():
        gpu.weights(index)


def test_update_compiles_without_graph_breaks():
    cpu, gpu = pair(5000)
    step = torch.compile(lambda index, losses: gpu.update(index, losses * 2), fullgraph=True)
    index, losses = torch.arange(256, device="cuda"), torch.rand(256, device="cuda")
    expected = cpu.update(index.cpu(), losses.cpu() * 2)
    torch.testing.assert_close(step(index, losses).cpu(), expected)
    assert torch.equal(gpu.scores(index), losses * 2)


@pytest.mark.parametrize("policy", [None, MeanThreshold(momentum=0.5)])
@pytest.mark.parametrize("batch", [5, 1000, 4000, 20_000])  # one block, clusters where there are some, two kernels
def test_bad_indices_do_not_fault_the_context_and_are_named(batch, policy):
    _, gpu = pair(5000, policy=policy)
    index = torch.arange(batch, device="cuda") % 4999
    good = index.unique()
    bad = torch.tensor([5000, -1, 2**40, -(2**63), 2**63 - 1, 4999 + 2**32], device="cuda")
    index[1::4] = bad.repeat(batch)[: len(index[1::4])]
    good = good[torch.isin(good, index)]
    for call in (lambda: gpu.update(index, torch.ones(batch, device="cuda")), lambda: gpu.weights(index)):
        call()
        torch.cuda.synchronize()
        with pytest.raises(IndexError, match=f"index: {len(index[1::4])} out of range for 5000 samples"):
            _ = gpu.stats
    assert gpu.scores(good).tolist() == [1.0] * len(good)
    assert gpu.scores().isnan().sum() == 5000 - len(good)


def test_the_last_of_many_duplicates_wins():
    _, gpu = pair(64)
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, 64, (1 << 18,), generator=generator)
    losses = torch.randn(1 << 18, generator=generator)
    gpu.update(index.cuda(), losses.cuda())
    cpu, _ = pair(64)
    cpu.update(index, losses)
    assert torch.equal(gpu.scores().cpu(), cpu.scores())


def test_indices_are_device_tensors():
    _, gpu = pair(5000)
    assert gpu.sampler.indices().device.type == "cuda"
    assert gpu.sampler.indices().tolist() == list(gpu.sampler)


def test_tensors_of_another_device_are_refused():
    cpu, gpu = pair(5000)
    with pytest.raises(ValueError, match=r"losses is on cpu and the pruner on cuda"):
        gpu.update(torch.arange(4), torch.ones(4))
    with pytest.raises(ValueError, match=r"index is on cuda.* and the pruner on cpu"):
        cpu.update(torch.arange(4, device="cuda"), torch.ones(4))


@pytest.mark.skipif(GPUS < 2, reason="needs two GPUs")
def test_a_pruner_works_on_a_gpu_that_is_not_the_current_one():
    pruner = InfoBatch(5000, num_epochs=2, device="cuda:1")
    with torch.cuda.device(0):
        pruner.update(torch.arange(64), torch.ones(64, device="cuda:1"))
        pruner.set_epoch(1)
        assert len(list(pruner.sampler)) == len(pruner.sampler)
        assert torch.cuda.current_device() == 0
