"""TensorBoard gets the statistics and the histogram of every epoch."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from support.ranks import needs_gloo, run_ranks
from support.runs import pruner_of, train

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from infobatch_fast import InfoBatch, RandomPruning
from infobatch_fast.integrations.tensorboard import TensorBoardWriter

CPU = torch.device("cpu")


def events_of(folder: Path) -> Any:
    events = EventAccumulator(str(folder), size_guidance={"histograms": 0, "scalars": 0})
    events.Reload()
    return events


def test_scalars_and_histogram_of_each_epoch(tmp_path: Path) -> None:
    pruner, expected, counted, sums = pruner_of(CPU), [], [], []
    with TensorBoardWriter(tmp_path) as board:
        for epoch in range(3):
            pruner.set_epoch(epoch)
            train(pruner)
            board.write(pruner, accuracy=0.5)
            expected.append(pruner.stats)
            counted.append(pruner.histogram())
            sums.append(float(pruner.scores().sum()))
    events = events_of(tmp_path)
    for name in ("kept", "saved_fraction", "total_saved_fraction", "scored", "non_finite", "plan_seconds"):
        scalars = events.Scalars(f"infobatch/{name}")
        assert [scalar.step for scalar in scalars] == [0, 1, 2]
        assert [scalar.value for scalar in scalars] == pytest.approx([getattr(stats, name) for stats in expected])
    thresholds = events.Scalars("infobatch/threshold_0")
    assert [(scalar.step, scalar.value) for scalar in thresholds] == [(e, pytest.approx(expected[e].thresholds[0])) for e in (1, 2)]
    assert [scalar.value for scalar in events.Scalars("infobatch/accuracy")] == [0.5] * 3
    histograms = events.Histograms("infobatch/scores")
    assert [event.step for event in histograms] == [0, 1, 2]
    for event, (counts, edges), total in zip(histograms, counted, sums, strict=True):
        assert event.histogram_value.bucket == counts.tolist()
        assert event.histogram_value.bucket_limit == edges[1:].tolist()
        assert event.histogram_value.num == 300
        assert event.histogram_value.sum == pytest.approx(total, rel=0.02)


def test_a_writer_of_yours_is_used_and_left_open(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        board = TensorBoardWriter(writer)
        board.write(pruner_of(CPU, policy=RandomPruning(0.5)), step=17)  # nothing is seen: no histogram, no threshold
        board.close()
        writer.add_scalar("mine", 1.0, 17)
    events = events_of(tmp_path)
    assert events.Scalars("infobatch/kept")[0].step == 17
    assert events.Scalars("mine")[0].value == 1.0
    assert events.Tags()["histograms"] == []
    with pytest.raises(TypeError, match="a folder or a SummaryWriter"):
        TensorBoardWriter(3)  # type: ignore[arg-type]


def write_on_a_rank(folder: str) -> None:
    pruner = InfoBatch(300, 4)
    train(pruner)
    with TensorBoardWriter(folder) as board:
        board.write(pruner)


@needs_gloo
def test_rank_0_alone_writes(tmp_path: Path) -> None:
    run_ranks(2, write_on_a_rank, str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1
    assert events_of(tmp_path).Histograms("infobatch/scores")[0].histogram_value.num == 300


def test_without_tensorboard_the_package_imports_and_the_error_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['tensorboard'] = None; import infobatch_fast, infobatch_fast.logs\n"
        "assert not any(name.startswith(('torch.utils.tensorboard', 'matplotlib')) for name in sys.modules)\n"
        "try: import infobatch_fast.integrations.tensorboard\n"
        "except ImportError as error: print(error)"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "pip install 'tensorboard>=2.12'" in shown
