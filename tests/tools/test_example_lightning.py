"""examples/lightning_module.py: trained on two processes that Lightning starts, and finished on one from its checkpoint."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.ranks import needs_gloo, preload
from support.scripts import run_script

pytest.importorskip("lightning.pytorch")
preload("lightning.pytorch")
pytestmark = needs_gloo

SCRIPT = Path(__file__).parents[2] / "examples" / "lightning_module.py"


def run(folder: Path, *arguments: str) -> str:
    command = [sys.executable, str(SCRIPT), "--folder", str(folder / "checkpoints"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_example_is_trained_on_two_processes_and_finished_on_one(tmp_path: Path) -> None:
    steps = r"epoch +(\d+): (\d+) steps"
    first = [(int(epoch), int(count)) for epoch, count in re.findall(steps, run(tmp_path, "--devices", "2", "--epochs", "6"))]
    assert [epoch for epoch, _ in first] == list(range(6))
    assert first[0] == (0, 40), "4,000 samples on two ranks, in batches of 50"
    assert first[3][1] < 35
    folder = str(tmp_path / "checkpoints")
    alone = run_script(SCRIPT, "--folder", folder, "--checkpoint", str(Path(folder, "last.ckpt")))
    assert alone.returncode == 0, alone.stdout + alone.stderr
    text = alone.stdout
    second = [(int(epoch), int(count)) for epoch, count in re.findall(steps, text)]
    assert [epoch for epoch, _ in second] == list(range(6, 20))
    assert second[0][1] < 70
    assert second[-1][1] == 80, "the last epochs are full"
    found = re.search(r"saved ([\d.]+)% of the samples; accuracy ([\d.]+)", text)
    assert found, text
    assert 10 < float(found[1]) < 45
    assert float(found[2]) > 0.95
