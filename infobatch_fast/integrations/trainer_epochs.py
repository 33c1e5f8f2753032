"""Epochs of InfoBatchTrainer: their number, their fractions, and whether losses come back in them."""

from __future__ import annotations

import math
import warnings
from typing import Any

from transformers import Trainer, TrainerCallback

from ..pruner import InfoBatch

NOTHING_SCORED = (
    "so nothing would ever be pruned: override compute_sample_losses(self, outputs, labels, inputs) in place of compute_loss, and "
    "return one loss a sample, [B]. Or pop 'infobatch_index' from inputs, and return self.pruner.update(index, losses)"
)


class FullEpoch:
    """Stands for the loader where the Trainer counts the steps of a run."""

    def __init__(self, dataset: Any, batches: int) -> None:
        self.dataset, self._batches = dataset, batches

    def __len__(self) -> int:
        return self._batches


class EpochWatch(TrainerCallback):
    """Makes sure that the first step of each epoch recorded losses.

    It also corrects ``state.epoch`` after a restart in the middle of an epoch, when the loader holds only the rest of the epoch.
    """

    def begin(self, pruner: InfoBatch, epoch: int, batch_size: int, left: int) -> None:
        """An epoch begins, or is resumed, with ``left`` batches."""
        self.epochs, self.epoch, self.left = pruner.engine.epochs, epoch, left
        self.scored, self.is_first = self.epochs.scored, True
        self.visited = -(-self.scored // batch_size)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The gradients were computed, so the losses should have been recorded.

        Raises:
            RuntimeError: The first step recorded none.
        """
        if self.is_first and self.epochs.scored == self.scored:
            raise RuntimeError(f"the first training step of epoch {self.epoch} recorded no loss, {NOTHING_SCORED}")
        self.is_first = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Sets ``state.epoch`` to the fraction of the whole epoch, not of the rest."""
        done = self.visited + (state.epoch - self.epoch) * self.left
        state.epoch = self.epoch + done / (self.visited + self.left)


def warn_of_epochs(trainer: Trainer, pruner: InfoBatch) -> None:
    """Warns if the run and its pruner have different numbers of epochs."""
    asked, planned = math.ceil(trainer.args.num_train_epochs), pruner.schedule.num_epochs
    if trainer.args.max_steps > 0 or asked == planned or not trainer.is_world_process_zero():
        return
    if planned < asked:
        what = f"epochs from {planned} on are full, and the learning rate ends with epoch {planned - 1}"
    else:
        what = f"the run stops at {asked / planned:.0%} of the learning rate's schedule, before the full epochs at its end"
    warnings.warn(
        f"InfoBatch has num_epochs={planned} and the training arguments have num_train_epochs={asked}: {what}. Write "
        f"num_epochs={asked} in InfoBatch(...), or leave it out of infobatch={{...}}",
        UserWarning,
        stacklevel=2,
    )
