"""How far a model is off on each sample: the length of its error, and of its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from ..engine.checks import check_int
from ..engine.odd import refuse_odd


@torch.no_grad()
def error_norms(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """EL2N: the L2 norm of each sample's error, ||softmax(logits) - target||, between 0 and sqrt(2) for class indices.

    The paper takes it early in training, as the mean over several models. No host synchronisation on CUDA.

    Args:
        logits: Floating [B, C]. Half precision is computed in float32.
        labels: Class indices, int64 [B], or soft labels, floating [B, C]; on the device of ``logits``.

    Returns:
        float32 [B] on the device of ``logits``, without a gradient. It goes into ``update(index, losses, scores=...)`` and
        ``record(index, scores)``. NaN where a logit is NaN or +infinity, or where all logits are -infinity.

    Raises:
        TypeError: A wrong dtype or type.
        ValueError: A wrong shape or device.
        IndexError: On the CPU: a label is not in [0, C). On CUDA it is an assertion of the device, as in torch.

    Example:
        >>> error_norms(torch.tensor([[0.0, 0.0], [30.0, 0.0]]), torch.tensor([0, 0]))
        tensor([7.0711e-01, 1.3234e-13])
        >>> error_norms(torch.zeros(1, 2), torch.tensor([[0.5, 0.5]]))
        tensor([0.])

    Source: Paul et al., "Deep Learning on a Data Diet", NeurIPS 2021, arXiv 2107.07075, section 2.
    """
    _check_logits(logits, labels)
    chances = logits.softmax(1, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32)
    if labels.dtype.is_floating_point:
        errors = chances - labels
    else:
        # At the label the error is the sum of the other chances: 1 - chance would round that of well-learned samples to 0.
        own = labels[:, None]
        others = chances.scatter(1, own, 0.0)
        errors = others.scatter(1, own, others.sum(1, keepdim=True))
    norms: torch.Tensor = torch.linalg.vector_norm(errors, dim=1)
    return norms.float()


def gradient_norms(
    model: nn.Module,
    loss: Callable[[Any, torch.Tensor], torch.Tensor],
    inputs: torch.Tensor | tuple[torch.Tensor, ...],
    labels: torch.Tensor,
    *,
    chunk_size: int = 32,
) -> torch.Tensor:
    """GraNd: the L2 norm of each sample's gradient over all trainable parameters.

    It costs a forward and a backward pass, and the memory of ``chunk_size`` gradients. Parameters, their ``.grad``, buffers and
    the mode of the model stay as they are. Parameters with ``requires_grad=False`` do not count. Dropout in training mode draws
    another mask for each sample, from torch's generator; after ``model.eval()`` the same call gives the same norms.

    Args:
        model: Any module that torch.func can run. It must not normalise by the statistics of the batch, write values that depend on
            the inputs into a buffer, or branch in Python on values.
        loss: A function that returns the loss of a batch of one sample: (outputs [1, ...], label [1, ...]) -> one number, such as
            ``torch.nn.functional.cross_entropy``.
        inputs: [B, ...], or a tuple of such tensors: the positional arguments of ``model``.
        labels: [B, ...].
        chunk_size: How many gradients are held at once, at least 1. It changes no norm by more than rounding.

    Returns:
        float32 [B] on the model's device, without a gradient.

    Raises:
        TypeError: A wrong type, or a parameter that is not a plain tensor.
        ValueError: Lengths do not fit, no parameter is trainable, the loss is not one number, or the model is inside
            ``DistributedDataParallel``. Or batch normalisation takes its statistics from the batch, so that a sample has no
            gradient of its own: call ``model.eval()``.
        RuntimeError: torch.func cannot run the model, and raises this error.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> gradient_norms(model, lambda out, y: (out - y).sum(), torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.zeros(2, 1))
        tensor([5., 1.])

    Source: Paul et al., "Deep Learning on a Data Diet", NeurIPS 2021, arXiv 2107.07075, section 2.
    """
    if not callable(loss):
        raise TypeError(f"loss must be a function of outputs and labels, such as F.cross_entropy, got {loss!r}")
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    chunk_size = check_int("chunk_size", chunk_size, 1)
    _check_model(model)
    _check_lengths(parts, labels)
    trainable = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    if not trainable:
        raise ValueError("model has no parameter with requires_grad=True, so there is no gradient: unfreeze what is trained")
    frozen = {name: value.detach() for name, value in model.named_parameters() if not value.requires_grad}

    def loss_of(
        trained: dict[str, torch.Tensor], buffers: dict[str, torch.Tensor], sample: tuple[torch.Tensor, ...], label: torch.Tensor
    ) -> torch.Tensor:
        value = loss(functional_call(model, (trained, frozen, buffers), tuple(part[None] for part in sample)), label[None])
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            found = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(
                f"loss must return one number for a batch of one sample, got {found}: reduce it, for instance by .mean()"
            )
        return value.reshape(())

    def norm_of(sample: tuple[torch.Tensor, ...], label: torch.Tensor) -> torch.Tensor:
        buffers = {name: value.detach().clone() for name, value in model.named_buffers()}  # which a module may write to
        gradients = grad(loss_of)(trainable, buffers, sample, label).values()
        norms = [torch.linalg.vector_norm(g if g.dtype == torch.float64 else g.float()).float() for g in gradients]
        whole: torch.Tensor = torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]))
        return whole

    if not len(labels):  # which vmap refuses
        return torch.zeros(0, device=next(iter(trainable.values())).device)
    norms: torch.Tensor = vmap(norm_of, randomness="different", chunk_size=chunk_size)(parts, labels)
    return norms.detach()


def _check_logits(logits: torch.Tensor, labels: torch.Tensor) -> None:
    for name, value in (("logits", logits), ("labels", labels)):
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    refuse_odd(logits=logits, labels=labels)
    if not logits.dtype.is_floating_point:
        raise TypeError(f"logits must be of a floating dtype, got {logits.dtype}: pass what the model returns, before argmax")
    if logits.dim() == 2 and logits.shape[1] == 1:
        raise ValueError(
            f"logits must have at least two classes, got {list(logits.shape)}, whose softmax is always 1: for logits x of a "
            "sigmoid pass torch.cat([x, torch.zeros_like(x)], 1) with label 0 for positive samples, or take gradient_norms"
        )
    if logits.dim() != 2 or not logits.shape[1]:
        raise ValueError(
            f"logits must be [B, C], got {list(logits.shape)}: a sample has one row of logits; for tokens and pixels take "
            "gradient_norms"
        )
    if labels.dtype != torch.int64 and not labels.dtype.is_floating_point:
        raise TypeError(f"labels must be int64 class indices or floating soft labels, got {labels.dtype}: pass labels.long()")
    expected = list(logits.shape if labels.dtype.is_floating_point else logits.shape[:1])
    if list(labels.shape) != expected:
        raise ValueError(
            f"labels of {labels.dtype} must be {expected}, as logits are {list(logits.shape)}, got {list(labels.shape)}: pass one "
            "label per sample"
        )
    if labels.device != logits.device:
        raise ValueError(f"labels is on {labels.device} and logits on {logits.device}: pass labels.to(logits.device)")
    if labels.dtype == torch.int64 and labels.is_cpu and labels.numel():
        low, high = (int(bound) for bound in labels.aminmax())
        if low < 0 or high >= logits.shape[1]:
            raise IndexError(
                f"labels must be in [0, {logits.shape[1]}), the classes of logits, got {low} to {high}: leave samples without a "
                "label out"
            )


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, DistributedDataParallel):
        raise ValueError("model is inside DistributedDataParallel, which averages gradients over the ranks: pass model.module")
    for name, parameter in model.named_parameters():
        refuse_odd(**{name: parameter})
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            remedy = "call model.eval() first, and model.train() afterwards"
            if module.running_mean is None:
                remedy = "construct it with track_running_stats=True, and call model.eval()"
            raise ValueError(
                f"model has {type(module).__name__} at {name!r}, which takes its statistics from the batch here, so that a sample "
                f"has no gradient of its own: {remedy}"
            )


def _check_lengths(inputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> None:
    named = {f"inputs[{number}]" if len(inputs) > 1 else "inputs": part for number, part in enumerate(inputs)}
    for name, value in {**named, "labels": labels}.items():
        if not isinstance(value, torch.Tensor):
            remedy = (
                "" if name == "labels" else ": pass a tuple of the model's positional arguments, or wrap a model that takes others"
            )
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}{remedy}")
        if not value.dim():
            raise ValueError(f"{name} must be of shape [B, ...], got []: a sample is a row")
        refuse_odd(**{name: value})
    for name, value in named.items():
        if len(value) != len(labels):
            raise ValueError(
                f"labels must have as many rows as {name}, {len(value)}, got {len(labels)}: pass one of each per sample"
            )
    if not inputs:
        raise ValueError("inputs is an empty tuple: pass the arguments of the model, each [B, ...]")
