"""An epoch's order on the host, piece by piece."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch

from .plan import Plan

Ids: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

NOTHING: Ids = np.empty(0, dtype=np.int64)
CHUNK = 1 << 16  # indices computed at a time: 0.5 MB, some milliseconds on a CPU


class Chunk(NamedTuple):
    """Positions [first, end) of the order."""

    first: int
    end: int
    ids: Ids


def read_chunks(plan: Plan, start: int, size: int) -> Iterator[Chunk]:
    """The order from position ``start`` in pieces of ``size``."""
    if plan.side_stream is not None:
        yield from _read_ahead(plan, start, size, plan.side_stream)
        return
    for first in range(start, plan.length, size):
        end = min(first + size, plan.length)
        yield Chunk(first, end, plan.order(first, end).numpy())


class _Flight(NamedTuple):
    """A piece on its way from the GPU."""

    first: int
    end: int
    ids: torch.Tensor  # int64, pinned
    done: torch.cuda.Event


def _read_ahead(plan: Plan, start: int, size: int, stream: torch.cuda.Stream) -> Iterator[Chunk]:
    """While a piece is used, the next one is computed and copied on a stream of its own.

    Training never waits for it, and the loader's main process waits for the first piece only. The plan is complete by then, as
    the host has waited for it. An iteration that is broken off waits for the piece under way: what that reads may be freed next.
    """
    process = os.getpid()

    def launch(first: int) -> _Flight | None:
        if first >= plan.length:
            return None
        end = min(first + size, plan.length)
        with torch.cuda.stream(stream):
            ids = torch.empty(end - first, dtype=torch.int64, device="cpu", pin_memory=True)
            ids.copy_(plan.order(first, end), non_blocking=True)
            return _Flight(first, end, ids, stream.record_event())

    flight = following = launch(start)
    try:
        while flight is not None:
            following = launch(flight.end)
            flight.done.synchronize()
            yield Chunk(flight.first, flight.end, flight.ids.numpy())
            flight = following
    finally:
        if following is not None and os.getpid() == process:  # a forked worker has no part in it
            following.done.synchronize()
