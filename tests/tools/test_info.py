"""What one pastes into a bug report: ``info`` and ``repr(pruner)``."""

import platform
import socket
from importlib import metadata
from typing import Any

import pytest
import torch

from infobatch_fast import InfoBatch, __version__, machine
from infobatch_fast import __main__ as command_line
from infobatch_fast.engine import ops
from support.runs import pruner_of, train
from support.syncs import no_host_sync


def test_info_names_version_build_devices_and_threads(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["info"]) == 0
    text = capsys.readouterr().out
    lines = {line[:20].strip(): line[21:] for line in text.splitlines()}
    assert lines["infobatch fast"] == __version__
    assert lines["compiler"].startswith(("GCC ", "clang "))
    assert lines["openmp"] == str(ops.OPENMP)
    assert lines["cuda architectures"] == (ops.CUDA_ARCHITECTURES or "none: built without CUDA")
    assert lines["torch"] == torch.__version__
    assert lines["python"] == platform.python_version()
    assert lines["threads"].startswith(f"{torch.get_num_threads()} of torch, OMP_NUM_THREADS=")
    assert lines["devices"] == "none" or torch.cuda.is_available()
    assert {"cuda toolkit", "torch cuda", "driver", "cores", "memory", "cpu", "commit", "packages"} <= lines.keys()
    assert socket.gethostname() not in text.split()


def test_without_a_command_it_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main([]) == 0
    text = capsys.readouterr().out
    for line in ("info ", "report ", "bench ", "from infobatch_fast import InfoBatch"):
        assert line in text


def test_info_names_the_packages_it_works_with(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name not in ("accelerate", "lightning"):
            raise metadata.PackageNotFoundError(name)
        return "1.2.3"

    monkeypatch.setattr(metadata, "version", version)
    assert machine.info().splitlines()[-1].split(maxsplit=1)[1] == "accelerate 1.2.3, lightning 1.2.3"


def test_info_works_where_the_driver_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "\ndriver               none\n" in machine.info()


def test_info_shows_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[dict[str, Any]] = [{"name": "A", "capability": "9.0"}, {"name": "B", "capability": "8.0"}]
    monkeypatch.setattr(machine, "gpus", lambda: found)
    assert "\ndevices              A (9.0), B (8.0)\n" in machine.info()


def test_repr_says_what_the_plan_keeps_and_makes_none(made: list[int]) -> None:
    pruner = pruner_of(torch.device("cpu"))
    assert repr(pruner) == "InfoBatch(300 samples, MeanThreshold(prune_ratio=0.5, momentum=0.0), epoch 0 of 10, device='cpu')"
    assert made == []
    train(pruner)
    pruner.set_epoch(1)
    assert "epoch 1 of 10," in repr(pruner)
    assert made == [0]
    kept = pruner.stats.kept
    assert f"epoch 1 of 10: {kept} kept, {1 - kept / 300:.1%} saved, device='cpu')" in repr(pruner)


def test_repr_counts_the_trainers_epochs_and_the_plans_apart() -> None:
    pruner = InfoBatch(8, 10, batch_size=4, steps_per_epoch=5)
    for index in pruner.sampler.batches(4):
        pruner.update(index, torch.ones(4))
    assert "10.0% of 10 epochs, plan 2: 8 kept, 0.0% saved, device='cpu')" in repr(pruner)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_repr_does_not_wait_for_the_device() -> None:
    pruner = InfoBatch(300, 10, device="cuda")
    len(pruner.sampler)
    with no_host_sync():
        assert "300 kept, 0.0% saved, device='cuda:0'" in repr(pruner)
