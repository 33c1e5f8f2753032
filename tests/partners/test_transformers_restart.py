"""InfoBatchTrainer goes on from a checkpoint in a run of another length, as the Trainer does."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers", minversion="5.3.0")

from accelerate.state import AcceleratorState, PartialState  # noqa: E402

from infobatch_fast import InfoBatch  # noqa: E402
from infobatch_fast.integrations.accelerate import load  # noqa: E402
from support.line_trainer import Numbers, trainer_of  # noqa: E402
from support.ranks import needs_gloo, preload, run_ranks  # noqa: E402

preload("transformers.trainer")

pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set:UserWarning")
PEAK = 0.001
SAVED = {"num_train_epochs": 4, "per_device_train_batch_size": 4, "learning_rate": PEAK}


class Rates(transformers.TrainerCallback):
    """After each step: the step, the share of the run that is done, the learning rate."""

    def __init__(self, by: str = "epochs") -> None:
        self.rows: list[tuple[int, float, float]] = []
        self.trainer: Any = None
        self.by, self.share = by, 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        pruner = self.trainer.pruner
        share = pruner.progress if self.by == "epochs" else pruner.visited_fraction
        self.share = max(self.share, share)  # where a plan keeps more than was expected, a schedule waits
        self.rows.append((state.global_step, self.share, self.trainer.lr_scheduler.get_last_lr()[0]))


def run(
    folder: str, arguments: dict[str, Any], resume: str | None = None, by: str = "epochs"
) -> tuple[list[tuple[int, float, float]], int]:
    rates = Rates(by)
    rates.trainer = trainer = trainer_of(Path(folder), arguments=SAVED | arguments, callbacks=[rates], schedule_by=by)
    trainer.train(resume_from_checkpoint=resume)
    full_steps = -(-24 // (trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps * trainer.args.world_size))
    return rates.rows, full_steps * int(trainer.args.num_train_epochs)


def rates_of(rows: list[tuple[int, float, float]]) -> list[tuple[int, float]]:
    return [(step, rate) for step, _, rate in rows]


def check(rows: list[tuple[int, float, float]], total: int, first: int) -> None:
    assert rows[0][0] == first
    for _, progress, rate in rows:
        assert rate == pytest.approx(PEAK * (1 - progress), abs=PEAK / total)
    assert rows[-1][1:] == (1.0, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 6, 8])  # in the first epoch, at its end, in the middle of a pruned one
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"num_train_epochs": 6},
        {"per_device_train_batch_size": 8},
        {"gradient_accumulation_steps": 2},
        {"num_train_epochs": 8, "per_device_train_batch_size": 8},  # as many steps in all, of which more are left
    ],
)
@pytest.mark.parametrize("by", ["epochs", "visits"])
def test_a_run_of_another_length_goes_on_at_its_own_progress(tmp_path: Path, by: str, change: dict[str, int], step: int) -> None:
    saved, _ = run(str(tmp_path), {"save_strategy": "steps", "save_steps": step}, by=by)
    rows, total = run(str(tmp_path), change, str(tmp_path / f"checkpoint-{step}"), by)
    check(rows, total, step + 1)
    if not change:
        assert rates_of(saved[step:]) == rates_of(rows)


def test_a_schedule_goes_on_by_what_it_was_saved_by(tmp_path: Path) -> None:
    run(str(tmp_path), {"save_strategy": "steps", "save_steps": 8}, by="visits")
    with pytest.raises(
        ValueError, match=r"by='visits', but this schedule has by='epochs'.*InfoBatchTrainer with schedule_by='visits'"
    ):
        run(str(tmp_path), {}, str(tmp_path / "checkpoint-8"))
    with pytest.raises(ValueError, match="schedule_by must be one of 'epochs', 'visits', got 'steps'"):
        run(str(tmp_path), {}, by="steps")


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant_with_warmup"])
def test_a_schedule_with_warmup_is_the_trainers_at_the_same_progress(tmp_path: Path, kind: str) -> None:
    settings = {"lr_scheduler_type": kind, "warmup_steps": 9, "num_train_epochs": 4}
    run(str(tmp_path), settings | {"save_strategy": "steps", "save_steps": 6})
    rows, total = run(str(tmp_path), settings | {"num_train_epochs": 6}, str(tmp_path / "checkpoint-6"))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    schedule = transformers.get_scheduler(kind, optimizer, num_warmup_steps=9, num_training_steps=total).lr_lambdas[0]
    assert len(rows) > 12
    for _, progress, rate in rows:
        assert rate == pytest.approx(PEAK * schedule(int(progress * total + 0.5)))


def on_ranks(folder: str, resume: str) -> Any:
    os.environ |= {name: str(dist.get_rank()) for name in ("RANK", "LOCAL_RANK")}
    os.environ |= {"WORLD_SIZE": str(dist.get_world_size()), "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    PartialState._reset_state()
    AcceleratorState._reset_state(True)
    return run(folder, {"ddp_backend": "gloo", "per_device_train_batch_size": 2}, resume)


@needs_gloo
def test_two_ranks_go_on_from_a_checkpoint_of_one(tmp_path: Path) -> None:
    run(str(tmp_path), {"save_strategy": "steps", "save_steps": 8})
    for rows, total in run_ranks(2, on_ranks, str(tmp_path), str(tmp_path / "checkpoint-8")):
        check(rows, total, 9)


def test_a_run_with_max_steps_goes_on_from_one_with_epochs_and_back(tmp_path: Path) -> None:
    run(str(tmp_path), {"save_strategy": "steps", "save_steps": 8})
    by_steps = {"max_steps": 20, "save_strategy": "steps", "save_steps": 8}
    rows, _ = run(str(tmp_path / "more"), by_steps, str(tmp_path / "checkpoint-8"))
    assert [rate for _, _, rate in rows] == pytest.approx([PEAK * (1 - step / 20) for step in range(9, 21)])  # counted in steps
    rows, total = run(str(tmp_path), {"num_train_epochs": 6}, str(tmp_path / "more" / "checkpoint-16"))
    check(rows, total, 17)


@pytest.mark.parametrize(
    ("accumulate", "moves_on", "by"),
    [
        (1, False, "epochs"),
        (1, True, "epochs"),
        (2, False, "epochs"),
        (2, True, "epochs"),
        (1, False, "visits"),
        (2, True, "visits"),
    ],
)
def test_a_checkpoint_of_an_epochs_end_goes_on_with_the_next_epoch(
    tmp_path: Path, accumulate: int, moves_on: bool, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_and_move_on(pruner: InfoBatch, folder: str) -> None:
        """The state is that of the next epoch, which has no plan yet."""
        load(pruner, folder)
        if pruner.engine.epochs.is_between() and pruner.engine.epochs.plan_in_force is not None:
            pruner.set_epoch(pruner.epoch + 1)

    if moves_on:
        monkeypatch.setattr("infobatch_fast.integrations.transformers.load", load_and_move_on)
    saved, _ = run(str(tmp_path), {"save_strategy": "epoch", "gradient_accumulation_steps": accumulate}, by=by)
    folders = sorted(tmp_path.glob("checkpoint-*"), key=lambda folder: int(folder.name.split("-")[1]))
    assert len(folders) == 4
    for epoch, folder in enumerate(folders, start=1):
        rates = Rates(by)
        arguments = SAVED | {"gradient_accumulation_steps": accumulate}
        rates.trainer = trainer = trainer_of(tmp_path, arguments=arguments, callbacks=[rates], schedule_by=by)
        trainer.train(resume_from_checkpoint=str(folder))
        rest = saved[json.loads((folder / "trainer_state.json").read_text())["global_step"] :]
        assert rates_of(rates.rows) == rates_of(rest)
        assert trainer.state.epoch == 4.0
        begun = [entry["epoch"] for entry in trainer.state.log_history if "infobatch_kept" in entry]
        assert begun == [float(each) for each in range(4)]
        assert epoch < 4 or rates.rows == []


def test_a_second_run_from_the_beginning_with_a_restored_pruner_is_named(tmp_path: Path) -> None:
    run(str(tmp_path), {"save_strategy": "steps", "save_steps": 8})
    trainer = trainer_of(tmp_path, arguments=SAVED, infobatch=InfoBatch(Numbers(), 4, seed=42), schedule_by="epochs")
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    with pytest.raises(RuntimeError, match=r"at epoch 0, but the pruner was restored before and is at epoch 3.*new InfoBatch"):
        trainer.train()
