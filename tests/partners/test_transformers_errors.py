"""What InfoBatchTrainer refuses, and what it says; losses of samples beside the models' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5.3.0")
pytest.importorskip("accelerate")

from infobatch_fast import InfoBatch, with_index  # noqa: E402
from infobatch_fast.integrations.sample_losses import class_losses, token_losses  # noqa: E402
from infobatch_fast.integrations.trainer_batches import IndexCollator  # noqa: E402
from infobatch_fast.integrations.transformers import InfoBatchTrainer  # noqa: E402
from support.line_trainer import SIZE, Numbers, trainer_of, value_of  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set:UserWarning")


def test_a_users_function_gives_the_scores_of_any_module(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, per_sample_loss=value_of)
    trainer.train()
    torch.testing.assert_close(trainer.pruner.scores(), torch.arange(1.0, 1 + SIZE))


def test_a_classifier_of_ones_own_needs_no_function(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    trainer.train()
    logits = 0.01 * torch.arange(1.0, 1 + SIZE)[:, None] * torch.tensor([1.0, -1.0])
    truth = torch.nn.functional.cross_entropy(logits, torch.arange(SIZE) % 2, reduction="none")
    torch.testing.assert_close(trainer.pruner.scores(), truth)


def test_evaluation_leaves_the_pruner_alone(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, eval_dataset=Numbers(), compute_metrics=lambda predictions: {})
    with pytest.raises(ValueError, match="did not return a loss"):  # the Trainer's own compute_loss, as the model has none
        trainer.evaluate()
    assert trainer.pruner.scores().isnan().all()


@pytest.mark.parametrize(
    ("kwargs", "arguments", "message"),
    [
        ({"compute_loss_func": print}, {}, "per_sample_loss=f"),
        ({"infobatch": InfoBatch(7, 2)}, {}, "7 samples and train_dataset has 24"),
        ({"infobatch": InfoBatch(SIZE, 2, steps_per_epoch=3, batch_size=5)}, {}, "steps_per_epoch"),
        ({"infobatch": {"steps_per_epoch": 3, "batch_size": 5}}, {}, "steps_per_epoch"),
        ({"dataset": with_index(Numbers())}, {}, "wrapped by with_index"),
        ({}, {"num_train_epochs": 1.5}, "must be whole"),
        ({}, {"train_sampling_strategy": "group_by_length"}, "replaces InfoBatch's sampler by another one"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(
    tmp_path: Path, kwargs: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        trainer_of(tmp_path, arguments=arguments, **kwargs)


@pytest.mark.parametrize("function", [lambda outputs: outputs, lambda outputs, labels, inputs: outputs, 7])
def test_a_function_that_takes_other_arguments_is_refused_at_once(tmp_path: Path, function: Any) -> None:
    with pytest.raises(
        TypeError, match=r"the trainer calls per_sample_loss\(outputs, labels\), but (<function|7).*does not take these arguments"
    ):
        trainer_of(tmp_path, per_sample_loss=function)


def test_a_method_that_takes_other_arguments_is_refused_at_once(tmp_path: Path) -> None:
    class Short(InfoBatchTrainer):
        def compute_sample_losses(self, outputs: Any, labels: Any) -> Any:
            return outputs

    with pytest.raises(TypeError, match=r"the trainer calls compute_sample_losses\(outputs, labels, inputs\), but .*Short"):
        trainer_of(tmp_path, cls=Short)


def test_infobatch_must_be_one_of_three_kinds(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="infobatch must be a dict"):
        trainer_of(tmp_path, infobatch=0.5)


def test_a_reduced_loss_is_named(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, per_sample_loss=lambda outputs, labels: outputs["logits"].mean())
    with pytest.raises(ValueError, match=r"one loss for each of the 5 samples, got shape \[\].*reduction='none'"):
        trainer.train()


def test_a_batch_without_indices_is_named(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    with pytest.raises(ValueError, match="the batch has no 'infobatch_index'"):
        trainer.training_step(trainer.model, {"x": torch.ones(1, 1), "labels": torch.zeros(1, dtype=torch.int64)})


def test_a_training_set_of_another_size_is_named(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    trainer.train_dataset = torch.utils.data.Subset(Numbers(), range(7))
    with pytest.raises(ValueError, match="7 samples and the pruner 24"):
        trainer.train()


@pytest.mark.parametrize("batch", [[1, 2], {"infobatch_index": 1}])
def test_a_collator_must_leave_room_for_the_indices(batch: Any) -> None:
    with pytest.raises(TypeError, match="dict of tensors without 'infobatch_index'"):
        IndexCollator(lambda items: batch)([(0, "a")])


@pytest.mark.parametrize(("kind", "smoothing"), [("causal", 0.0), ("masked", 0.0), ("masked", 0.1)])
def test_sums_of_token_losses_are_those_of_torch(kind: str, smoothing: float) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 6, 7), torch.randint(7, (3, 6))
    labels[0, 2:] = -100
    labels[2] = -100
    found = token_losses(logits, labels, kind == "causal", smoothing)
    first = 1 if kind == "causal" else 0
    for row in range(3):
        its_own = torch.nn.functional.cross_entropy(
            logits[row, : 6 - first], labels[row, first:], reduction="sum", label_smoothing=smoothing
        )
        torch.testing.assert_close(found.sums[row], its_own)
    assert found.counts.tolist() == [2 - first, 6 - first, 0]
    assert found.means[2] == 0


@pytest.mark.parametrize(
    ("problem", "outputs", "labels"),
    [
        ("single_label_classification", 4, torch.tensor([0, 3, 1])),
        ("multi_label_classification", 2, torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])),
        ("regression", 1, torch.tensor([0.5, 1.5, -2.0])),
    ],
)
def test_losses_of_classifiers_have_the_models_own_mean(problem: str, outputs: int, labels: torch.Tensor) -> None:
    from transformers.loss.loss_utils import ForSequenceClassificationLoss

    torch.manual_seed(0)
    logits = torch.randn(3, outputs)
    config = transformers.BertConfig(num_labels=outputs, problem_type=problem)
    found = class_losses(logits, labels, None)
    torch.testing.assert_close(found.sums.sum() / found.counts.sum(), ForSequenceClassificationLoss(labels, logits, config))
