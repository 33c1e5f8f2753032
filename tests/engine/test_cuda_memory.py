"""Memory of a GPU: how much a pruner takes, and what happens where there is not enough."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from infobatch_fast import ImportanceSampling, InfoBatch, Policy, QuantileTiers
from support.gpus import ON_A_GPU
from support.runs import order, record_all, snapshot, train

pytestmark = ON_A_GPU


@pytest.mark.parametrize("policy", [None, QuantileTiers(), ImportanceSampling()], ids=str)
def test_scores_plan_and_order_take_at_most_4_7_bytes_a_sample(policy: Policy | None) -> None:
    def run(size: int) -> int:
        """Bytes at most, between construction and the end of an epoch."""
        gc.collect()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        pruner = InfoBatch(size, 3, policy=policy, delta=1.0, device="cuda")
        index = torch.arange(1000, device="cuda")
        for epoch in range(2):
            pruner.set_epoch(epoch)
            pruner.update(index, torch.rand(1000, device="cuda"))
            assert sum(map(len, pruner.sampler.batches(4096))) == pruner.stats.kept
        return torch.cuda.max_memory_allocated() - before

    run(1000)  # what is allocated once
    size = 20_000_000
    assert 4.5 * size < run(size) <= 4.7 * size


@contextmanager
def room(size: int) -> Iterator[None]:
    """No more than ``size`` bytes can be allocated within."""
    gc.collect()
    torch.cuda.empty_cache()
    _, whole = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + size) / whole)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def message_of(call: Callable[[], object]) -> str:
    """The error's message; the error itself holds what was on its way when it was raised."""
    try:
        call()
    except torch.OutOfMemoryError as error:
        return str(error)
    raise AssertionError("nothing was raised")


SIZE = 200_000_000  # 800 MB of scores, 100 MB of marks, 19 MB of a directory
ROOMS = pytest.mark.parametrize("room_for", [400_000_000, 850_000_000, 905_000_000], ids=["nothing", "scores", "marks"])


def assert_names_what_it_wanted(message: str) -> None:
    wanted = re.search(r"(\d+) bytes", message)
    assert wanted is not None, message
    assert 4.5 * SIZE <= int(wanted[1]) <= 4.7 * SIZE, message
    assert f"{SIZE} samples" in message
    assert "cuda:0" in message


@ROOMS
def test_a_pruner_that_does_not_fit_says_how_many_bytes_it_wants_and_leaves_nothing(room_for: int) -> None:
    gc.collect()
    before = torch.cuda.memory_allocated()
    with room(room_for):
        message = message_of(lambda: InfoBatch(SIZE, 3, device="cuda"))
    gc.collect()
    assert_names_what_it_wanted(message)
    assert torch.cuda.memory_allocated() == before
    assert len(train(InfoBatch(100, 3, device="cuda"))) == 100  # the device goes on


@ROOMS
def test_growth_that_does_not_fit_says_so_and_changes_nothing(room_for: int) -> None:
    pruner, twin = (InfoBatch(1000, 5, delta=1.0, device="cuda") for _ in range(2))
    for each in (pruner, twin):
        record_all(each)
        each.set_epoch(1)
    gc.collect()
    before, known = torch.cuda.memory_allocated(), snapshot(pruner)
    with room(room_for):
        message = message_of(lambda: pruner.grow(SIZE))
    gc.collect()
    assert_names_what_it_wanted(message)
    assert torch.cuda.memory_allocated() == before
    assert (pruner.num_samples, pruner.data_source) == (1000, 1000)
    assert snapshot(pruner) == known
    assert order(pruner) == order(twin)
    assert train(pruner) == train(twin)
    pruner.grow(2000)
    assert (pruner.num_samples, pruner.epoch) == (2000, 2)
