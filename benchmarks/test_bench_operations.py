"""The operations of infobatch_fast alone under pytest-benchmark: ``pytest benchmarks``. No part of the test suite.

Sizes: ``INFOBATCH_BENCH_SIZES=1e6,1e8``. The figures beside the baselines are made by ``python -m infobatch_fast bench``.
"""

import itertools
import os

import pytest
import torch

from infobatch_fast.bench.contender import Ours
from infobatch_fast.bench.operations import KINDS, NAMES
from infobatch_fast.bench.suite import prepared
from infobatch_fast.engine import ops

SIZES = [int(float(size)) for size in os.environ.get("INFOBATCH_BENCH_SIZES", "1e6,1e7").split(",")]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() and ops.CUDA_ARCHITECTURES else [])]


@pytest.fixture(scope="module", params=list(itertools.product(DEVICES, SIZES)), ids=lambda case: f"{case[0]}-{case[1]:.0e}")
def field(request):
    name, size = request.param
    device = torch.device(name)
    return prepared(size, device, [Ours(size, device)])


@pytest.mark.parametrize("name", NAMES)
def test_operation(benchmark, field, name):
    found = [operation for kind in KINDS for operation in kind(field) if operation.name == name]
    if not found:
        pytest.skip("a whole epoch of so many samples takes minutes")
    (timed,) = found[0].contenders

    def run(argument):
        timed.run(argument)
        if field.device.type == "cuda":
            torch.cuda.synchronize()

    benchmark.extra_info["of these in a run"] = timed.repeats
    benchmark.pedantic(run, setup=lambda: ((timed.prepare(),), {}), rounds=10)
