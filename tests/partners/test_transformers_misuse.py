"""What users of InfoBatchTrainer get wrong: it is noticed, or does not matter."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers", minversion="5.3.0")

from infobatch_fast import InfoBatch  # noqa: E402
from infobatch_fast.integrations.transformers import InfoBatchTrainer  # noqa: E402
from support.line_trainer import SIZE, Judges, Line, Numbers, Texts, classifier, trainer_of, value_of  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set:UserWarning")


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
