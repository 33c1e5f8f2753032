"""The operations under pytest-benchmark: ``pytest benchmarks``. No part of the test suite.

Sizes: ``INFOBATCH_BENCH_SIZES=1e6,1e8``. The figures beside the baselines are made by ``python -m infobatch_fast bench``.
"""

import itertools
import os

import pytest
import torch

from infobatch_fast.bench.answers import check_plan, check_update
from infobatch_fast.bench.contender import Ours, fill_all, synthetic_scores
from infobatch_fast.engine import ops

SIZES = [int(float(size)) for size in os.environ.get("INFOBATCH_BENCH_SIZES", "1e6,1e7").split(",")]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() and ops.CUDA_ARCHITECTURES else [])]
TAKEN = 1 << 18
EPOCHS = itertools.count(2)


@pytest.fixture(scope="module", params=list(itertools.product(DEVICES, SIZES)), ids=lambda case: f"{case[0]}-{case[1]:.0e}")
def ours(request):
    name, size = request.param
    contender = Ours(size, torch.device(name))
    fill_all([contender], size)
    if size <= 10**7:
        parts = [synthetic_scores(first, min(1 << 20, size - first)) for first in range(0, size, 1 << 20)]
        check_plan(contender, torch.cat(parts))
    contender.plan(1)
    check_update(contender)
    return contender


def finished(contender, run):
    """Waits for the device, so that its work is in the time."""

    def timed(*arguments):
        result = run(*arguments)
        if contender.device.type == "cuda":
            torch.cuda.synchronize()
        return result

    return timed


def test_plan_by_mean(benchmark, ours):
    benchmark.pedantic(finished(ours, ours.plan), setup=lambda: ((next(EPOCHS),), {}), rounds=10)


def test_plan_by_quantiles(benchmark, ours):
    tiers = ours.with_quantiles()
    benchmark.pedantic(finished(ours, tiers.plan), setup=lambda: ((next(EPOCHS),), {}), rounds=10)
    ours.forget_quantiles()


def test_order_one_by_one(benchmark, ours):
    benchmark(lambda: sum(1 for _ in itertools.islice(ours.ids(), TAKEN)))


def test_order_in_batches(benchmark, ours):
    benchmark(lambda: sum(1 for _ in itertools.islice(ours.batches(256), TAKEN // 256)))


def test_order_as_a_tensor(benchmark, ours):
    taken = min(TAKEN, len(ours.pruner.sampler))
    benchmark(finished(ours, lambda: ours.pruner.sampler.indices(0, taken)))


@pytest.mark.parametrize("batch", [256, 1024, 4096, 16384, 65536])
def test_update(benchmark, ours, batch):
    def new_batch():
        index = torch.randint(ours.size, (batch,), device=ours.device)
        return (index, torch.rand(batch, device=ours.device)), {}

    benchmark.pedantic(finished(ours, ours.update), setup=new_batch, rounds=200)


def test_state_dict_goes_to_a_file_and_back(benchmark, ours, tmp_path):
    def there_and_back():
        torch.save(ours.state(), tmp_path / "state")
        ours.restore(torch.load(tmp_path / "state", map_location=ours.device))

    benchmark.pedantic(there_and_back, rounds=3)
