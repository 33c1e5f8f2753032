"""A LightningModule for the tests: each loss is a known function of its sample and epoch, and what happens is noted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from infobatch_fast import InfoBatch, with_index
from support.items import Items

SIZE, BATCH, EPOCHS = 90, 8, 4
WARNINGS = [
    "ignore:.set_vital. is deprecated:UserWarning",  # StatefulDataLoader calls it
    "ignore:.*multi-threaded.*fork:DeprecationWarning",
    "ignore:This DataLoader will create:UserWarning",
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:Be aware that when using `ckpt_path`, callbacks used",  # to create the checkpoint: Lightning's own, here
    "ignore:.*is not resumable",  # a plain DataLoader has no state; the pruner's is enough
    "ignore:.*treespec, LeafSpec.*:FutureWarning",
    "ignore:.*LeafSpec.*:DeprecationWarning",
    "ignore:The number of training batches .* is smaller than the logging interval",
    "ignore:You are trying to `self.log.. but the `self.trainer` reference",
]


def loss_of(sample: torch.Tensor, epoch: int) -> torch.Tensor:
    """Exact in float32, and well scattered."""
    return (sample * 37 + epoch * 11) % 97 + 1.0


class Model(pl.LightningModule):
    """Its one weight does not change the losses; their gradient with respect to it are the losses themselves."""

    def __init__(self, pruner: InfoBatch | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        if pruner is not None:
            self.pruner = pruner
        self.visited: dict[int, list[int]] = {}
        self.lengths: dict[int, float] = {}
        self.validated: list[tuple[int, int]] = []  # epoch, and number of the batch within
        self.expected_gradient: list[float] = []

    @property
    def used(self) -> InfoBatch:
        """The pruner, of this module or of the data module."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        return self.pruner if datamodule is None else datamodule.pruner

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        index, items = batch
        assert torch.equal(items[:, 0], 100.0 + index), "an index and its item"
        epoch = self.used.epoch
        known = loss_of(index, epoch)
        self.visited.setdefault(epoch, []).extend(index.tolist())
        self.lengths[self.trainer.current_epoch] = self.trainer.num_training_batches
        self.expected_gradient.append((self.used.weights(index) * known).mean().item())
        return self.used.update(index, known * (1 + self.weight - self.weight.detach()).float())

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if not self.trainer.sanity_checking:
            self.validated.append((self.trainer.current_epoch, self.trainer.fit_loop.batch_idx))

    def val_dataloader(self) -> Any:
        return DataLoader([0.0])  # type: ignore[arg-type]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Checks(Callback):
    """After each epoch: all samples that it visited have their own loss as score, and those alone have changed."""

    def __init__(self) -> None:
        self.expected = torch.full((SIZE,), torch.nan)
        self.epochs: list[int] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        epoch = trainer.current_epoch
        visited = torch.tensor(pl_module.visited.get(epoch, []), dtype=torch.int64)
        self.expected[visited] = loss_of(visited, epoch)
        torch.testing.assert_close(pl_module.used.scores(), self.expected, rtol=0, atol=0, equal_nan=True)
        self.epochs.append(epoch)


def pruner_of(**kwargs: Any) -> InfoBatch:
    return InfoBatch(SIZE, EPOCHS, **{"delta": 1.0, **kwargs})


def loader_of(pruner: InfoBatch, make: Callable[..., Any] = DataLoader, **kwargs: Any) -> Any:
    return make(with_index(Items(SIZE)), **{"batch_size": BATCH, "sampler": pruner.sampler, **kwargs})


def stateful_loader(*args: Any, **kwargs: Any) -> Any:
    """torchdata's loader with a state."""
    return pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader(*args, **kwargs)


def trainer_of(folder: Path, *callbacks: Any, **kwargs: Any) -> pl.Trainer:
    arguments: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": EPOCHS,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    return pl.Trainer(callbacks=list(callbacks), **{**arguments, **kwargs})


def batches_of(visited: list[int]) -> int:
    return -(-len(visited) // BATCH)
