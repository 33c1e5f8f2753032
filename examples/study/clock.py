"""Seconds in training, and those of them in the sampler. Measuring accuracy and writing checkpoints are left out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Adds up the time between ``start`` and ``stop``.

    Attributes:
        wall: Seconds.
        cpu: Processor seconds of this process: what the work costs, however busy the machine is with other things.
        sampler: Wall seconds inside ``in_sampler``.
    """

    def __init__(self, wall: float = 0.0, cpu: float = 0.0, sampler: float = 0.0) -> None:
        self.wall, self.cpu, self.sampler = wall, cpu, sampler

    @property
    def seconds(self) -> tuple[float, float, float]:
        return self.wall, self.cpu, self.sampler

    def start(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.wall += time.perf_counter() - self._wall
        self.cpu += time.process_time() - self._cpu

    @contextmanager
    def in_sampler(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.sampler += time.perf_counter() - begin
