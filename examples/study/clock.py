"""Seconds in training, and those of them in the sampler. Measuring accuracy and writing checkpoints are left out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Adds up the time between ``start`` and ``stop``.

    Attributes:
        wall: Seconds.
        cpu: Processor seconds of this process: what the work costs, however busy the machine is with other things.
        sampler: Wall seconds inside ``in_sampler``: on a GPU the device's time, measured by events, as the host runs ahead of it.
    """

    def __init__(self, device: str, wall: float = 0.0, cpu: float = 0.0, sampler: float = 0.0) -> None:
        self.wall, self.cpu, self.sampler = wall, cpu, sampler
        self._on_gpu = device.startswith("cuda")
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def start(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize()
            self.sampler += sum(begin.elapsed_time(end) for begin, end in self._events) / 1e3
            self._events.clear()
        self.wall += time.perf_counter() - self._wall
        self.cpu += time.process_time() - self._cpu

    @contextmanager
    def in_sampler(self) -> Iterator[None]:
        if self._on_gpu:
            events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            events[0].record()
            yield
            events[1].record()
            self._events.append(events)
        else:
            begin = time.perf_counter()
            yield
            self.sampler += time.perf_counter() - begin
