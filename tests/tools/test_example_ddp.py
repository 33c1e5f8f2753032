"""examples/digits_ddp.py under torchrun: trained on two ranks, a rank killed in mid-run, finished on three."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from os import kill
from pathlib import Path

import pytest

from support.ranks import needs_gloo

pytest.importorskip("sklearn")
pytestmark = [needs_gloo, pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks' processes in /proc")]

SCRIPT = Path(__file__).parents[2] / "examples" / "digits_ddp.py"
EPOCHS, SECONDS = 12, 900


def launch(ranks: int, folder: Path, output: Path) -> subprocess.Popen[bytes]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    script = [str(SCRIPT), "--checkpoint", str(folder), "--epochs", str(EPOCHS), "--save-every", "10"]
    with output.open("wb") as log:
        return subprocess.Popen([*torchrun, *script], stdout=log, stderr=subprocess.STDOUT)


def end(launcher: subprocess.Popen[bytes]) -> None:
    """Ends a launcher that is still there, and its ranks, which would outlive it."""
    if launcher.poll() is None:
        for process in (*ranks_of(launcher), launcher.pid):
            kill(process, signal.SIGKILL)
        launcher.wait()


def ranks_of(launcher: subprocess.Popen[bytes]) -> list[int]:
    """Processes that a launcher has started and that run the script."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return [int(child) for child in children if SCRIPT.name in Path(f"/proc/{child}/cmdline").read_text()]


@pytest.mark.slow
def test_the_example_is_killed_on_two_ranks_and_goes_on_on_three(tmp_path: Path) -> None:
    folder, first, second = tmp_path / "checkpoints", tmp_path / "first.txt", tmp_path / "second.txt"
    launcher = launch(2, folder, first)
    try:
        deadline = time.monotonic() + SECONDS
        while "epoch 3:" not in first.read_text() and time.monotonic() < deadline and launcher.poll() is None:
            time.sleep(0.02)
        pids = ranks_of(launcher)
        assert len(pids) == 2, first.read_text()
        kill(pids[1], signal.SIGKILL)
        assert launcher.wait(SECONDS) != 0  # torchrun ends the other rank
    finally:
        end(launcher)
    done = [int(found) for found in re.findall(r"^epoch (\d+):", first.read_text(), re.MULTILINE)]
    assert 3 in done, first.read_text()
    assert EPOCHS - 1 not in done

    launcher = launch(3, folder, second)
    try:
        assert launcher.wait(SECONDS) == 0, second.read_text()
    finally:
        end(launcher)
    text = second.read_text()
    found = re.search(r"^go on after step (\d+) in epoch (\d+) on 3 ranks", text, re.MULTILINE)
    assert found, text
    step, epoch = int(found[1]), int(found[2])
    assert step % 10 == 0
    assert 0 < epoch <= done[-1] + 1  # that of the last checkpoint
    assert [int(number) for number in re.findall(r"^epoch (\d+):", text, re.MULTILINE)] == list(range(epoch, EPOCHS))
    assert float(re.findall(r"test accuracy ([\d.]+)", text)[-1]) > 0.93
    saved = re.search(r"^saved ([\d.]+)%", text, re.MULTILINE)
    assert saved, text
    assert 15 < float(saved[1]) < 45
