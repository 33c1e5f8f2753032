"""Who takes part: all contenders, and those of them that memory has room for."""

from __future__ import annotations

import torch

from ..machine import available_bytes
from .baselines import PlainTorch, Published, TorchDistributedSampler, TorchRandomSampler, VectorisedNumpy
from .contender import Contender, Ours
from .installed import InstalledPackage, is_installed

SHARE = 0.9  # of the free memory
OTHERS = 4.0 + 0.5 + 1.0  # bytes a sample that the benchmark itself holds: scores, marks, and a byte for each id that was seen


def contender_classes(device: torch.device) -> list[type[Contender]]:
    """All contenders, ours first."""
    classes: list[type[Contender]] = [Ours, Published, VectorisedNumpy, PlainTorch, TorchRandomSampler, TorchDistributedSampler]
    if device.type == "cuda":
        classes.remove(VectorisedNumpy)  # it has no tensors there
    return [*classes, InstalledPackage] if is_installed() else classes


def contender_class(name: str) -> type[Contender]:
    """The contender of that name."""
    classes: list[type[Contender]] = contender_classes(torch.device("cpu"))
    return next(which for which in classes if which.name == name)


def room(device: torch.device) -> float:
    """Bytes that may be taken there."""
    return SHARE * (torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_bytes())


def fits_alone(which: type[Contender], size: int, device: torch.device) -> bool:
    """Whether there is room for one contender."""
    return which.peak * size <= room(device if which.on_device else torch.device("cpu"))


def fitting(size: int, device: torch.device) -> tuple[list[Contender], dict[str, str]]:
    """Contenders that fit into memory together, while one of them plans; and why the others do not."""
    shared = device.type == "cpu"
    rooms = {there: room(device if there else torch.device("cpu")) for there in (False, True)}
    held, extra = {False: 0.0, True: OTHERS}, {False: 0.0, True: 0.0}
    chosen: list[Contender] = []
    left_out: dict[str, str] = {}
    for which in contender_classes(device):
        there = shared or which.on_device
        need = held[there] + which.held + max(extra[there], which.peak - which.held)
        if need * size > rooms[there]:
            left_out[which.name] = f"no room for {which.peak * size / 2**30:.0f} GiB beside the others"
            continue
        held[there] += which.held
        extra[there] = max(extra[there], which.peak - which.held)
        chosen.append(which(size, device))
    return chosen, left_out
