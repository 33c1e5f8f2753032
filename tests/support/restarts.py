"""What the tests of restarts share: a run, its checkpoint, and a fresh pruner that takes it up."""

import io
from typing import Any

import torch

from infobatch_fast import InfoBatch
from infobatch_fast.engine.damage import number_check, row_checks

SIZE, EPOCHS, BATCH = 45, 5, 4


def run_of(device: torch.device, **kwargs: Any) -> InfoBatch:
    return InfoBatch(kwargs.pop("size", SIZE), EPOCHS, device=device, **kwargs)  # full epochs at the end, of delta 0.875


def saved(pruner: InfoBatch) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(pruner.state_dict(), file)
    file.seek(0)
    return file


def restored(file: io.BytesIO, device: torch.device, **kwargs: Any) -> InfoBatch:
    pruner = run_of(device, **kwargs)
    file.seek(0)
    pruner.load_state_dict(torch.load(file, weights_only=True))
    return pruner


def sealed(state: dict[str, Any]) -> dict[str, Any]:
    """A whole state that was changed, with checks that fit."""
    checks = row_checks(state["scores"], state["marks"].to(state["scores"].device), state.get("protected"), 0)
    return state | {"row_checks": checks, "number_check": number_check(state)}
