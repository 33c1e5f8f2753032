"""Reduces losses of many elements (tokens, pixels, boxes, rows) to one number per sample."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

from .engine.checks import check_choice, check_int


def per_sample(
    loss: torch.Tensor,
    index: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    *,
    num_samples: int | None = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> torch.Tensor:
    """The mean of each sample's own elements, as ``InfoBatch.update`` wants it: sum(mask * loss) / sum(mask), sample by sample.

    Its batch mean is a mean of means: a short text counts as much as a long one. Trainers of language models take another
    objective, the mean over all elements of a batch; docs/losses.md says how to keep it. No host synchronisation.

    Args:
        loss: Losses of the elements, floating [B, ...]. With ``index`` [M, ...]: a row for each box, crop or turn.
        index: The sample that each row belongs to, of an integer dtype [M]. With ``num_samples`` it holds positions in the batch,
            such as the number of the image that a box is in. Without it any numbers will do, such as sample ids; rows with equal
            numbers belong to one sample.
        mask: Which elements count: bool, or weights of any real dtype that are not negative. It has the shape of ``loss`` or of its
            first dimensions, and a size of 1 is broadcast. Elements that do not count may be NaN.
        num_samples: B, if ``index`` holds positions.
        reduction: "mean", or "sum" of the elements that count.

    Returns:
        [B]. With ``index`` and no ``num_samples`` it is [M]: each row has the number of its sample. ``update(index, losses)`` then
        records this number, and the gradient is that of the mean over rows. float32, or float64 for float64. A sample without any
        element that counts has 0. Differentiable. With ``index`` on CUDA the order of a sum is fixed only under
        ``torch.use_deterministic_algorithms(True)``.

    Raises:
        TypeError: A wrong dtype or type.
        ValueError: A wrong shape or reduction.
        IndexError: On the CPU: a position is not in [0, num_samples). On CUDA it is an assertion of the device, as in torch.

    Example:
        >>> per_sample(torch.tensor([[1.0, 3.0], [5.0, 9.0]]), mask=torch.tensor([[True, True], [True, False]]))
        tensor([2., 5.])
        >>> per_sample(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 2]), num_samples=3)
        tensor([2., 0., 5.])
        >>> per_sample(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([70, 70, 8]))
        tensor([2., 2., 5.])
    """
    check_choice("reduction", reduction, ("mean", "sum"))
    _check_loss(loss)
    if num_samples is not None and index is None:
        raise ValueError(f"num_samples={num_samples!r} is the range of index, which was not given: pass index too")
    dtype = torch.float64 if loss.dtype == torch.float64 else torch.float32
    values, counted = loss.to(dtype), torch.ones((), dtype=dtype, device=loss.device)
    if mask is not None:
        counted = _aligned(mask, loss).to(dtype)
        values = torch.where(counted != 0, values * counted, 0.0)
    sums, counts = _row_sums(values), _row_sums(counted.expand(loss.shape))
    if index is not None:
        groups = _groups(index, loss) if num_samples is None else _positions(index, loss, num_samples)
        size = len(loss) if num_samples is None else num_samples
        sums, counts = (part.new_zeros(size).index_add(0, groups, part) for part in (sums, counts))
    reduced = sums if reduction == "sum" else sums / torch.where(counts == 0, 1.0, counts)
    return reduced[groups] if index is not None and num_samples is None else reduced


def token_losses(
    logits: torch.Tensor, labels: torch.Tensor, ignore_index: int = -100, shift: bool = True, label_smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of each token of a language model, and a mask of the tokens that count.

    Args:
        logits: Floating [B, T, V]. Half precision is computed in float32.
        labels: int64 [B, T].
        ignore_index: The label of tokens that do not count.
        shift: Whether the logits at t predict the label at t + 1, as in causal models. The last position then predicts nothing.
        label_smoothing: In [0, 1].

    Returns:
        Losses, float32 or float64 [B, T], 0 where nothing counts, and a mask, bool [B, T]: ``per_sample(losses, mask=mask)``.

    Raises:
        TypeError: A wrong dtype or type.
        ValueError: Shapes that do not fit.

    Example:
        >>> losses, mask = token_losses(torch.zeros(1, 3, 4), torch.tensor([[0, 2, -100]]))
        >>> mask
        tensor([[ True, False, False]])
        >>> per_sample(losses, mask=mask)
        tensor([1.3863])
    """
    _check_labels(logits, labels, class_dim=-1)
    if shift:  # the labels and not the logits, of which there are V times as many
        labels = functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]
    losses = functional.cross_entropy(
        _at_least_float32(logits).flatten(0, 1),
        labels.flatten(),
        ignore_index=ignore_index,
        reduction="none",
        label_smoothing=label_smoothing,
    )
    return losses.view(labels.shape), labels != ignore_index


def pixel_losses(logits: torch.Tensor, labels: torch.Tensor, ignore_index: int = -100) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of each pixel or voxel, and a mask of those that count.

    Args:
        logits: Floating [B, C, ...], the classes second. Half precision is computed in float32.
        labels: int64 [B, ...].
        ignore_index: The label of pixels that do not count; many data sets use 255.

    Returns:
        Losses, float32 or float64 [B, ...], 0 where nothing counts, and a mask, bool [B, ...]: ``per_sample(losses, mask=mask)``.

    Raises:
        TypeError: A wrong dtype or type.
        ValueError: Shapes that do not fit.
    """
    _check_labels(logits, labels, class_dim=1)
    losses = functional.cross_entropy(_at_least_float32(logits), labels, ignore_index=ignore_index, reduction="none")
    return losses, labels != ignore_index


def _row_sums(values: torch.Tensor) -> torch.Tensor:
    return values if values.dim() == 1 else values.flatten(1).sum(1)


def _at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _aligned(mask: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
    """The mask with as many dimensions as the loss."""
    if not isinstance(mask, torch.Tensor):
        raise TypeError(f"mask must be a tensor, got {type(mask).__name__}")
    if mask.dtype.is_complex:
        raise TypeError(f"mask must be of a bool or real dtype, got {mask.dtype}")
    if mask.device != loss.device:
        raise ValueError(f"mask is on {mask.device} and loss on {loss.device}: pass mask.to(loss.device)")
    if mask.dim() > loss.dim() or any(have not in (1, want) for have, want in zip(mask.shape, loss.shape, strict=False)):
        raise ValueError(
            f"mask must have the shape {list(loss.shape)} of loss, or its first dimensions, where a size of 1 is broadcast, got "
            f"{list(mask.shape)}"
        )
    return mask.reshape(*mask.shape, *[1] * (loss.dim() - mask.dim()))


def _positions(index: torch.Tensor, loss: torch.Tensor, num_samples: int) -> torch.Tensor:
    """Positions in the batch, int64 [M]."""
    num_samples, index = check_int("num_samples", num_samples, 0), _check_index(index, loss)
    if index.device.type == "cpu" and index.numel() and not (0 <= int(index.min()) <= int(index.max()) < num_samples):
        raise IndexError(
            f"index must hold positions in [0, {num_samples}), got {int(index.min())} to {int(index.max())}: leave num_samples out "
            "if these are sample ids"
        )
    return index


def _groups(index: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
    """Numbers in [0, M), equal where ``index`` is equal: as ``torch.unique`` gives them, but without waiting for the device."""
    ordered, places = _check_index(index, loss).sort()
    is_new = torch.ones_like(ordered)
    is_new[1:] = ordered[1:] != ordered[:-1]
    return torch.empty_like(places).scatter_(0, places, is_new.cumsum(0) - 1)


def _check_index(index: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
    if not isinstance(index, torch.Tensor):
        raise TypeError(f"index must be a tensor, got {type(index).__name__}")
    if index.dtype.is_floating_point or index.dtype.is_complex or index.dtype == torch.bool:
        raise TypeError(f"index must be of an integer dtype, got {index.dtype}")
    if index.shape != loss.shape[:1]:
        raise ValueError(f"index must hold one number for each of the {len(loss)} rows of loss, got shape {list(index.shape)}")
    if index.device != loss.device:
        raise ValueError(f"index is on {index.device} and loss on {loss.device}: pass index.to(loss.device)")
    return index.to(torch.int64)


def _check_loss(loss: torch.Tensor) -> None:
    if not isinstance(loss, torch.Tensor):
        raise TypeError(f"loss must be a tensor, got {type(loss).__name__}")
    if not loss.dtype.is_floating_point:
        raise TypeError(f"loss must be of a floating dtype, got {loss.dtype}")
    if loss.dim() == 0:
        raise ValueError("loss must be of shape [B, ...], got []: compute it with reduction='none'")


def _check_labels(logits: torch.Tensor, labels: torch.Tensor, class_dim: int) -> None:
    for name, value in (("logits", logits), ("labels", labels)):
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    if not logits.dtype.is_floating_point:
        raise TypeError(f"logits must be of a floating dtype, got {logits.dtype}")
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got {labels.dtype}")
    expected = list(logits.shape)
    if len(expected) > 1:
        del expected[class_dim]
    if logits.dim() < 2 or (class_dim == -1 and logits.dim() != 3) or list(labels.shape) != expected:
        form = "[B, T, V] and labels [B, T]" if class_dim == -1 else "[B, C, ...] and labels [B, ...]"
        raise ValueError(f"logits must be {form}, got {list(logits.shape)} and {list(labels.shape)}")
