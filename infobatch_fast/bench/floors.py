"""Floors: what the machine takes for the least that an operation must do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch

from ..machine import clock_hertz
from ..sampler import RUN

# Philox4x32-10 decides eight samples a block. Each of its ten rounds takes two 32 x 32 -> 64-bit products, their two high halves
# (a shift on a CPU, a register of its own on a GPU) and two three-way exclusive-ors, which are four without AVX-512. The keys are
# the same for all blocks, and cost nothing where blocks go side by side.
PHILOX_SAMPLES = 8
CPU_OPERATIONS, CPU_OPERATIONS_AVX512, GPU_OPERATIONS = 10 * 8, 10 * 6, 10 * 4
# Products of 64 bits fill a lane of that width, and the widest cores begin four vector operations in a cycle.
CPU_LANES = {"AVX512": 4 * 8, "AVX2": 4 * 4}
CPU_LANES_ELSEWHERE = 4 * 2
GPU_LANES = 64  # of 32 bits, a multiprocessor and cycle: NVIDIA, compute capability 8.0 to 9.0


def read_scores(scores: torch.Tensor) -> object:
    """One read of all scores, by torch's own reduction: float32 [n]."""
    return scores.sum()


def copy(source: torch.Tensor, target: torch.Tensor) -> object:
    """One copy on the device: a read and a write of every element."""
    return target.copy_(source)


def read_at_random(marks: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """A word of the marks for each index: an order that is nowhere written out reads the marks at a random place for each.

    Args:
        marks: int64 [N / 16], as large as the marks of N samples.
        places: int64 [k].
    """
    return marks.index_select(0, places)


def ints(ids: torch.Tensor) -> Iterator[int]:
    """The Python ints of ids that lie ready, int64 [k] on the CPU: what a ``DataLoader`` takes cannot be had for less."""
    return chain.from_iterable(batches(ids, RUN))


def batches(ids: torch.Tensor, size: int) -> Iterator[list[int]]:
    """The same in lists of ``size``."""
    array = ids.numpy()
    return (array[first : first + size].tolist() for first in range(0, len(array), size))


def scatter(scores: torch.Tensor, index: torch.Tensor, losses: torch.Tensor) -> object:
    """Storing a batch's losses and nothing else: no update can do without."""
    return scores.index_copy_(0, index, losses)


def philox_bound(device: torch.device, threads: int) -> dict[str, Any] | None:
    """Nanoseconds a sample that the draws of a plan take if nothing but their arithmetic counts: calculated, not measured.

    Returns:
        The bound and what it is calculated from: operations of a lane for a sample, lanes that begin one in a cycle, and the clock
        that the system states, which a core may exceed. None where it states none.
    """
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        operations, lanes = GPU_OPERATIONS, GPU_LANES * properties.multi_processor_count
        hertz = getattr(properties, "clock_rate", 0) * 1e3
    else:
        instructions = torch.backends.cpu.get_cpu_capability()
        operations = CPU_OPERATIONS_AVX512 if instructions == "AVX512" else CPU_OPERATIONS
        lanes = CPU_LANES.get(instructions, CPU_LANES_ELSEWHERE) * threads
        hertz = clock_hertz() or 0.0
    if not hertz:
        return None
    return {
        "operations_a_sample": operations / PHILOX_SAMPLES,
        "lanes": lanes,
        "clock_hertz": hertz,
        "ns_a_sample": operations / PHILOX_SAMPLES / lanes / hertz * 1e9,
    }
