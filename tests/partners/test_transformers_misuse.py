"""What users of InfoBatchTrainer get wrong: it is noticed, or does not matter."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers", minversion="5.3.0")

from infobatch_fast import InfoBatch  # noqa: E402
from infobatch_fast.integrations.transformers import InfoBatchTrainer  # noqa: E402
from support.line_trainer import SIZE, Line, Numbers, trainer_of, value_of  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set:UserWarning")
CLASS_WEIGHTS = torch.tensor([1.0, 3.0])


class Takes(Line):
    """Swallows what it does not know, as transformers' own models do."""

    def forward(self, x: torch.Tensor, labels: Any = None, **kwargs: Any) -> dict[str, torch.Tensor]:
        return super().forward(x)


class Judges(Line):
    """Computes its loss without asking whether labels are there; in a dict, or first in a tuple."""

    def __init__(self, factor: float = 1.0, as_tuple: bool = False) -> None:
        super().__init__()
        self.factor, self.as_tuple = factor, as_tuple

    def forward(self, x: torch.Tensor, labels: Any = None) -> Any:
        logits = super().forward(x)["logits"]
        loss = self.factor * F.cross_entropy(logits, labels)
        return (loss, logits) if self.as_tuple else {"loss": loss, "logits": logits}


class Weighted(InfoBatchTrainer):
    def compute_sample_losses(self, outputs: Any, labels: Any, inputs: Any) -> torch.Tensor:
        assert set(inputs) == {"x", "labels"}
        return F.cross_entropy(outputs["logits"], labels, weight=CLASS_WEIGHTS, reduction="none")


# ---- losses of one's own ----


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


def classifier(**kwargs: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=17, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=2, **kwargs
    )
    return transformers.BertForSequenceClassification(config)


class Texts(torch.utils.data.Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": torch.tensor([index % 17, index % 5, 3]), "labels": index % 2}


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


# ---- epochs ----


@pytest.mark.parametrize(
    ("planned", "asked", "message"),
    [
        (2, 4, "num_epochs=2 and .* num_train_epochs=4: epochs from 2 on are full.*num_epochs=4 in InfoBatch"),
        (8, 2, "num_epochs=8 and .* num_train_epochs=2: the run stops at 25% .*num_epochs=2 in InfoBatch"),
    ],
)
@pytest.mark.parametrize("own", [False, True])
def test_other_epochs_than_the_pruners_are_named_once(tmp_path: Path, planned: int, asked: int, message: str, own: bool) -> None:
    infobatch = InfoBatch(Numbers(), planned) if own else {"num_epochs": planned}
    trainer = trainer_of(tmp_path, arguments={"num_train_epochs": asked}, infobatch=infobatch)
    with pytest.warns(UserWarning, match=message) as caught:
        trainer.train()
    assert sum("num_train_epochs" in str(warning.message) for warning in caught) == 1


@pytest.mark.parametrize("arguments", [{"num_train_epochs": 3}, {"max_steps": 7}])
def test_as_many_epochs_or_max_steps_give_no_warning(tmp_path: Path, arguments: dict[str, int]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer_of(tmp_path, arguments=arguments, infobatch=InfoBatch(Numbers(), 3)).train()
    assert not [warning for warning in caught if "num_epochs" in str(warning.message)]


def test_with_max_steps_the_pruner_counts_the_epochs_that_they_are_worth_without_pruning(tmp_path: Path) -> None:
    arguments = {"max_steps": 7, "gradient_accumulation_steps": 2}
    trainer = trainer_of(tmp_path, arguments=arguments, infobatch={"prune_ratio": 0.9})
    assert trainer.pruner.schedule.num_epochs == 3  # 70 samples of 24
    trainer.train()
    assert trainer.state.global_step == 7


def test_a_later_run_follows_the_training_arguments_as_they_are_then(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    trainer.args.num_train_epochs = 3
    trainer.train()
    assert trainer.pruner.schedule.num_epochs == 3
    first = trainer.pruner
    trainer.args.num_train_epochs, trainer.args.seed = 5, 7
    trainer.train()
    assert (trainer.pruner.schedule.num_epochs, trainer.pruner.seed) == (5, 7)
    assert trainer.pruner is not first
    assert trainer.pruner.progress == 1.0


def test_arguments_that_a_search_sets_reach_the_pruner(tmp_path: Path) -> None:
    class Searched(InfoBatchTrainer):
        def _hp_search_setup(self, trial: Any) -> None:
            super()._hp_search_setup(trial)
            self.args.num_train_epochs = 6

    trainer = trainer_of(tmp_path, cls=Searched)
    trainer.train()
    assert (trainer.pruner.schedule.num_epochs, trainer.pruner.epoch) == (6, 5)


def test_a_smaller_batch_that_is_tried_begins_with_new_scores(tmp_path: Path) -> None:
    class Large(Line):
        def forward(self, x: torch.Tensor, labels: Any = None) -> dict[str, torch.Tensor]:
            if len(x) > 3 and x.max() > SIZE - 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(x)

    arguments = {"auto_find_batch_size": True, "per_device_train_batch_size": 4, "num_train_epochs": 3, "logging_steps": 1}
    trainer = trainer_of(tmp_path, model=Large(), arguments=arguments)
    first = trainer.pruner
    trainer.train()
    assert trainer._train_batch_size < 4
    assert trainer.pruner is not first
    kept = [entry["infobatch_kept"] for entry in trainer.state.log_history if "infobatch_kept" in entry]
    assert kept[0] == SIZE
    assert kept[1] < SIZE
    assert trainer.pruner.progress == 1.0


# ---- evaluation ----


@pytest.mark.parametrize("mode", [True, False])
def test_evaluation_in_any_mode_of_the_model_records_nothing(tmp_path: Path, mode: bool) -> None:
    class Stays(Judges):
        """In one mode, whatever it is told, as frozen models do."""

        def train(self, ignored: bool = True) -> Any:
            return super().train(mode)

    class Counts(transformers.TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            scored.append((state.global_step, trainer.pruner.stats.scored))

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            before = trainer.pruner.stats.scored
            trainer.evaluate(trainer.train_dataset)
            trainer.predict(Numbers())
            assert trainer.pruner.stats.scored == before > 0

    scored: list[tuple[int, int]] = []
    arguments = {"eval_on_start": True, "eval_strategy": "steps", "eval_steps": 2}
    trainer = trainer_of(tmp_path, model=Stays().train(), arguments=arguments, eval_dataset=Numbers(), callbacks=[Counts()])
    trainer.train()
    assert scored[:2] == [(0, 0), (2, 10)]
    assert not trainer.pruner.scores().isnan().any()


def test_batches_of_the_training_loader_may_be_evaluated(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, model=Judges())
    for batch in trainer.get_train_dataloader():
        loss, _, _ = trainer.prediction_step(trainer.model, batch, prediction_loss_only=True)
        assert loss > 0
    assert trainer.pruner.scores().isnan().all()


# ---- batches ----


@pytest.mark.parametrize("extra", [{}, {"per_sample_loss": value_of}])
def test_a_collator_that_drops_samples_is_named(tmp_path: Path, extra: dict[str, Any]) -> None:
    def drop(items: list[dict[str, Any]]) -> Any:
        return transformers.default_data_collator(items[1:])

    with pytest.raises(ValueError, match="got 4 losses for a batch of 5 samples: data_collator must return one row for each"):
        trainer_of(tmp_path, data_collator=drop, **extra).train()


def test_labels_of_another_name_and_columns_that_the_model_does_not_know(tmp_path: Path) -> None:
    class Named(Line):
        def forward(self, x: torch.Tensor, target: Any = None) -> dict[str, torch.Tensor]:
            assert target is not None
            return super().forward(x)

    class Rows(Numbers):
        def __getitem__(self, index: int) -> dict[str, Any]:
            item = super().__getitem__(index)
            return {"x": item["x"], "target": item["labels"], "unknown": "to the model"}

    trainer = trainer_of(tmp_path, dataset=Rows(), model=Named(), arguments={"label_names": ["target"]})
    trainer.train()
    assert not trainer.pruner.scores().isnan().any()


def test_checkpointed_activations_record_each_loss_once(tmp_path: Path) -> None:
    model = classifier(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    arguments = {"gradient_checkpointing": True, "num_train_epochs": 1, "learning_rate": 0.0}
    trainer = trainer_of(tmp_path, dataset=Texts(), model=model, arguments=arguments)
    trainer.train()
    assert trainer.pruner.stats.scored == SIZE
