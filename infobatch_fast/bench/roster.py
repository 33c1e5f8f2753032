"""Who takes part: all contenders that memory has room for."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from ..machine import available_bytes
from .baselines import PlainTorch, Published, TorchDistributedSampler, TorchRandomSampler, VectorisedNumpy
from .contender import Contender, Ours
from .installed import InstalledPackage

SHARE = 0.9  # of the free memory
OTHERS = 4.0 + 0.5 + 1.0  # bytes a sample that the benchmark itself holds: scores, marks, and a byte for each id that was seen


def fitting(size: int, device: torch.device) -> tuple[list[Contender], dict[str, str]]:
    """Contenders that fit into memory together, while one of them plans, ours first; and why the others do not."""
    classes: list[type[Contender]] = [Ours, Published, VectorisedNumpy, PlainTorch, TorchRandomSampler, TorchDistributedSampler]
    if device.type == "cuda":
        classes.remove(VectorisedNumpy)  # it has no tensors there
    if find_spec("infobatch"):
        classes.append(InstalledPackage)
    chosen: list[type[Contender]] = []
    left_out: dict[str, str] = {}
    for which in classes:
        on_gpu = which.on_device and device.type == "cuda"
        there = [each for each in [*chosen, which] if each.on_device == which.on_device or device.type == "cpu"]
        need = sum(each.held for each in there) + max(each.peak - each.held for each in there) + OTHERS * which.on_device
        if need * size > SHARE * (torch.cuda.mem_get_info(device)[0] if on_gpu else available_bytes()):
            left_out[which.name] = f"no room for {which.peak * size / 2**30:.0f} GiB beside the others"
        else:
            chosen.append(which)
    return [which(size, device) for which in chosen], left_out
