"""The GPUs that tests may use."""

import pytest
import torch

from infobatch_fast.engine import ops

GPUS = torch.cuda.device_count() if ops.CUDA_ARCHITECTURES is not None else 0
ON_A_GPU = [pytest.mark.gpu, pytest.mark.skipif(GPUS < 1, reason="no CUDA device, or a build without CUDA")]
