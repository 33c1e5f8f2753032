"""The device that a test runs on: each test that takes ``device`` runs on the CPU and, where there is one, on a GPU."""

from typing import Any

import pytest
import torch

from infobatch_fast.engine import ops
from infobatch_fast.engine.planner import Planner

HAS_GPU = torch.cuda.is_available() and ops.CUDA_ARCHITECTURES is not None


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not HAS_GPU:
        pytest.skip("no CUDA device, or a build without CUDA")
    return torch.device(request.param)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Epochs of the plans that are made during the test, as they are made."""
    epochs: list[int] = []
    make = Planner.make

    def counting(self: Planner, epoch: int, *args: Any) -> Any:
        epochs.append(epoch)
        return make(self, epoch, *args)

    monkeypatch.setattr(Planner, "make", counting)
    return epochs
