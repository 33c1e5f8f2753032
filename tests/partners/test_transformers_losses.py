"""Losses of one's own in InfoBatchTrainer: what records nothing, or means something else than the model, is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers", minversion="5.3.0")

from infobatch_fast import InfoBatch  # noqa: E402
from infobatch_fast.integrations.transformers import InfoBatchTrainer  # noqa: E402
from support.line_trainer import SIZE, Judges, Line, Numbers, Texts, classifier, trainer_of, value_of  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set:UserWarning")
CLASS_WEIGHTS = torch.tensor([1.0, 3.0])


class Takes(Line):
    """Swallows what it does not know, as transformers' own models do."""

    def forward(self, x: torch.Tensor, labels: Any = None, **kwargs: Any) -> dict[str, torch.Tensor]:
        return super().forward(x)


class Weighted(InfoBatchTrainer):
    def compute_sample_losses(self, outputs: Any, labels: Any, inputs: Any) -> torch.Tensor:
        assert set(inputs) == {"x", "labels"}
        return F.cross_entropy(outputs["logits"], labels, weight=CLASS_WEIGHTS, reduction="none")


class OwnLoss(InfoBatchTrainer):
    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = F.cross_entropy(outputs["logits"], labels, weight=CLASS_WEIGHTS)
        return (loss, outputs) if return_outputs else loss


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Takes(), "the first training step of epoch 0 recorded no loss, .*override compute_sample_losses"),
        (Line(), "the model was called with 'infobatch_index' and refused it .*override compute_sample_losses"),
    ],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_compute_loss_that_records_nothing_is_named_before_the_first_step(
    tmp_path: Path, model: Any, message: str, accumulate: int
) -> None:
    before = model.weight.item()
    arguments = {"learning_rate": 0.1, "gradient_accumulation_steps": accumulate}
    with pytest.raises(RuntimeError, match=message):
        trainer_of(tmp_path, cls=OwnLoss, model=model, arguments=arguments).train()
    assert model.weight.item() == before


def test_a_compute_loss_that_adds_to_the_trainers_trains(tmp_path: Path) -> None:
    class Adds(InfoBatchTrainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            return super().compute_loss(model, inputs, *args, **kwargs) + model.weight.square()

    trainer = trainer_of(tmp_path, cls=Adds, arguments={"logging_steps": 1})
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][:5]
    assert sum(loss * rows for loss, rows in zip(logged, [5, 5, 5, 5, 4], strict=True)) / SIZE == pytest.approx(
        float(trainer.pruner.scores().mean()) + 0.01**2, rel=1e-3
    )


def test_a_compute_loss_that_updates_the_pruner_itself_trains(tmp_path: Path) -> None:
    class Updates(InfoBatchTrainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            index = inputs.pop("infobatch_index", None)
            return self.pruner.update(index, model(**inputs)["logits"][:, 0] * 100)

    trainer = trainer_of(tmp_path, cls=Updates)
    trainer.train()
    torch.testing.assert_close(trainer.pruner.scores(), torch.arange(1.0, 1 + SIZE))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("model", [Line, Takes])  # without and with num_items_in_batch
def test_class_weights_in_compute_sample_losses_train_as_in_the_plain_trainer(tmp_path: Path, model: Any, accumulate: int) -> None:
    class Plain(transformers.Trainer):
        loss_is_scaled_for_ga = False  # a mean of each batch

        def _get_train_sampler(self, *args: Any) -> Any:
            return InfoBatch(SIZE, 3, prune_ratio=0.0, seed=42).sampler

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            logits = model(inputs["x"])["logits"]
            return F.cross_entropy(logits, inputs["labels"], weight=CLASS_WEIGHTS, reduction="none").mean()

    arguments = {"num_train_epochs": 3, "learning_rate": 0.01, "gradient_accumulation_steps": accumulate, "optim": "sgd"}
    arguments["lr_scheduler_type"] = "constant"  # the Trainer's others count steps
    ours = trainer_of(tmp_path, cls=Weighted, model=model(), arguments=arguments, infobatch={"prune_ratio": 0.0})
    theirs = trainer_of(tmp_path, cls=Plain, model=model(), arguments=arguments)
    ours.train()
    theirs.train()
    assert abs(ours.model.weight.item() - 0.01) > 1e-3
    torch.testing.assert_close(ours.model.weight, theirs.model.weight)


def test_evaluation_takes_the_mean_of_ones_own_losses_and_records_nothing(tmp_path: Path) -> None:
    for extra in ({"cls": Weighted}, {"per_sample_loss": value_of}):
        trainer = trainer_of(tmp_path, eval_dataset=Numbers(), **extra)
        logits = 0.01 * (1.0 + torch.arange(SIZE))[:, None] * torch.tensor([1.0, -1.0])
        expected = F.cross_entropy(logits, torch.arange(SIZE) % 2, weight=CLASS_WEIGHTS, reduction="none").mean()
        if "cls" not in extra:
            expected = 100 * logits[:, 0].mean()
        assert trainer.evaluate()["eval_loss"] == pytest.approx(float(expected))
        assert trainer.pruner.scores().isnan().all()


def test_sums_and_counts_of_the_default_may_be_changed(tmp_path: Path) -> None:
    class Doubles(InfoBatchTrainer):
        def compute_sample_losses(self, outputs: Any, labels: Any, inputs: Any) -> Any:
            losses = super().compute_sample_losses(outputs, labels, inputs)
            return losses._replace(sums=2 * losses.sums)

    plain, doubled = trainer_of(tmp_path), trainer_of(tmp_path, cls=Doubles)
    plain.train()
    doubled.train()
    torch.testing.assert_close(doubled.pruner.scores(), 2 * plain.pruner.scores())


@pytest.mark.parametrize("as_tuple", [False, True])
def test_a_model_that_needs_its_labels_gets_them(tmp_path: Path, as_tuple: bool) -> None:
    trainer = trainer_of(tmp_path, model=Judges(as_tuple=as_tuple), eval_dataset=Numbers())
    trainer.train()
    assert float(trainer.pruner.scores().mean()) == pytest.approx(trainer.evaluate()["eval_loss"])


def test_a_models_own_loss_that_is_another_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Judges returned the loss .*another loss, so pass InfoBatchTrainer\(per_sample_loss=f\)"):
        trainer_of(tmp_path, model=Judges(factor=2.0)).train()
    trainer_of(tmp_path, model=Judges(factor=2.0), per_sample_loss=value_of).train()


class Adapted(torch.nn.Module):
    """As PEFT wraps a model."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = classifier()

    def get_base_model(self) -> Any:
        return self.inner

    def forward(self, input_ids: Any = None, labels: Any = None, **kwargs: Any) -> Any:
        return self.inner(input_ids, labels=labels, **kwargs)


@pytest.mark.parametrize("changed", [False, True])  # model.loss_function = f is how transformers has another loss
@pytest.mark.parametrize("make", [classifier, Adapted])
def test_labels_stay_out_of_transformers_own_models_alone(tmp_path: Path, make: Any, changed: bool) -> None:
    model, seen = make(), set()
    inner = model.inner if make is Adapted else model
    if changed:
        inner.loss_function = inner.loss_function
    inner.register_forward_pre_hook(lambda module, args, inputs: seen.add(inputs.get("labels") is not None), with_kwargs=True)
    trainer = trainer_of(tmp_path, dataset=Texts(), model=model)
    trainer.train()
    assert seen == {changed}
    assert not trainer.pruner.scores().isnan().any()
