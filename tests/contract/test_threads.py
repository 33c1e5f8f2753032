"""Loaders iterate in threads of their own: one that reads an order and one that goes on never touch the same memory unguarded."""

from __future__ import annotations

import copy
import itertools
import math
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch

from infobatch_fast import InfoBatch
from infobatch_fast.engine.planner import Planner
from support.runs import loss_of, record_all

SIZE, BATCH, SECONDS = 300_000, 4096, 60.0
STALE = r"start a new iteration after set_epoch\(\) or load_state_dict\(\)|take the batches of one iterator at a time"


def learned(device: torch.device, **kwargs: Any) -> InfoBatch:
    pruner = InfoBatch(SIZE, 400, delta=1.0, device=device, **kwargs)
    record_all(pruner)
    return pruner


class Reader:
    """Reads iterations in a thread until it is told to stop; what it met is either a right id or the error of a stale iterator."""

    def __init__(self, batches: Iterable[list[int]]) -> None:
        self._batches, self._stop = batches, threading.Event()
        self.read = self.wrong = 0
        self.errors: list[Exception] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                for batch in self._batches:
                    self.read += 1
                    self.wrong += not 0 <= min(batch) <= max(batch) < SIZE
                    if self._stop.is_set():
                        return
            except Exception as error:
                self.errors.append(error)

    @contextmanager
    def reading(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join(SECONDS)
        assert not self._thread.is_alive(), "it waits for ever"
        assert self.read > 0
        assert self.wrong == 0
        for error in self.errors:
            with pytest.raises(RuntimeError, match=STALE):
                raise error


def test_a_thread_reads_an_order_while_the_next_plans_are_made(device: torch.device) -> None:
    pruner = learned(device)
    with Reader(pruner.sampler.batches(BATCH)).reading():
        for epoch in range(1, 120):
            pruner.set_epoch(epoch)
            assert SIZE / 3 < len(pruner.sampler) <= SIZE
    pruner.set_epoch(200)
    order = pruner.sampler.indices().tolist()
    assert list(itertools.chain(*pruner.sampler.batches(BATCH))) == order
    assert len(set(order)) == len(order)


def test_a_thread_reads_an_order_while_states_are_loaded(device: torch.device) -> None:
    pruner = learned(device)
    states = []
    for epoch in (1, 2):
        pruner.set_epoch(epoch)
        len(pruner.sampler)
        states.append(copy.deepcopy(pruner.state_dict()))
    with Reader(pruner.sampler.batches(BATCH)).reading():
        for state in itertools.chain(*[states] * 15):
            pruner.load_state_dict(state)
            len(pruner.sampler)


def test_a_thread_reads_plans_that_follow_each_other_while_new_iterations_begin(device: torch.device) -> None:
    size = 64
    pruner = InfoBatch(5000, 400, delta=1.0, batch_size=size, steps_per_epoch=100, device=device)
    with Reader(pruner.sampler.batches(size)).reading():
        for step in range(20):
            with suppress(RuntimeError):  # the thread's iterator has taken the place of this one
                for batch in itertools.islice(pruner.sampler.batches(size), 3):
                    ids = torch.tensor(batch)
                    pruner.update(ids, loss_of(ids, step).to(device))


def together(calls: list[Callable[[], Any]]) -> None:
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> None:
        barrier.wait(SECONDS)
        call()

    threads = [threading.Thread(target=run, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive(), "it waits for ever"


def test_threads_that_need_a_plan_at_the_same_time_make_it_once(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    pruner = learned(device)
    made: list[int] = []
    make = Planner.make

    def noting(self: Planner, epoch: int, pruned: bool) -> Any:
        made.append(epoch)
        return make(self, epoch, pruned)

    monkeypatch.setattr(Planner, "make", noting)
    for epoch in range(1, 20):
        pruner.set_epoch(epoch)
        together([lambda: len(pruner.sampler), lambda: next(iter(pruner.sampler)), lambda: pruner.stats])
    assert made == list(range(1, 20))


def test_an_order_that_was_overwritten_is_an_error(device: torch.device) -> None:
    pruner = learned(device)
    pruner.set_epoch(1)
    plan = pruner.engine.epochs.plan()
    pruner.set_epoch(2)
    assert plan.order(0, 3).numel() == 3, "nothing is overwritten before the next plan is made"
    len(pruner.sampler)
    with pytest.raises(RuntimeError, match="this iterator belongs to epoch 1, but another plan has taken the place of its own"):
        plan.order(0, 3)


@pytest.mark.parametrize(("size", "batch"), [(48, 4), (200, 16)])
def test_training_while_a_loader_in_a_thread_crosses_the_ends_of_plans_loses_no_loss(size: int, batch: int) -> None:
    pruner = InfoBatch(size, 1000, steps_per_epoch=math.inf, delta=1.0)
    batches: queue.Queue[list[int] | Exception] = queue.Queue(8)
    stop = threading.Event()

    def load() -> None:
        try:
            for ids in pruner.sampler.batches(batch):
                batches.put(ids)
                if stop.is_set():
                    return
        except Exception as error:
            batches.put(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    loader = threading.Thread(target=load, daemon=True)
    loader.start()
    try:
        ends = time.monotonic() + 1.5
        while time.monotonic() < ends:
            ids = batches.get(timeout=SECONDS)
            if isinstance(ids, Exception):
                raise ids
            pruner.update(torch.tensor(ids), torch.rand(batch))
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        while loader.is_alive():
            with suppress(queue.Empty):
                batches.get(timeout=0.1)
    assert pruner.epoch > 20
