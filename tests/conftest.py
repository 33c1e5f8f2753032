"""The device that a test runs on: each test that takes ``device`` runs on the CPU and, where there is one, on a GPU."""

import pytest
import torch

from infobatch_fast import ops

HAS_GPU = torch.cuda.is_available() and ops.CUDA_ARCHITECTURES is not None


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not HAS_GPU:
        pytest.skip("no CUDA device, or a build without CUDA")
    return torch.device(request.param)
