"""A training step of InfoBatchTrainer: the losses of a batch's samples, their record, and the weighted loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import Trainer

from .sample_losses import SampleLosses
from .trainer_batches import KEY
from .trainer_epochs import NOTHING_SCORED
from .trainer_losses import check_losses, check_own_loss, default_losses, needless_labels

PerSampleLoss = Callable[[Any, Any], torch.Tensor]


class SampleLossTrainer(Trainer):
    """A ``Trainer`` whose batches have indices, and whose loss is the pruner's.

    Args:
        *args: As for ``Trainer``.
        per_sample_loss: As for ``InfoBatchTrainer``.
        **kwargs: As for ``Trainer``.
    """

    def __init__(self, *args: Any, per_sample_loss: PerSampleLoss | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.per_sample_loss = per_sample_loss
        self.pruner: Any = None
        self._compared = False  # whether the model's own loss was compared with that of its samples

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's; the batch must have its indices."""
        if KEY not in inputs:
            raise ValueError(
                f"the batch has no {KEY!r}: get_train_dataloader or training_step was overridden and lost it. Take the loader of "
                "InfoBatchTrainer.get_train_dataloader(), and pass its batches on whole"
            )
        try:
            return super().training_step(model, inputs, *args, **kwargs)
        except TypeError as error:
            if KEY not in str(error):
                raise
            raise RuntimeError(f"the model was called with {KEY!r} and refused it ({error}), {NOTHING_SCORED}") from error

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: torch.Tensor | int | None = None
    ) -> Any:
        """The weighted loss of a batch that has indices. Without indices, or without gradients, it is the loss of an evaluation.

        It is sum_i weight_i * (sum of the losses of sample i's targets) / targets. If the Trainer counts the targets of all
        accumulated batches, ``targets`` is num_items_in_batch; if not, it is the number of targets in the batch. The score of a
        sample is the mean of its losses. An evaluation takes the Trainer's own loss, or the mean of what the user's function or
        method returns.
        """
        index = inputs.pop(KEY, None)
        trains = index is not None and torch.is_grad_enabled()
        is_default = self.per_sample_loss is None and type(self).compute_sample_losses is SampleLossTrainer.compute_sample_losses
        if not trains and is_default:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch=num_items_in_batch)
        outputs, labels = self._forward(model, inputs, trains)
        losses = self.compute_sample_losses(outputs, labels, inputs)
        if not trains:
            loss = losses.means.mean() if isinstance(losses, SampleLosses) else losses.mean()
        else:
            loss = self._record(index, check_losses(losses, index), num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def compute_sample_losses(self, outputs: Any, labels: Any, inputs: Any) -> torch.Tensor | SampleLosses:
        """One loss for each sample, [B]; override it, and not ``compute_loss``, for a loss of your own.

        The training loss is then the weighted mean over the samples. The default is ``per_sample_loss``, or else the losses of
        a classifier or a language model as ``SampleLosses(sums, counts)``: each sample's sum and its number of targets. Their mean
        is taken over all targets of the batch. An override may return ``SampleLosses`` too.

        Args:
            outputs: What the model returned.
            labels: What the batch calls labels, or a dict if it has several kinds.
            inputs: The batch as the model got it.
        """
        if self.per_sample_loss is not None:
            return self.per_sample_loss(outputs, labels)
        smoothing = self.args.label_smoothing_factor
        model = self.accelerator.unwrap_model(self.model)
        losses = default_losses(model, outputs, labels, smoothing)
        if not (self._compared or smoothing):
            check_own_loss(model, outputs, losses)
            self._compared = True
        return losses

    def _record(self, index: torch.Tensor, losses: torch.Tensor | SampleLosses, items: torch.Tensor | int | None) -> torch.Tensor:
        """The weighted loss of a batch, scaled as the Trainer expects it."""
        if not isinstance(losses, SampleLosses):
            loss: torch.Tensor = self.pruner.update(index, losses)
            if items is not None and self.model_accepts_loss_kwargs:  # the Trainer takes it for scaled
                loss = loss / self.current_gradient_accumulation_steps
            return loss
        loss = self.pruner.update(index, losses.sums, scores=losses.means, reduction="sum")
        if items is None:
            return loss / losses.counts.sum().clamp(min=1)
        loss = loss / items
        if self.args.average_tokens_across_devices:  # DDP takes the mean of what is a part of the sum
            loss = loss * self.accelerator.num_processes
        return loss

    def _forward(self, model: Any, inputs: Any, trains: bool) -> tuple[Any, Any]:
        """Outputs and labels; an evaluation leaves all labels in, as the Trainer does."""
        names = [name for name in self.label_names if name in inputs]
        labels = {name: inputs[name] for name in names}
        for name in needless_labels(self.accelerator.unwrap_model(model), names) if trains else []:
            inputs.pop(name)
        outputs = model(**inputs)
        return outputs, labels[names[0]] if len(names) == 1 else labels
