"""The device that a test runs on: each test that takes ``device`` runs on the CPU and, where there is one, on a GPU."""

import gc
import os
from typing import Any

import numpy.random  # noqa: F401 - else forked workers import it, and Python before 3.12 may fail when it collects garbage meanwhile
import pytest
import torch

from infobatch_fast.engine.planner import Planner
from support.gpus import ON_A_GPU

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # they share the cores, and so do the processes that tests start
    threads = os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))
    torch.set_num_threads(int(threads))


def pytest_collection_finish() -> None:
    """What was made at import, which is most of what there is, is left out of all garbage collections to come."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=ON_A_GPU)])
def device(request: pytest.FixtureRequest) -> torch.device:
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
