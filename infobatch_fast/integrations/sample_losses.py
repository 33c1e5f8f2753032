"""One loss per sample from a model's logits and labels, as the losses of transformers give it before they take the mean."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from ..losses import token_losses as losses_of_tokens

IGNORED = -100  # the label of what is no target, in torch and transformers


class SampleLosses(NamedTuple):
    """What a batch's mean is made of: sum(sums) / sum(counts)."""

    sums: torch.Tensor  # [B], over each sample's own targets
    counts: torch.Tensor  # int64 [B], its targets

    @property
    def means(self) -> torch.Tensor:
        """[B]; 0 for a sample without targets, which has no gradient either."""
        return self.sums / self.counts.clamp(min=1)


def token_losses(logits: torch.Tensor, labels: torch.Tensor, shift: bool, label_smoothing: float = 0.0) -> SampleLosses:
    """Cross entropy of tokens, summed over each sample's own.

    Args:
        logits: Floating [B, T, V].
        labels: int64 [B, T]; -100 is no target.
        shift: Token t predicts label t + 1, as in causal language models.
        label_smoothing: In [0, 1].
    """
    tokens, mask = losses_of_tokens(logits.float(), labels, IGNORED, shift, label_smoothing)
    return SampleLosses(tokens.sum(1), mask.sum(1))


def class_losses(
    logits: torch.Tensor, labels: torch.Tensor, problem_type: str | None = None, label_smoothing: float = 0.0
) -> SampleLosses:
    """Losses of sequence or image classifiers: cross entropy, or squared errors, or binary cross entropy of several labels.

    Args:
        logits: Floating [B, C].
        labels: Integers [B] for one class each; floating [B], [B, 1] or [B, C] for values or several labels.
        problem_type: As in the model's configuration. None is resolved as transformers does: one output is a value, integers are
            classes, anything else is several labels.
        label_smoothing: In [0, 1], of cross entropy.
    """
    outputs = logits.shape[1]
    if problem_type is None and outputs == 1:
        problem_type = "regression"
    if problem_type == "single_label_classification" or (problem_type is None and not labels.is_floating_point()):
        losses = F.cross_entropy(logits, labels.view(-1), ignore_index=IGNORED, reduction="none", label_smoothing=label_smoothing)
        return SampleLosses(losses, labels.view(-1).ne(IGNORED).long())
    labels = labels.view(-1, 1) if outputs == 1 else labels
    if problem_type == "regression":
        losses = F.mse_loss(logits, labels.to(logits.dtype), reduction="none")
    else:
        losses = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
    return SampleLosses(losses.sum(1), torch.full((len(losses),), outputs, dtype=torch.int64, device=losses.device))
