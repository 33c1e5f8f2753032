"""Lightning: what would otherwise go wrong silently, as losses that are no training losses, is noticed."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning.pytorch")
from torch.utils.data import DataLoader

from infobatch_fast import InfoBatch
from infobatch_fast.integrations.lightning import InfoBatchCallback
from support.lightning_runs import BATCH, EPOCHS, SIZE, WARNINGS, Model, loader_of, pruner_of, trainer_of
from support.runs import ARBITRARY

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]


# ---- stages ----


class Evaluating(Model):
    """Its other steps do what the training step does, gradients being on."""

    where = ""

    def evaluate(self, stage: str) -> None:
        if stage == self.where:
            with torch.inference_mode(False), torch.enable_grad():
                self.pruner.update([0], torch.tensor([1.0], requires_grad=True))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluate("the sanity check" if self.trainer.sanity_checking else "validation")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluate("the test")

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluate("prediction")


def others() -> Any:
    return DataLoader([0.0])  # type: ignore[arg-type]


RUNS: dict[str, Any] = {
    "the sanity check": lambda trainer, model: trainer.fit(model, loader_of(model.pruner)),
    "validation": lambda trainer, model: trainer.validate(model, others()),
    "the test": lambda trainer, model: trainer.test(model, others()),
    "prediction": lambda trainer, model: trainer.predict(model, others()),
}


@ARBITRARY
@pytest.mark.parametrize("is_given", [True, False], ids=["pruner given", "pruner found"])
@pytest.mark.parametrize("stage", RUNS)
def test_update_outside_of_training_raises_though_gradients_are_on_and_a_later_fit_works(
    tmp_path: Path, stage: str, is_given: bool
) -> None:
    pruner = pruner_of()
    model = Evaluating(pruner)
    arguments = {"inference_mode": False, "num_sanity_val_steps": 1}
    trainer = trainer_of(tmp_path, InfoBatchCallback(pruner if is_given else None), **arguments)
    model.where = stage
    with pytest.raises(RuntimeError, match=f"update was called in {stage}"):
        RUNS[stage](trainer, model)
    assert pruner.scores().isnan().all()
    pruner.update([0], torch.tensor([1.0], requires_grad=True))

    model.where = ""
    RUNS[stage](trainer_of(tmp_path, InfoBatchCallback(pruner), **arguments), model)
    pruner.update([0], torch.tensor([1.0], requires_grad=True))  # also after a run that came to its end
    trainer_of(tmp_path, InfoBatchCallback(pruner), **arguments).fit(model, loader_of(pruner))
    assert pruner.scores().isfinite().all()


def test_so_it_does_in_a_validation_within_an_epoch_and_training_goes_on_behind_one(tmp_path: Path) -> None:
    pruner = pruner_of()
    model = Evaluating(pruner)
    trainer_of(tmp_path, InfoBatchCallback(pruner), val_check_interval=0.5).fit(model, loader_of(pruner))
    assert list(model.visited) == list(range(EPOCHS))
    again = pruner_of()
    model = Evaluating(again)
    model.where = "validation"
    trainer = trainer_of(tmp_path, InfoBatchCallback(again), val_check_interval=0.5, inference_mode=False)
    with pytest.raises(RuntimeError, match="update was called in validation"):
        trainer.fit(model, loader_of(again))
    assert len(model.visited[0]) < SIZE, "within the first epoch"


def test_a_model_without_a_pruner_can_be_validated_with_the_callback(tmp_path: Path) -> None:
    trainer_of(tmp_path, InfoBatchCallback()).validate(Evaluating(), others())


# ---- epochs ----


def warned(tmp_path: Path, num_epochs: int, size: dict[str, Any], **arguments: Any) -> str:
    """What the callback says of the numbers of epochs."""
    pruner = InfoBatch(SIZE, num_epochs, **size)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer_of(tmp_path, InfoBatchCallback(pruner), **arguments).fit(Model(pruner), loader_of(pruner))
    texts = [str(each.message) for each in caught if "max_epochs=" in str(each.message) and "pruner" in str(each.message)]
    assert len(texts) < 2
    return "".join(texts)


CONSTANT = {"steps_per_epoch": 3, "batch_size": BATCH}


@pytest.mark.parametrize("size", [{}, CONSTANT], ids=["dynamic", "constant"])
def test_a_pruner_of_another_number_of_epochs_than_the_trainer_is_named_with_what_comes_of_it(
    tmp_path: Path, size: dict[str, Any]
) -> None:
    few = warned(tmp_path, 4, size, max_epochs=6)
    assert "num_epochs=4 and the trainer max_epochs=6" in few
    assert "all epochs from 3 on are full, and pruner.progress stays at 1 from epoch 4 on" in few
    assert "InfoBatch(..., num_epochs=6) or Trainer(max_epochs=4)" in few
    many = warned(tmp_path, 10, size, max_epochs=4)
    assert "num_epochs=10 and the trainer max_epochs=4" in many
    assert "the full epochs at the end never come, and pruner.progress ends at 0.4" in many
    some = warned(tmp_path, 10, {"delta": 0.2, **size}, max_epochs=4)
    assert "so pruner.progress ends at 0.4" in some


@pytest.mark.parametrize(
    ("num_epochs", "size", "arguments"),
    [
        (4, {}, {"max_epochs": 4}),
        (4, {}, {"max_epochs": -1, "max_steps": 5}),
        (4, {}, {"max_epochs": 1000, "max_steps": 5}),
        (4, {}, {"fast_dev_run": 2}),
        (4, CONSTANT, {"max_epochs": 4}),
        (4, {"steps_per_epoch": float("inf")}, {"max_epochs": 1, "limit_train_batches": 5}),
    ],
)
def test_where_the_numbers_are_the_same_or_count_something_else_nothing_is_said(
    tmp_path: Path, num_epochs: int, size: dict[str, Any], arguments: dict[str, Any]
) -> None:
    assert warned(tmp_path, num_epochs, size, **arguments) == ""


def test_with_max_steps_epochs_of_constant_length_end_where_the_steps_do(tmp_path: Path) -> None:
    pruner = InfoBatch(SIZE, 12 // 3, **CONSTANT)  # type: ignore[arg-type]
    trainer = trainer_of(tmp_path, InfoBatchCallback(pruner), max_epochs=-1, max_steps=12)
    trainer.fit(Model(pruner), loader_of(pruner))
    assert (trainer.global_step, pruner.progress) == (12, 1.0)


def test_a_restored_pruner_that_goes_on_elsewhere_than_its_trainer_is_named(tmp_path: Path) -> None:
    pruner = pruner_of()
    trainer_of(tmp_path, InfoBatchCallback(pruner)).fit(Model(pruner), loader_of(pruner))
    again = pruner_of()
    again.load_state_dict(pruner.state_dict())
    with pytest.warns(RuntimeWarning, match=r"begins with epoch 0, but the pruner was restored in epoch \d.*ckpt_path="):
        trainer_of(tmp_path, InfoBatchCallback(again)).fit(Model(again), loader_of(again))


# ---- steps ----


class Sometimes(Model):
    """Calls update in all but every ``period``-th step."""

    period = 3

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if batch_idx % self.period == self.period - 1:
            return self.weight * 1
        return super().training_step(batch, batch_idx)


def test_steps_without_update_are_counted_and_named_once_a_run(tmp_path: Path) -> None:
    pruner = pruner_of()
    with pytest.warns(RuntimeWarning) as caught:
        trainer_of(tmp_path, InfoBatchCallback(pruner)).fit(Sometimes(pruner), loader_of(pruner))
    texts = [str(each.message) for each in caught if "recorded no loss" in str(each.message)]
    assert len(texts) == 1
    assert re.match(r"4 of 12 training steps of epoch 0 .* return pruner\.update\(index, losses\)$", texts[0])


def test_a_batch_that_is_left_out_now_and_then_is_not_named(tmp_path: Path) -> None:
    pruner = pruner_of()
    model = Sometimes(pruner)
    model.period = 11
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer_of(tmp_path, InfoBatchCallback(pruner)).fit(model, loader_of(pruner))
    assert len(model.visited[0]) < SIZE, "one was"
    assert not [each for each in caught if "recorded no loss" in str(each.message)]


@pytest.mark.parametrize("steps", [1, 2])
def test_a_trial_of_a_few_steps_catches_a_training_step_without_update(tmp_path: Path, steps: int) -> None:
    pruner = pruner_of()
    model = Sometimes(pruner)
    model.period = 1
    with pytest.raises(RuntimeError, match="the first training_step recorded no loss"):
        trainer_of(tmp_path, InfoBatchCallback(pruner), fast_dev_run=steps).fit(model, loader_of(pruner))


# ---- hyperparameters ----


def test_a_pruner_among_the_hyperparameters_is_left_out_of_them_with_lightnings_warning(tmp_path: Path) -> None:
    class Hyper(Model):
        def __init__(self, pruner: InfoBatch, width: int) -> None:
            super().__init__(pruner)
            self.save_hyperparameters()

    pruner = pruner_of()
    path = tmp_path / "last.ckpt"
    trainer, model = trainer_of(tmp_path, InfoBatchCallback(pruner)), Hyper(pruner, 3)
    with pytest.warns(UserWarning, match=r"save_hyperparameters\(ignore=\['pruner'\]\)"):
        trainer.fit(model, loader_of(pruner))
    trainer.save_checkpoint(path)
    assert torch.load(path, weights_only=False)["hyper_parameters"] == {"width": 3}
