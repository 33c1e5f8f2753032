"""One loss for each sample of InfoBatchTrainer's batches: from the model's logits, or as the user's function says."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss, ForMaskedLMLoss, ForTokenClassification
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from .sample_losses import SampleLosses, class_losses, token_losses

CALL = "compute_sample_losses(outputs, labels, inputs)"
ASK = (
    "pass InfoBatchTrainer(per_sample_loss=f), where f(outputs, labels) returns one loss for each sample, of shape [B], or "
    f"override {CALL}"
)


def bare_model(model: Any) -> Any:
    """The model itself, without the wrappers of torch.compile and PEFT."""
    model = getattr(model, "_orig_mod", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def needless_labels(model: Any, names: list[str]) -> list[str]:
    """Labels that a model of transformers does not need in its forward, so that it does not compute its own loss in vain.

    Any other model gets its labels, since it may compute its loss without checking whether they are there.

    Args:
        model: Not wrapped for ranks.
        names: Those in the batch.
    """
    bare = bare_model(model)
    is_known = type(bare).forward.__module__.startswith("transformers.models.") and not hasattr(bare, "_loss_function")
    if not is_known or getattr(getattr(bare, "config", None), "is_encoder_decoder", False):  # its decoder's inputs are the labels
        return []
    parameters = inspect.signature(getattr(model, "_orig_mod", model).forward).parameters
    return [name for name in names if name in parameters and parameters[name].default is not inspect.Parameter.empty]


def check_signatures(per_sample_loss: Any, compute_sample_losses: Any) -> None:
    """Checks that the user's function and method take the arguments that they will get.

    Raises:
        TypeError: One of them does not, or ``per_sample_loss`` is not a function.
    """
    given = [(compute_sample_losses, CALL, 3)]
    if per_sample_loss is not None:
        given.append((per_sample_loss, "per_sample_loss(outputs, labels)", 2))
    for function, call, arguments in given:
        try:
            inspect.signature(function).bind(*range(arguments))
        except TypeError as error:
            raise TypeError(
                f"the trainer calls {call}, but {function!r} does not take these arguments: {error}; define it so that it does"
            ) from None
        except ValueError:  # some functions of C say nothing of their arguments
            continue


def check_losses(losses: Any, index: torch.Tensor) -> torch.Tensor | SampleLosses:
    """What ``compute_sample_losses`` returned, if it is one loss for each sample.

    Raises:
        ValueError: It is not.
    """
    values = losses.sums if isinstance(losses, SampleLosses) else losses
    if not isinstance(values, torch.Tensor) or values.dim() != 1:
        got = f"shape {list(values.shape)}" if isinstance(values, torch.Tensor) else type(values).__name__
        raise ValueError(
            f"per_sample_loss or compute_sample_losses must return a tensor with one loss for each of the {len(index)} samples, "
            f"got {got}: compute it with reduction='none', and take the mean over each sample's own elements"
        )
    if len(values) != len(index):
        raise ValueError(
            f"got {len(values)} losses for a batch of {len(index)} samples: data_collator must return one row for each sample that "
            f"it got, in their order. Leave samples out of train_dataset, not in data_collator; if a sample has several rows, {ASK}"
        )
    return losses


def default_losses(model: Any, outputs: Any, labels: Any, label_smoothing: float) -> SampleLosses:
    """Losses of the samples of a batch. The model and the shapes of its logits and labels tell which kind of loss it is.

    Args:
        model: Not wrapped for ranks.
        outputs: What it returned, with logits [B, C] or [B, T, V].
        labels: [B], [B, C] or [B, T].
        label_smoothing: As in the training arguments.

    Raises:
        ValueError: They are not those of a classifier or a language model.
    """
    logits = _logits_of(outputs)
    if not isinstance(logits, torch.Tensor) or not isinstance(labels, torch.Tensor) or labels.dim() == 0:
        raise ValueError(f"the batch has no 'labels', or the model returns no logits, to compute each sample's loss from: {ASK}")
    if isinstance(outputs, Mapping) and outputs.get("aux_loss") is not None:
        raise ValueError("the model adds a router loss, which belongs to no sample: set output_router_logits=False")
    if len(logits) != len(labels):
        raise ValueError(f"logits have {len(logits)} rows and labels {len(labels)}: {ASK}")
    if logits.dim() == 3 and labels.dim() == 2:
        return token_losses(logits, labels, _shifts(bare_model(model)), label_smoothing)
    if logits.dim() == 2 and labels.numel() in (len(labels), logits.numel()):
        problem_type = getattr(getattr(model, "config", None), "problem_type", None)
        return class_losses(logits, labels, problem_type, label_smoothing)
    raise ValueError(f"logits {list(logits.shape)} and labels {list(labels.shape)} fit no known kind of loss: {ASK}")


def check_own_loss(model: Any, outputs: Any, losses: SampleLosses) -> None:
    """Checks that a model's own loss, if it computed one, equals the mean of ``losses``. Waits for the device.

    Raises:
        ValueError: The model has another loss.
    """
    if isinstance(outputs, Mapping):
        own = outputs.get("loss")
    else:
        own = outputs[0] if isinstance(outputs, tuple) and len(outputs) > 1 else None
    if not isinstance(own, torch.Tensor) or own.numel() != 1:
        return
    theirs, ours = own.item(), (losses.sums.sum() / losses.counts.sum().clamp(min=1)).item()
    if abs(theirs - ours) > 0.05 * max(abs(theirs), abs(ours)) + 1e-3:  # the model's may be of half precision
        raise ValueError(
            f"{type(bare_model(model)).__name__} returned the loss {theirs:.4g}, but the mean loss of its samples, computed from "
            f"logits and labels, is {ours:.4g}: the model has another loss, so {ASK}"
        )


def _logits_of(outputs: Any) -> Any:
    if isinstance(outputs, Mapping):
        return outputs.get("logits")
    if isinstance(outputs, tuple):  # with labels its loss comes first
        has_loss = len(outputs) > 1 and isinstance(outputs[0], torch.Tensor) and outputs[0].dim() == 0
        return outputs[1 if has_loss else 0]
    return outputs


def _shifts(model: Any) -> bool:
    """Whether token t of a model predicts label t + 1."""
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return False
    loss = LOSS_MAPPING.get(getattr(model, "loss_type", None))
    if loss is ForCausalLMLoss or type(model).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        return True
    if loss in (ForMaskedLMLoss, ForTokenClassification):
        return False
    raise ValueError(f"it is not known whether {type(model).__name__} predicts the next token or the same token: {ASK}")
