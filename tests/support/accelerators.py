"""Accelerators for tests, of which one process makes several."""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState


def accelerator_of(**kwargs: Any) -> Accelerator:
    if dist.is_initialized():
        os.environ |= {name: str(dist.get_rank()) for name in ("RANK", "LOCAL_RANK")}
        os.environ |= {"WORLD_SIZE": str(dist.get_world_size()), "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
        warnings.simplefilter("default")
    PartialState._reset_state()
    AcceleratorState._reset_state(True)
    return Accelerator(cpu=True, **kwargs)
