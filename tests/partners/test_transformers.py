"""InfoBatchTrainer with a tiny causal language model: every sample's score is its own loss, and a run resumes in mid-epoch."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

transformers = pytest.importorskip("transformers", minversion="5.3.0")
pytest.importorskip("accelerate")
datasets = pytest.importorskip("datasets")

from infobatch_fast import InfoBatch  # noqa: E402
from infobatch_fast.integrations.transformers import InfoBatchTrainer  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:Cannot (locate|pickle)"),  # dill, when datasets takes fingerprints
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set:UserWarning"),
]
SIZE, VOCAB = 44, 17


def tokens(seed: int = 0) -> Any:
    """Samples of unequal length, padded by the collator; and a column that the model does not know."""
    drawn = torch.Generator().manual_seed(seed)
    rows = [torch.randint(1, VOCAB, (4 + i % 5,), generator=drawn).tolist() for i in range(SIZE)]
    return datasets.Dataset.from_dict({"input_ids": rows, "labels": rows, "name": [f"sample {i}" for i in range(SIZE)]})


def pad(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    assert set(items[0]) == {"input_ids", "labels"}
    length = max(len(item["input_ids"]) for item in items)
    ids = [item["input_ids"] + [0] * (length - len(item["input_ids"])) for item in items]
    labels = [item["labels"] + [-100] * (length - len(item["labels"])) for item in items]
    return {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels)}


def model_of(dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=VOCAB, n_positions=16, n_embd=16, n_layer=1, n_head=2, **drops)
    )


def trainer_of(folder: Path, cls: Any = InfoBatchTrainer, model: Any = None, **kwargs: Any) -> Any:
    names = ("infobatch", "per_sample_loss", "callbacks")
    extra = {name: kwargs.pop(name) for name in names if name in kwargs}
    settings = {"num_train_epochs": 8, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "use_cpu": True} | kwargs
    settings |= {
        "output_dir": str(folder),
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": kwargs.get("save_strategy", "no"),
    }
    args = transformers.TrainingArguments(**settings)
    return cls(model or model_of(), args, data_collator=pad, train_dataset=tokens(), **extra)


def true_losses(model: Any) -> torch.Tensor:
    """Each sample's own mean loss, one by one, in plain torch."""
    with torch.no_grad():
        rows = [torch.tensor([row]) for row in tokens()["input_ids"]]
        return torch.stack([F.cross_entropy(model(row).logits[0, :-1], row[0, 1:]) for row in rows])


@pytest.mark.parametrize("workers", [0, 2])
def test_every_score_is_the_samples_own_loss(tmp_path: Path, workers: int) -> None:
    seen: list[tuple[int, torch.Tensor]] = []

    class Compare(transformers.TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append((trainer.pruner.stats.kept, trainer.pruner.scores()))

    trainer = trainer_of(
        tmp_path, learning_rate=0.0, weight_decay=0.0, callbacks=[Compare()], dataloader_num_workers=workers, num_train_epochs=3
    )
    trainer.train()
    truth = true_losses(trainer.model)
    assert seen[0][0] == SIZE
    assert seen[1][0] < SIZE
    for _, scores in seen:
        torch.testing.assert_close(scores, truth)


def test_pruned_epochs_are_shorter_and_the_learning_rate_ends_where_the_schedule_ends(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, gradient_accumulation_steps=3, logging_steps=1)
    steps = trainer.train().global_step
    kept = [entry["infobatch_kept"] for entry in trainer.state.log_history if "infobatch_kept" in entry]
    assert steps == sum(
        math.ceil(math.ceil(samples / 4) / 3) for samples in kept
    )  # batches of 4, each third one steps, and the last
    assert len(kept) == 8
    assert kept[0] == kept[-1] == SIZE
    assert max(kept[1:7]) < SIZE
    assert trainer.state.max_steps == steps
    assert trainer.state.epoch == 8.0
    assert trainer.lr_scheduler.get_last_lr() == [0.0, 0.0]  # parameters with weight decay, and without


@pytest.mark.parametrize("accumulate", [1, 3])
def test_without_pruning_the_weights_are_those_of_the_trainer_on_the_same_batches(tmp_path: Path, accumulate: int) -> None:
    ours = trainer_of(tmp_path, infobatch={"prune_ratio": 0.0}, gradient_accumulation_steps=accumulate, num_train_epochs=2)

    class SameBatches(transformers.Trainer):
        def _get_train_sampler(self, *args: Any) -> Any:
            return InfoBatch(SIZE, 2, prune_ratio=0.0, seed=42).sampler

    theirs = trainer_of(tmp_path, cls=SameBatches, gradient_accumulation_steps=accumulate, num_train_epochs=2)
    theirs._loss_shifts_labels = True  # GPT2LMHeadModel's num_items_in_batch, see the other trainer
    ours._loss_shifts_labels = True
    ours.train()
    theirs.train()
    for mine, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("step", [11, 13, 22])  # at the end of epoch 0, and in the middle of pruned ones
def test_a_run_resumed_in_mid_epoch_ends_as_one_that_was_not_interrupted(tmp_path: Path, step: int) -> None:
    whole = trainer_of(tmp_path, model=model_of(dropout=0.1), save_strategy="steps", save_steps=step)
    whole.train()
    resumed = trainer_of(tmp_path, model=model_of(dropout=0.1))
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert resumed.state.global_step == whole.state.global_step
    for mine, other in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert torch.equal(resumed.pruner.scores(), whole.pruner.scores())
    assert resumed.state.epoch == whole.state.epoch


def test_a_checkpoint_without_the_pruner_is_named(tmp_path: Path) -> None:
    trainer_of(tmp_path, save_strategy="steps", save_steps=5, max_steps=5).train()
    shutil.rmtree(tmp_path / "checkpoint-5" / "infobatch")
    with pytest.raises(FileNotFoundError, match="holds no state of an InfoBatch"):
        trainer_of(tmp_path, max_steps=8).train(resume_from_checkpoint=True)


def test_weights_of_a_pruned_epoch_reach_the_loss_and_the_gradient(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, learning_rate=0.0, num_train_epochs=4)
    trainer.train()
    trainer.pruner.set_epoch(2)
    index = trainer.pruner.sampler.indices(0, 6)
    weights = trainer.pruner.weights(index)
    assert weights.max() > weights.min() == 1
    rows = trainer.train_dataset.remove_columns("name")
    batch = pad([rows[i] for i in index.tolist()]) | {"infobatch_index": index}
    model = trainer.model.train()
    model.zero_grad()
    loss = trainer.compute_loss(model, batch, num_items_in_batch=torch.tensor(100))
    loss.backward()
    gradient = model.transformer.wte.weight.grad.clone()
    model.zero_grad()
    expected = torch.zeros(())
    for weight, sample in zip(weights, index.tolist(), strict=True):
        row = torch.tensor([rows[sample]["input_ids"]])
        expected = expected + weight * F.cross_entropy(model(row).logits[0, :-1], row[0, 1:], reduction="sum") / 100
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, model.transformer.wte.weight.grad)
