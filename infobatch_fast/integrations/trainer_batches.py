"""What InfoBatchTrainer does with a batch: its indices, its labels, and one loss for each of its samples."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import Trainer
from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss, ForMaskedLMLoss, ForTokenClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..dataset import IndexedDataset
from ..pruner import InfoBatch
from .sample_losses import SampleLosses, class_losses, token_losses

KEY = "infobatch_index"
ASK = "pass InfoBatchTrainer(per_sample_loss=f), where f(outputs, labels) returns one loss for each sample, of shape [B]"


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


class FullEpoch:
    """Stands for the loader where the Trainer counts the steps of a run."""

    def __init__(self, dataset: Any, batches: int) -> None:
        self.dataset, self._batches = dataset, batches

    def __len__(self) -> int:
        return self._batches


def check_trainer(trainer: Trainer) -> None:
    """Whether the Trainer's options leave losses and samples as they must be.

    Raises:
        ValueError: One does not; the message says what to change.
    """
    args, config = trainer.args, getattr(trainer.accelerator, "parallelism_config", None)
    if trainer.compute_loss_func is not None:
        raise ValueError(f"compute_loss_func returns one number for a batch, and InfoBatch needs one for each sample: {ASK}")
    if args.n_gpu > 1:
        raise ValueError(f"this process drives {args.n_gpu} GPUs with DataParallel: start one process a GPU with torchrun")
    if any((getattr(config, f"{kind}_size", 1) or 1) > 1 for kind in ("tp", "cp", "sp")):
        raise ValueError(
            "tensor, context and sequence parallelism are not supported by InfoBatchTrainer: leave parallelism_config out"
        )
    if args.train_sampling_strategy not in ("random", "sequential"):
        raise ValueError(
            f"train_sampling_strategy={args.train_sampling_strategy!r} puts another sampler in the place of InfoBatch's: leave it "
            "at 'random', or 'sequential'"
        )
    if args.max_steps <= 0 and args.num_train_epochs != int(args.num_train_epochs):
        raise ValueError(
            f"num_train_epochs={args.num_train_epochs} must be whole, as each epoch has its own number of steps: use "
            f"{math.ceil(args.num_train_epochs)}, or set max_steps"
        )
    if isinstance(trainer.train_dataset, IndexedDataset):
        raise ValueError("train_dataset is wrapped by with_index: pass the data set itself, the trainer adds the indices")


def make_pruner(trainer: Trainer, infobatch: dict[str, Any] | InfoBatch | None) -> InfoBatch:
    """The pruner that the arguments of InfoBatchTrainer ask for.

    Raises:
        TypeError: ``infobatch`` is none of the three.
        ValueError: It is an ``InfoBatch`` that does not fit.
    """
    args, dataset = trainer.args, trainer.train_dataset
    if isinstance(infobatch, InfoBatch):
        if infobatch.num_samples != len(dataset):
            raise ValueError(
                f"infobatch is for {infobatch.num_samples} samples and train_dataset has {len(dataset)}: construct "
                "InfoBatch(train_dataset, ...) with the same data set"
            )
        return _check_lengths(infobatch)
    if not isinstance(infobatch, dict | None):
        raise TypeError(f"infobatch must be a dict of InfoBatch's arguments, an InfoBatch or None, got {infobatch!r}")
    epochs = math.ceil(args.num_train_epochs)
    if args.max_steps > 0:  # as many as they are worth without pruning
        batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        epochs = max(1, math.ceil(args.max_steps * batch / max(1, len(dataset))))
    defaults = {
        "num_epochs": epochs,
        "seed": args.seed if args.data_seed is None else args.data_seed,
        "device": args.device,
        "shuffle": args.train_sampling_strategy == "random",
    }
    return _check_lengths(InfoBatch(dataset, **(defaults | (infobatch or {}))))


def _check_lengths(pruner: InfoBatch) -> InfoBatch:
    if not pruner.lengths.is_dynamic:
        raise ValueError("infobatch has steps_per_epoch, and the trainer makes each epoch as long as its plan: leave it out")
    return pruner


def optional_inputs(model: Any) -> dict[str, bool]:
    """By name, whether a model's forward can do without an argument."""
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return {}  # the decoder's inputs are made of the labels
    parameters = inspect.signature(model.forward).parameters.values()
    return {each.name: each.default is not inspect.Parameter.empty for each in parameters}


def check_losses(losses: Any, index: torch.Tensor) -> torch.Tensor:
    """What the user's function returned, if it is one loss a sample.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(losses, torch.Tensor) or losses.shape != index.shape:
        got = f"shape {list(losses.shape)}" if isinstance(losses, torch.Tensor) else type(losses).__name__
        raise ValueError(
            f"per_sample_loss must return a tensor with one loss for each of the {len(index)} samples, got {got}: compute it with "
            "reduction='none', and take the mean over each sample's own elements"
        )
    return losses


def default_losses(model: Any, outputs: Any, labels: Any, samples: int, label_smoothing: float) -> SampleLosses:
    """Losses of the samples of a batch, told from the model and the shapes of its logits and labels.

    Args:
        model: The bare model, not wrapped for ranks.
        outputs: What it returned, with logits [B, C] or [B, T, V].
        labels: [B], [B, C] or [B, T].
        samples: B.
        label_smoothing: As in the training arguments.

    Raises:
        ValueError: They are not those of a classifier or a language model.
    """
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else outputs[0] if isinstance(outputs, tuple) else outputs
    if not isinstance(logits, torch.Tensor) or not isinstance(labels, torch.Tensor):
        raise ValueError(f"the batch must have 'labels' and the model must return logits for the loss of each sample: {ASK}")
    if isinstance(outputs, Mapping) and outputs.get("aux_loss") is not None:
        raise ValueError("the model adds a router loss, which belongs to no sample: set output_router_logits=False")
    if len(logits) != samples or len(labels) != samples:
        raise ValueError(
            f"logits have {len(logits)} rows and labels {len(labels)}, for {samples} samples: use a data_collator that pads and "
            f"does not pack several samples into one row, or {ASK}"
        )
    if logits.dim() == 3 and labels.dim() == 2:
        return token_losses(logits, labels, _shifts(model), label_smoothing)
    if logits.dim() == 2 and labels.numel() in (samples, logits.numel()):
        problem_type = getattr(getattr(model, "config", None), "problem_type", None)
        return class_losses(logits, labels, problem_type, label_smoothing)
    raise ValueError(f"logits {list(logits.shape)} and labels {list(labels.shape)} are of no known kind of loss: {ASK}")


def _shifts(model: Any) -> bool:
    """Whether token t of a model predicts label t + 1."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # PEFT
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return False
    loss = LOSS_MAPPING.get(getattr(model, "loss_type", None))
    if loss is ForCausalLMLoss or type(model).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        return True
    if loss in (ForMaskedLMLoss, ForTokenClassification):
        return False
    raise ValueError(f"whether {type(model).__name__} predicts the next token or its own is not known: {ASK}")
