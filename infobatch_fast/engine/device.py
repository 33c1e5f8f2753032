"""Where a table may live."""

from __future__ import annotations

import torch

from . import ops


def check_device(device: torch.device | str | int | None) -> torch.device:
    """The device of a table; None is the CPU.

    Raises:
        ValueError: It is neither a CPU nor a CUDA device.
        RuntimeError: ``device`` asks for CUDA, but this build, this torch or this machine has none.
    """
    try:
        chosen = torch.device("cpu" if device is None else f"cuda:{device}" if isinstance(device, int) else device)
    except (TypeError, RuntimeError):
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be 'cpu' or 'cuda', got {device!r}")
    if chosen.type == "cpu":
        return torch.device("cpu")
    if ops.CUDA_ARCHITECTURES is None:
        raise RuntimeError(
            f"device={str(chosen)!r}: infobatch_fast was built without CUDA. Install the CUDA toolkit, put nvcc on PATH, and "
            "build again with INFOBATCH_CUDA=ON pip install --force-reinstall --no-deps ."
        )
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"device={str(chosen)!r}: torch sees no CUDA device (torch {torch.__version__}, built for CUDA "
            f"{torch.version.cuda}). Check the driver with nvidia-smi, and check that torch is a CUDA build"
        )
    index = torch.cuda.current_device() if chosen.index is None else chosen.index
    if index >= torch.cuda.device_count():
        raise ValueError(
            f"device={str(chosen)!r}: torch sees {torch.cuda.device_count()} CUDA devices, counted from 0: pass one of these"
        )
    return torch.device("cuda", index)
