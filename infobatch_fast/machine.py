"""What a figure was measured on: machine, versions, commit and command. Also the text of ``python -m infobatch_fast info``."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .engine import ops

PARTNERS = (
    *("accelerate", "transformers", "datasets", "lightning", "pytorch-lightning", "torchdata", "tensorboard", "webdataset"),
    *("mosaicml-streaming", "timm", "pytorch-optimizer", "torchvision", "matplotlib", "infobatch"),
)


def _first_value(path: str, key: str) -> str | None:
    """The value of ``key`` in a file of ``key : value`` lines, as those under /proc are."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key) and ":" in line), None)


def available_bytes() -> int:
    """Host memory that can be taken without swapping; all of it where the system does not say."""
    free = _first_value("/proc/meminfo", "MemAvailable")
    return int(free.split()[0]) * 1024 if free else total_bytes()


def total_bytes() -> int:
    """Host memory; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def clock_hertz() -> float | None:
    """Clock of the CPU as the system states it, at this moment or its maximum."""
    maximum = Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if maximum.exists():
        return float(maximum.read_text()) * 1e3
    now = _first_value("/proc/cpuinfo", "cpu MHz")
    return float(now) * 1e6 if now else None


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> list[float]:
    """The system's load averages over 1, 5 and 15 minutes: what else was running."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else []


def gpus() -> list[dict[str, Any]]:
    """The CUDA devices that torch sees."""
    found = []
    for ordinal in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.cuda.get_device_properties(ordinal)
        found.append(
            {
                "name": device.name,
                "capability": f"{device.major}.{device.minor}",
                "memory_bytes": device.total_memory,
                "multiprocessors": device.multi_processor_count,
                "clock_hertz": getattr(device, "clock_rate", 0) * 1e3 or None,
            }
        )
    return found


def machine() -> dict[str, Any]:
    """The hardware and its system, without the host's name."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu": _first_value("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "clock_hertz": clock_hertz(),
        "memory_bytes": total_bytes(),
        "huge_pages": _huge_pages(),
        "gpus": gpus(),
    }


def _huge_pages() -> str | None:
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return path.read_text().partition("[")[2].partition("]")[0] if path.exists() else None


def versions() -> dict[str, Any]:
    """Versions and build settings of everything that a figure depends on."""
    return {
        "infobatch_fast": ops.VERSION,
        "algorithm": ops.ALGORITHM_VERSION,
        "compiler": ops.COMPILER,
        "openmp": ops.OPENMP,
        "cuda_toolkit": ops.CUDA_TOOLKIT,
        "cuda_architectures": ops.CUDA_ARCHITECTURES,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
    }


def commit() -> str | None:
    """The commit of the source tree that this package was imported from, "+changes" if it was changed; None outside of one."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def provenance(arguments: list[str], program: str = "python -m infobatch_fast") -> dict[str, Any]:
    """All of it, for the head of a JSON file."""
    return {
        "format": 1,
        "command": shlex.join([*program.split(), *arguments]),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "load_before": load(),
    }


def driver() -> str | None:
    """Version of the GPU driver; None where there is none."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return None
    return lines[0] if lines else None


def partners() -> dict[str, str]:
    """Installed ones of the packages that infobatch_fast works with, and their versions."""
    found = {}
    for name in PARTNERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def info() -> str:
    """A text to paste into a bug report."""
    entries: dict[str, Any] = {**versions(), "commit": commit(), **machine(), "driver": driver() or "none"}
    entries["threads"] = f"{torch.get_num_threads()} of torch, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}"
    entries["gpus"] = ", ".join(f"{gpu['name']} ({gpu['capability']})" for gpu in entries["gpus"]) or "none"
    entries["memory_bytes"] = f"{entries['memory_bytes'] / 2**30:.1f} GiB"
    entries["clock_hertz"] = "unknown" if not entries["clock_hertz"] else f"{entries['clock_hertz'] / 1e9:.2f} GHz"
    entries["cuda_toolkit"] = entries["cuda_toolkit"] or "none: built without CUDA"
    entries["cuda_architectures"] = entries["cuda_architectures"] or "none: built without CUDA"
    entries["torch_cuda"] = entries["torch_cuda"] or "none: torch is a CPU build"
    entries["packages"] = ", ".join(f"{name} {version}" for name, version in partners().items()) or "none"
    names = {"memory_bytes": "memory", "clock_hertz": "clock", "gpus": "devices"}
    return "\n".join(f"{names.get(key, key).replace('_', ' '):<20} {value}" for key, value in entries.items())
