"""Memory that one contender takes, in a process of its own: ``python -m infobatch_fast.bench.memory NAME SIZE DEVICE``."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
from collections import deque
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from .contender import FILL, fill_all
from .roster import contender_class

BEFORE = 100_000  # samples


def _resident() -> int:
    """Bytes in use. What the allocator keeps of freed ones is given back first, where it is glibc's."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return _peak()


def _peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _use(name: str, size: int, device: torch.device) -> Any:
    contender = contender_class(name)(size, device)
    fill_all([contender], size)
    contender.plan(1)
    ids = contender.ids()
    deque(islice(ids, 1000), maxlen=0)
    return contender, ids


def measure(name: str, size: int, device: torch.device) -> dict[str, Any]:
    """Bytes that a contender holds when it has planned an epoch and given its first ids, and what it took at most before."""
    _use(name, BEFORE, device)  # libraries, threads and chunks that do not depend on the size
    torch.empty(FILL).normal_().exp_()
    before = _resident()
    used = _use(name, size, device)
    host = {"held_bytes": max(0, _resident() - before), "peak_bytes": max(0, _peak() - before)}
    del used
    if device.type != "cuda":
        return host
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    used = _use(name, size, device)
    host |= {"gpu_held_bytes": torch.cuda.memory_allocated(device) - before}
    host |= {"gpu_peak_bytes": torch.cuda.max_memory_allocated(device) - before}
    del used
    return host


def measure_apart(name: str, size: int, device: torch.device) -> dict[str, Any]:
    """The same in another process, whose memory nothing else has touched.

    Raises:
        RuntimeError: The process failed.
    """
    command = [sys.executable, "-m", "infobatch_fast.bench.memory", name, str(size), str(device)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the memory of {name} with {size} samples could not be measured: {done.stderr.strip()[-500:]}")
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), torch.device(sys.argv[3]))))
