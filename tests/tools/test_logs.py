"""JSON lines: what a run was, epoch by epoch, whatever happens to the process that writes."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from infobatch_fast import InfoBatch, RandomPruning, __version__
from infobatch_fast.logs import JsonLines, read_run
from support.ranks import needs_gloo, run_ranks
from support.runs import pruner_of, train

CPU = torch.device("cpu")


def run_epochs(pruner: InfoBatch, log: JsonLines, epochs: range, **extra: Any) -> None:
    for epoch in epochs:
        pruner.set_epoch(epoch)
        train(pruner)
        log.write(pruner, **extra)


def test_a_line_an_epoch_says_what_stats_and_histogram_say(tmp_path: Path) -> None:
    pruner, log = pruner_of(CPU), JsonLines(tmp_path / "logs" / "run.jsonl")
    for epoch in range(4):
        pruner.set_epoch(epoch)
        train(pruner)
        log.write(pruner, accuracy=np.float32(0.5), name="a", loss=torch.tensor(2.0), bad=float("nan"))
        line = json.loads(log.path.read_text().splitlines()[-1])
        stats = pruner.stats
        for name in ("epoch", "kept", "saved_fraction", "scored", "seen", "total_saved_fraction", "non_finite"):
            assert line[name] == getattr(stats, name)
        assert line["thresholds"] == list(stats.thresholds)
        counts, edges = pruner.histogram()
        assert line["histogram"] == {"counts": counts.tolist(), "edges": edges.tolist()}
        assert (line["accuracy"], line["name"], line["loss"], line["bad"]) == (0.5, "a", 2.0, None)
        assert line["seconds"] > 0
        assert not line["resumed"]
    assert len(log.path.read_text().splitlines()) == 5
    run = read_run(log.path)
    assert [line["epoch"] for line in run.epochs] == [0, 1, 2, 3]
    assert run.epochs[1]["kept"] < run.epochs[0]["kept"] == 300


def test_the_first_line_says_what_runs_where(tmp_path: Path) -> None:
    pruner, log = pruner_of(CPU, seed=3), JsonLines(tmp_path / "run.jsonl")
    run_epochs(pruner, log, range(1))
    (start,) = read_run(log.path).starts
    assert start["versions"]["infobatch_fast"] == __version__
    assert start["machine"]["cores"] >= 1
    expected = {"num_samples": 300, "seed": 3, "num_epochs": 10, "delta": 1.0, "num_replicas": 1, "device": "cpu"}
    assert expected.items() <= start["arguments"].items()
    assert "MeanThreshold" in start["arguments"]["policy"]


def test_after_a_restart_the_epochs_that_are_done_again_replace_the_old_ones(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    pruner, log = pruner_of(CPU), JsonLines(path)
    run_epochs(pruner, log, range(3), process=1)
    pruner.set_epoch(3)
    train(pruner, steps=5)
    state = copy.deepcopy(pruner.state_dict())  # in the middle of epoch 3
    train(pruner)
    log.write(pruner, process=1)
    run_epochs(pruner, log, range(4, 6), process=1)

    again = pruner_of(CPU)
    again.load_state_dict(state)
    log = JsonLines(path)
    run_epochs(again, log, range(3, 5), process=2)
    run = read_run(path)
    assert [(line["epoch"], line["process"]) for line in run.epochs] == [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2)]
    assert [line["resumed"] for line in run.epochs] == [False, False, False, True, False]
    assert len(run.starts) == 2


@pytest.mark.parametrize("left", [1, 40, -2])
def test_a_line_broken_off_by_a_kill_is_left_out_also_after_the_restart(tmp_path: Path, left: int) -> None:
    path = tmp_path / "run.jsonl"
    pruner = pruner_of(CPU)
    run_epochs(pruner, JsonLines(path), range(3))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:left])
    assert [line["epoch"] for line in read_run(path).epochs] == [0, 1]
    log = JsonLines(path)
    run_epochs(pruner, log, range(2, 4))
    assert [line["epoch"] for line in read_run(path).epochs] == [0, 1, 2, 3]


def test_thresholds_without_a_number_are_null(tmp_path: Path) -> None:
    pruner, log = pruner_of(CPU, policy=RandomPruning(0.5)), JsonLines(tmp_path / "run.jsonl")
    run_epochs(pruner, log, range(2))
    assert pruner.stats.thresholds == (float("inf"),)
    assert "Infinity" not in log.path.read_text()
    assert read_run(log.path).epochs[1]["thresholds"] == [None]


def test_names_and_values_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    pruner, log = pruner_of(CPU), JsonLines(tmp_path / "run.jsonl")
    with pytest.raises(ValueError, match="extra must not be named kept"):
        log.write(pruner, kept=3)
    with pytest.raises(TypeError, match="extra must hold numbers"):
        log.write(pruner, model=torch.nn.ReLU())
    with pytest.raises(TypeError, match="extra must hold numbers"):
        log.write(pruner, losses=torch.ones(3))
    assert not log.path.exists()
    log.write(pruner, seconds=5.0)
    assert read_run(log.path).epochs[0]["seconds"] == 5.0


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    for text, message in (
        ('{"a": 1}\n{"kind": "epoch"}\n', "line 1: not a line"),
        ("", "no line of an epoch"),
        ('{"kind": "start"}\n', "no line of an epoch"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_run(path)
    with pytest.raises(FileNotFoundError):
        read_run(tmp_path / "none.jsonl")


def write_on_a_rank(path: str) -> int:
    pruner = InfoBatch(300, 4, delta=1.0)
    run_epochs(pruner, JsonLines(path), range(3))
    return pruner.stats.kept


@needs_gloo
def test_rank_0_alone_writes_for_all_ranks(tmp_path: Path) -> None:
    kept = run_ranks(2, write_on_a_rank, str(tmp_path / "run.jsonl"))
    run = read_run(tmp_path / "run.jsonl")
    assert len((tmp_path / "run.jsonl").read_text().splitlines()) == 4
    assert kept == [run.epochs[-1]["kept"]] * 2
    assert sum(run.epochs[-1]["histogram"]["counts"]) == 300
