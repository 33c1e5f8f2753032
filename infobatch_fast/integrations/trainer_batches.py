"""Parts of InfoBatchTrainer: the indices in its batches, the checks of its options, and its pruner."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import Trainer

from ..dataset import IndexedDataset
from ..pruner import InfoBatch
from .trainer_losses import ASK, check_signatures

KEY = "infobatch_index"


class IndexCollator:
    """Collates (index, item) pairs: the user's collator gets the items, and the indices join the batch under ``KEY``."""

    def __init__(self, collator: Callable[[list[Any]], Any]) -> None:
        self.collator = collator

    def __call__(self, pairs: Sequence[tuple[int, Any]]) -> Any:
        """The collated batch with its indices, int64 [B]."""
        batch = self.collator([item for _, item in pairs])
        if not isinstance(batch, Mapping) or KEY in batch:
            got = f"one that has {KEY!r} already" if isinstance(batch, Mapping) else type(batch).__name__
            raise TypeError(f"data_collator must return a dict of tensors without {KEY!r}, got {got}")
        batch[KEY] = torch.tensor([index for index, _ in pairs], device="cpu")  # type: ignore[index]
        return batch


def check_trainer(trainer: Trainer) -> None:
    """Checks that the Trainer's options, and the given functions, suit the pruner's losses and samples.

    Raises:
        TypeError: A function for the losses takes other arguments.
        ValueError: An option does not suit them; the message says what to change.
    """
    check_signatures(trainer.per_sample_loss, trainer.compute_sample_losses)
    args, config = trainer.args, getattr(trainer.accelerator, "parallelism_config", None)
    if trainer.compute_loss_func is not None:
        raise ValueError(f"compute_loss_func returns one number for a batch, but InfoBatch needs one for each sample: {ASK}")
    if args.n_gpu > 1:
        raise ValueError(f"this process drives {args.n_gpu} GPUs with DataParallel: start one process a GPU with torchrun")
    if any((getattr(config, f"{kind}_size", 1) or 1) > 1 for kind in ("tp", "cp", "sp")):
        raise ValueError(
            "tensor, context and sequence parallelism are not supported by InfoBatchTrainer: leave parallelism_config out"
        )
    if args.train_sampling_strategy not in ("random", "sequential"):
        raise ValueError(
            f"train_sampling_strategy={args.train_sampling_strategy!r} replaces InfoBatch's sampler by another one: leave it at "
            "'random', or take 'sequential'"
        )
    if args.max_steps <= 0 and args.num_train_epochs != int(args.num_train_epochs):
        raise ValueError(
            f"num_train_epochs={args.num_train_epochs} must be whole, as each epoch has its own number of steps: use "
            f"{math.ceil(args.num_train_epochs)}, or set max_steps"
        )
    if isinstance(trainer.train_dataset, IndexedDataset):
        raise ValueError("train_dataset is wrapped by with_index: pass the data set itself, as the trainer adds the indices")


def make_pruner(trainer: Trainer, infobatch: dict[str, Any] | InfoBatch | None) -> InfoBatch:
    """The pruner that the arguments of InfoBatchTrainer ask for.

    Raises:
        TypeError: ``infobatch`` is neither a dict nor an ``InfoBatch`` nor None.
        ValueError: It is an ``InfoBatch`` that does not fit.
    """
    dataset = trainer.train_dataset
    if isinstance(infobatch, InfoBatch):
        if infobatch.num_samples != len(dataset):
            raise ValueError(
                f"infobatch is for {infobatch.num_samples} samples and train_dataset has {len(dataset)}: construct "
                "InfoBatch(train_dataset, ...) with the same data set"
            )
        return _check_lengths(infobatch)
    if not isinstance(infobatch, dict | None):
        raise TypeError(f"infobatch must be a dict of InfoBatch's arguments, an InfoBatch or None, got {infobatch!r}")
    return _check_lengths(InfoBatch(dataset, **(default_arguments(trainer) | (infobatch or {}))))


def default_arguments(trainer: Trainer) -> dict[str, Any]:
    """The arguments of ``InfoBatch`` that follow from the Trainer's."""
    args = trainer.args
    epochs = math.ceil(args.num_train_epochs)
    if args.max_steps > 0:  # as many epochs as these steps make without pruning
        batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        epochs = max(1, math.ceil(args.max_steps * batch / max(1, len(trainer.train_dataset))))
    return {
        "num_epochs": epochs,
        "seed": args.seed if args.data_seed is None else args.data_seed,
        "device": args.device,
        "shuffle": args.train_sampling_strategy == "random",
    }


def _check_lengths(pruner: InfoBatch) -> InfoBatch:
    if not pruner.lengths.is_dynamic:
        raise ValueError(
            f"infobatch has steps_per_epoch={pruner.lengths.steps_per_epoch}, but the trainer makes each epoch as long as its "
            "plan: leave steps_per_epoch out"
        )
    return pruner
