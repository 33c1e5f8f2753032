"""Hugging Face Trainer with InfoBatch: the sampler, the indices, the losses of samples, learning rate and checkpoints."""

from __future__ import annotations

import inspect
import math
import os
from functools import partial
from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import DataLoader

from ..dataset import with_index
from ..engine.checks import check_choice
from ..pruner import InfoBatch
from ..schedules import SHARES

LOWEST_VERSION, TESTED = "5.3.0", "5.3.0 and 5.24.0"  # the lowest has _run_epoch and _init_training_state
LOWEST_ACCELERATE = "1.3.0"  # the first that this Trainer runs on, whatever transformers itself asks for

try:
    from accelerate import Accelerator
    from transformers import Trainer
    from transformers.trainer_utils import seed_worker
    from transformers.utils import is_datasets_available

    if not hasattr(Trainer, "_run_epoch"):
        raise ImportError("this version is older")
    if "keep_torch_compile" not in inspect.signature(Accelerator.unwrap_model).parameters:
        raise ImportError("this version of accelerate is older")
except ImportError as error:
    raise ImportError(
        f"infobatch_fast.integrations.transformers needs transformers>={LOWEST_VERSION} (tested: {TESTED}) and "
        f"accelerate>={LOWEST_ACCELERATE}; import gave: {error}. pip install -U transformers accelerate"
    ) from error

from .accelerate import load, prepare, save  # noqa: E402
from .trainer_batches import IndexCollator, check_trainer, default_arguments, make_pruner  # noqa: E402
from .trainer_epochs import EpochWatch, FullEpoch, warn_of_epochs  # noqa: E402
from .trainer_schedule import RunSchedule  # noqa: E402
from .trainer_step import PerSampleLoss, SampleLossTrainer  # noqa: E402

FOLDER = "infobatch"  # in each of the trainer's checkpoints


class InfoBatchTrainer(SampleLossTrainer):
    """A ``transformers.Trainer`` that skips well-learned samples. Everything else, and all other arguments, are the Trainer's.

    Epochs are as long as their plans. The learning rate follows the fraction of the run that is done. Each checkpoint holds the
    pruner's state beside the trainer's, so that ``resume_from_checkpoint`` goes on in the middle of an epoch.

    Args:
        *args: As for ``Trainer``.
        infobatch: Keyword arguments for ``InfoBatch``; num_epochs, seed and device default to those of the training arguments. Or
            an ``InfoBatch`` over the training set. None takes all defaults.
        per_sample_loss: ``f(outputs, labels)`` that returns one loss for each sample, [B]. Pass it if the model's own loss is not
            that of a classifier or a language model. ``labels`` is what the batch calls labels, or a dict if it has several kinds.
            If the loss needs more than these, override ``compute_sample_losses``.
        schedule_by: What the learning rate follows, the visits or the epochs that are done, as ``by`` of ``EpochProgressLR``.
        **kwargs: As for ``Trainer``.

    Attributes:
        pruner: The ``InfoBatch``; None without a training set. A second run makes a new one, unless the caller passed one.

    Raises:
        ValueError: An option of the Trainer reduces losses, or orders or shards samples itself; the message says which.
        RuntimeError: A training step recorded no loss.

    Example:
        >>> trainer = InfoBatchTrainer(model, args, train_dataset=dataset)   # doctest: +SKIP
        >>> trainer.train()                                                  # doctest: +SKIP
    """

    def __init__(
        self,
        *args: Any,
        infobatch: dict[str, Any] | InfoBatch | None = None,
        per_sample_loss: PerSampleLoss | None = None,
        schedule_by: Literal["epochs", "visits"] = "visits",
        **kwargs: Any,
    ) -> None:
        check_choice("schedule_by", schedule_by, tuple(SHARES))
        super().__init__(*args, per_sample_loss=per_sample_loss, **kwargs)
        check_trainer(self)
        self._infobatch, self._schedule_by = infobatch, schedule_by
        if self.train_dataset is not None:
            self.pruner, self._pruned_by = make_pruner(self, infobatch), default_arguments(self)
        self._has_trained = False
        self._watch = EpochWatch()
        self.add_callback(self._watch)

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Trains a run: the first or a later one, one with other arguments as in a search, or a retry with smaller batches."""
        if self.train_dataset is not None:
            defaults, is_own = default_arguments(self), isinstance(self._infobatch, InfoBatch)
            if self.pruner is None or (not is_own and (self._has_trained or defaults != self._pruned_by)):
                self.pruner, self._pruned_by = make_pruner(self, self._infobatch), defaults
            self._has_trained = True
            warn_of_epochs(self, self.pruner)
        return super()._inner_training_loop(*args, **kwargs)

    def get_train_dataloader(self) -> Any:
        """The training loader, in the pruner's order. Each batch holds its indices under ``infobatch_index``."""
        dataset, collator, args = self.train_dataset, self.data_collator, self.args
        if dataset is None:
            return super().get_train_dataloader()  # which says what is missing
        if len(dataset) != self.pruner.num_samples:
            raise ValueError(
                f"train_dataset has {len(dataset)} samples and the pruner {self.pruner.num_samples}: construct a new trainer with "
                "this training set"
            )
        if is_datasets_available() and hasattr(dataset, "remove_columns"):
            dataset = self._remove_unused_columns(dataset, description="training")
        else:
            collator = self._get_collator_with_removed_columns(collator, description="training")
        self._worker_seeds = torch.Generator("cpu")  # an iteration must not draw from the global one, which models use
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

    lr_scheduler: Any

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The Trainer's scheduler, driven by the run's progress. The caller's own, or one that needs a metric, is left alone."""
        made_here = self.lr_scheduler is None
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        counts_steps = isinstance(scheduler, LRScheduler) and not isinstance(scheduler, ReduceLROnPlateau)
        if made_here and counts_steps and self.pruner is not None and self.args.max_steps <= 0:
            self.lr_scheduler = RunSchedule(scheduler, self.pruner, num_training_steps, self._schedule_by)
        return self.lr_scheduler

    def set_initial_training_values(self, args: Any, dataloader: Any, *rest: Any) -> Any:
        """Counts the steps of a run without pruning: no run takes more, and the schedule is made for them.

        With ``max_steps`` the run ends there and nowhere else, after as many epochs as it takes.
        """
        whole = FullEpoch(dataloader.dataset, self._full_batches()) if args.max_steps <= 0 else object()
        return super().set_initial_training_values(args, whole, *rest)

    def _full_batches(self) -> int:
        """The number of batches of an epoch that keeps all samples, or a few more."""
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
        """Restores what the Trainer does, and the pruner's state. It skips nothing, as the pruner leaves out what was visited."""
        super()._init_training_state(max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial)
        if resume_from_checkpoint is None:
            return 0, 0
        load(self.pruner, os.path.join(resume_from_checkpoint, FOLDER))
        epoch = self.pruner.epoch
        self.pruner.set_epoch(epoch)
        if epoch < num_train_epochs and self.pruner.steps(self._train_batch_size, self.args.dataloader_drop_last) == 0:
            epoch += 1
        return epoch, 0

    def _run_epoch(self, *, epoch: int, train_dataloader: Any, **kwargs: Any) -> None:
        """Trains an epoch with its own number of steps; the Trainer would take that of the first."""
        train_dataloader.set_epoch(epoch)
        if self.pruner.epoch != epoch:
            raise RuntimeError(
                f"the run is at epoch {epoch}, but the pruner was restored before and is at epoch {self.pruner.epoch}: for a run "
                "from the beginning make a new InfoBatch; to resume, call train(resume_from_checkpoint=...)"
            )
        self._worker_seeds.manual_seed(self.pruner.seed ^ self.state.global_step)
        batches, accumulated = len(train_dataloader), self.args.gradient_accumulation_steps
        kwargs["steps_in_epoch"], kwargs["num_update_steps_per_epoch"] = batches, -(-batches // accumulated)
        if self.args.max_steps <= 0:
            later = math.ceil(self.args.num_train_epochs) - epoch - 1
            self.state.max_steps = (
                self.state.global_step + kwargs["num_update_steps_per_epoch"] + later * -(-self._full_batches() // accumulated)
            )
        stats = self.pruner.stats
        self._watch.begin(self.pruner, epoch, self._train_batch_size, batches)
        names = ("kept", "saved_fraction", "added_noise")
        self.log({f"infobatch_{name}": getattr(stats, name) for name in names})
        super()._run_epoch(epoch=epoch, train_dataloader=train_dataloader, **kwargs)

    def _finalize_training(self, trial: Any, num_train_samples: float, start_time: float) -> Any:
        visited = num_train_samples * (1.0 - self.pruner.stats.total_saved_fraction)
        return super()._finalize_training(trial, visited, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if not self.args.save_only_model:  # before the Trainer's own files, so that a whole checkpoint has it
            save(self.pruner, os.path.join(self._get_output_dir(trial=trial), f"checkpoint-{self.state.global_step}", FOLDER))
        super()._save_checkpoint(model, trial)
