"""Hugging Face Trainer with InfoBatch: the sampler, the indices, the losses of samples, learning rate and checkpoints."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader

from ..dataset import with_index
from ..pruner import InfoBatch
from ..schedules import EpochProgressLR

LOWEST_VERSION = "5.3.0"  # has _run_epoch and _init_training_state

try:
    from transformers import Trainer, TrainerCallback
    from transformers.trainer_utils import seed_worker
    from transformers.utils import is_datasets_available

    if not hasattr(Trainer, "_run_epoch"):
        raise ImportError("this version is older")
except ImportError as error:
    raise ImportError(
        f"infobatch_fast.integrations.transformers needs transformers>={LOWEST_VERSION} and accelerate; import gave: {error}. "
        "pip install -U transformers accelerate"
    ) from error

from .accelerate import load, prepare, save  # noqa: E402
from .trainer_batches import (  # noqa: E402
    KEY,
    FullEpoch,
    IndexCollator,
    check_losses,
    check_trainer,
    default_losses,
    make_pruner,
    optional_inputs,
)

PerSampleLoss = Callable[[Any, Any], torch.Tensor]
FOLDER = "infobatch"  # in each of the trainer's checkpoints


class _EpochFractions(TrainerCallback):
    """Puts ``state.epoch`` right after a restart in mid-epoch, where the loader's length is that of the rest."""

    def begin(self, epoch: int, visited: int, left: int) -> None:
        self.epoch, self.visited, self.left = epoch, visited, left

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        done = self.visited + (state.epoch - self.epoch) * self.left
        state.epoch = self.epoch + done / (self.visited + self.left)


class InfoBatchTrainer(Trainer):
    """``transformers.Trainer`` that skips well-learned samples. What it does else, and all its other arguments, are the Trainer's.

    Epochs are as long as their plans, the learning rate follows the fraction of the run that is done, and the state of the pruner
    lies beside the trainer's in each checkpoint, so that ``resume_from_checkpoint`` goes on in the middle of an epoch.

    Args:
        *args: As for ``Trainer``.
        infobatch: Keyword arguments for ``InfoBatch``, whose num_epochs, seed and device are by default those of the training
            arguments; or an ``InfoBatch`` over the training set; None is all defaults.
        per_sample_loss: ``f(outputs, labels)`` that returns one loss for each sample, [B], if the model's own loss is not that
            of a classifier or a language model. ``labels`` is what the batch calls labels, or a dict where it has several kinds.
        **kwargs: As for ``Trainer``.

    Attributes:
        pruner: The ``InfoBatch``; None without a training set.

    Raises:
        ValueError: An option of the Trainer that reduces losses, or orders or shards samples itself; the message says which.

    Example:
        >>> trainer = InfoBatchTrainer(model, args, train_dataset=dataset)   # doctest: +SKIP
        >>> trainer.train()                                                  # doctest: +SKIP
    """

    def __init__(
        self,
        *args: Any,
        infobatch: dict[str, Any] | InfoBatch | None = None,
        per_sample_loss: PerSampleLoss | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_trainer(self)
        self.per_sample_loss = per_sample_loss
        self._infobatch = infobatch
        self.pruner: Any = None if self.train_dataset is None else make_pruner(self, infobatch)
        self._has_trained = False
        self._fractions = _EpochFractions()
        self.add_callback(self._fractions)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As ``Trainer.train``. A second run begins with new scores, unless the pruner is the caller's own."""
        if self._has_trained and not isinstance(self._infobatch, InfoBatch):
            self.pruner = make_pruner(self, self._infobatch)
        return super().train(*args, **kwargs)

    def get_train_dataloader(self) -> Any:
        """The training loader: the pruner's order, each batch with its indices under ``infobatch_index``."""
        dataset, collator, args = self.train_dataset, self.data_collator, self.args
        if dataset is None:
            return super().get_train_dataloader()  # which says what is missing
        if len(dataset) != self.pruner.num_samples:
            raise ValueError(
                f"train_dataset has {len(dataset)} samples and the pruner {self.pruner.num_samples}: construct the trainer anew "
                "with this training set"
            )
        if is_datasets_available() and hasattr(dataset, "remove_columns"):
            dataset = self._remove_unused_columns(dataset, description="training")
        else:
            collator = self._get_collator_with_removed_columns(collator, description="training")
        self._worker_seeds = torch.Generator("cpu")  # of its own: an iteration must not draw from the global one, which models use
        loader = DataLoader(
            with_index(dataset),
            generator=self._worker_seeds,
            batch_sampler=self.pruner.sampler.batches(self._train_batch_size, args.dataloader_drop_last),
            collate_fn=IndexCollator(collator),
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=getattr(args, "dataloader_multiprocessing_context", None),  # of newer versions
            in_order=getattr(args, "dataloader_in_order", True),
            worker_init_fn=partial(seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index),
        )
        return prepare(self.accelerator, loader, name=None)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: torch.Tensor | int | None = None
    ) -> Any:
        """The weighted loss in training; in evaluation the Trainer's own.

        sum_i weight_i * (sum of the losses of sample i's targets) / num_items_in_batch, where the Trainer counts the targets of
        all accumulated batches, or / those of the batch where it does not. Scores are each sample's mean.
        """
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch=num_items_in_batch)
        if KEY not in inputs:
            raise ValueError(
                f"the batch has no {KEY!r}: get_train_dataloader or training_step was overridden and lost it. Take the loader of "
                "InfoBatchTrainer.get_train_dataloader(), and hand its batches on whole"
            )
        index = inputs.pop(KEY)
        outputs, labels = self._forward(model, inputs)
        if self.per_sample_loss is not None:
            loss = self.pruner.update(index, check_losses(self.per_sample_loss(outputs, labels), index))
            if num_items_in_batch is not None and self.model_accepts_loss_kwargs:  # the Trainer takes it for scaled
                loss = loss / self.current_gradient_accumulation_steps
            return (loss, outputs) if return_outputs else loss

        bare, smoothing = self.accelerator.unwrap_model(model), self.args.label_smoothing_factor
        losses = default_losses(bare, outputs, labels, len(index), smoothing)
        loss = self.pruner.update(index, losses.sums, scores=losses.means, reduction="sum")
        if num_items_in_batch is None:
            loss = loss / losses.counts.sum().clamp(min=1)
        else:
            loss = loss / num_items_in_batch
            if self.args.average_tokens_across_devices:  # DDP takes the mean of what is a part of the sum
                loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    lr_scheduler: Any

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The Trainer's scheduler, driven by the progress of the run. One of the caller's, or a metric's, stays as it is."""
        made_here = self.lr_scheduler is None
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        counts_steps = isinstance(scheduler, LRScheduler) and not isinstance(scheduler, ReduceLROnPlateau)
        if made_here and counts_steps and self.pruner is not None and self.args.max_steps <= 0:
            self.lr_scheduler = EpochProgressLR(scheduler, self.pruner, num_training_steps)
        return self.lr_scheduler

    def set_initial_training_values(self, args: Any, dataloader: Any, *rest: Any) -> Any:
        """Counts the steps of a run without pruning: no run takes more, and the schedule is made for them.

        With ``max_steps`` the run ends there and nowhere else, after as many epochs as it takes.
        """
        whole = FullEpoch(dataloader.dataset, self._full_batches()) if args.max_steps <= 0 else object()
        return super().set_initial_training_values(args, whole, *rest)

    def _full_batches(self) -> int:
        """At least the batches of an epoch that keeps all."""
        ranks, samples = self.pruner.num_replicas, self.pruner.num_samples
        most = samples if ranks == 1 else -(-samples // ranks) + 8  # samples are dealt in rows of eight
        return int(-(-most // self._train_batch_size))

    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        num_train_epochs: int,
        resume_from_checkpoint: str | None,
        trial: Any,
    ) -> tuple[int, int]:
        """What the Trainer restores, and the pruner's state; nothing is skipped, as the pruner leaves out what was visited."""
        super()._init_training_state(max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial)
        if resume_from_checkpoint is None:
            return 0, 0
        load(self.pruner, os.path.join(resume_from_checkpoint, FOLDER))
        self.pruner.set_epoch(self.pruner.epoch)
        left = self.pruner.steps(self._train_batch_size, self.args.dataloader_drop_last)
        return self.pruner.epoch + (left == 0), 0

    def _run_epoch(self, *, epoch: int, train_dataloader: Any, **kwargs: Any) -> None:
        """An epoch with its own number of steps, where the Trainer would take that of the first."""
        self._has_trained = True
        train_dataloader.set_epoch(epoch)
        self._worker_seeds.manual_seed(self.pruner.seed ^ self.state.global_step)
        batches, accumulated = len(train_dataloader), self.args.gradient_accumulation_steps
        kwargs["steps_in_epoch"], kwargs["num_update_steps_per_epoch"] = batches, -(-batches // accumulated)
        if self.args.max_steps <= 0:
            later = math.ceil(self.args.num_train_epochs) - epoch - 1
            self.state.max_steps = (
                self.state.global_step + kwargs["num_update_steps_per_epoch"] + later * -(-self._full_batches() // accumulated)
            )
        stats = self.pruner.stats
        self._fractions.begin(epoch, -(-stats.scored // self._train_batch_size), batches)
        self.log({"infobatch_kept": stats.kept, "infobatch_saved_fraction": stats.saved_fraction})
        super()._run_epoch(epoch=epoch, train_dataloader=train_dataloader, **kwargs)

    def _finalize_training(self, trial: Any, num_train_samples: float, start_time: float) -> Any:
        visited = num_train_samples * (1.0 - self.pruner.stats.total_saved_fraction)
        return super()._finalize_training(trial, visited, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if not self.args.save_only_model:  # before the Trainer's own files, so that a whole checkpoint has it
            save(self.pruner, os.path.join(self._get_output_dir(trial=trial), f"checkpoint-{self.state.global_step}", FOLDER))
        super()._save_checkpoint(model, trial)

    def _forward(self, model: Any, inputs: Any) -> tuple[Any, Any]:
        """Outputs and labels. The labels stay out of the model where it can do without, as its own loss would be a waste."""
        names = [name for name in self.label_names if name in inputs]
        labels = {name: inputs[name] for name in names}
        optional = optional_inputs(self.accelerator.unwrap_model(model))
        for name in names:
            if optional.get(name, False):
                inputs.pop(name)
        outputs = model(**inputs)
        return outputs, labels[names[0]] if len(names) == 1 else labels
