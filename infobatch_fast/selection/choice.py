"""Chooses the samples of a kept fraction."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal

import torch

from ..engine.checks import check_choice, check_fraction, check_int, host_tensor
from ..engine.odd import refuse_odd

ORDERS = ("hardest", "easiest", "random")
MAX_SAMPLES = 1 << 31  # so that number kept * class size fits int64
LARGEST_SEED = (1 << 32) - 1  # of torch's generator, which takes no more bits


def select(
    scores: torch.Tensor | Sequence[float] | int,
    keep: float,
    order: Literal["hardest", "easiest", "random"] = "hardest",
    labels: torch.Tensor | Sequence[int] | None = None,
    seed: int = 0,
) -> torch.Tensor:
    """Returns the ids of a kept fraction of the samples, exactly ``round(keep * N)`` of them.

    The result depends on the arguments alone, so all ranks that pass the same get the same. Among equal scores the lower ids come
    first. With ``labels`` each class keeps the same fraction: its share of the whole number, rounded down. The samples still
    missing come one each from the classes with the largest remainders. Among equal remainders the smaller class goes first, and
    among classes of equal size the smaller label.

    Args:
        scores: [N] of any real dtype: a tensor, a NumPy array or a sequence. Higher is harder. "random" uses no scores, and also
            takes the number N.
        keep: The fraction to keep, in (0, 1]. A half is rounded to the even number, as Python does.
        order: "hardest" keeps the highest scores, "easiest" the lowest, "random" any.
        labels: Class of each sample, [N] of an integer dtype; None for no classes.
        seed: In [0, 2^32). It decides what "random" keeps.

    Returns:
        Ids, int64, ascending, on the CPU, for ``Subset(dataset, ids.tolist())``. Waits for the device of ``scores``.

    Raises:
        TypeError: A wrong dtype or type.
        ValueError: A score is NaN, as ``pruner.scores()`` is for unseen samples; ``labels`` has another length; an argument is out
            of range; or ``keep`` keeps no sample.

    Example:
        >>> select(torch.tensor([0.1, 0.9, 0.5, 0.7]), keep=0.5)
        tensor([1, 3])
        >>> select([0.1, 0.9, 0.5, 0.7], keep=0.5, labels=[0, 1, 0, 1])
        tensor([1, 2])
        >>> len(select(1000, keep=0.3, order="random"))
        300
    """
    check_choice("order", order, ORDERS)
    keep, seed = _check_keep(keep), check_int("seed", seed, 0, LARGEST_SEED)
    ranked = _ranked(scores, order, seed)
    size = len(ranked)
    number = round(keep * size)
    if not number:
        raise ValueError(f"keep={keep!r} of {size} samples keeps none: pass at least {1 / size:.3g}")
    if labels is None:
        return ranked[:number].sort().values.cpu()
    _, classes, counts = torch.unique(_classes(labels, size, ranked.device), return_inverse=True, return_counts=True)
    quotas = _quotas(counts, number)
    of_class = classes[ranked].sort(stable=True)  # class by class, the best first in each
    first = counts.cumsum(0) - counts
    place = torch.arange(size, device=ranked.device) - first[of_class.values]
    return ranked[of_class.indices[place < quotas[of_class.values]]].sort().values.cpu()


def _ranked(scores: Any, order: str, seed: int) -> torch.Tensor:
    """All ids, int64 [N], in the order in which they are kept."""
    if isinstance(scores, Integral) and order != "random":
        raise TypeError(
            f"scores must be one number for each sample with order={order!r}, got {scores!r}: only order='random' takes an int"
        )
    if order == "random":
        size = scores if isinstance(scores, Integral) else len(_check_scores(scores))
        size = check_int("scores, the number of samples,", size, 1, MAX_SAMPLES)
        return torch.randperm(size, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
    values = _check_scores(scores)
    unknown = values.isnan()
    if count := int(unknown.sum()):
        raise ValueError(
            f"scores holds NaN for {count} of {len(values)} samples, the first of them {int(unknown.nonzero()[0])}: "
            "pruner.scores() returns NaN for unseen samples and for samples of other ranks. Train on or record() each sample once; "
            "docs/selection.md shows how ranks join their scores"
        )
    return values.sort(stable=True, descending=order == "hardest").indices


def _check_scores(scores: Any) -> torch.Tensor:
    values = _tensor("scores", scores)
    if values.dtype.is_complex or values.dtype == torch.bool or (values.dtype.is_floating_point and values.dtype.itemsize < 2):
        raise TypeError(f"scores must be of a real dtype, got {values.dtype}: torch cannot sort them; pass scores.float()")
    if values.dim() != 1 or not 0 < len(values) <= MAX_SAMPLES:
        raise ValueError(
            f"scores must be one number for each of 1 to {MAX_SAMPLES} samples, [N], got shape {list(values.shape)}: if a sample "
            "has several, reduce them, for instance by per_sample"
        )
    return values


def _classes(labels: Any, size: int, device: torch.device) -> torch.Tensor:
    values = _tensor("labels", labels)
    if values.dtype.is_floating_point or values.dtype.is_complex or values.dtype == torch.bool:
        raise TypeError(f"labels must be class indices of an integer dtype, got {values.dtype}: pass soft labels as argmax(1)")
    if list(values.shape) != [size]:
        raise ValueError(f"labels must be of shape [{size}], as scores are, got {list(values.shape)}: pass one label per sample")
    return values.to(device, torch.int64)


def _tensor(name: str, values: Any) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        refuse_odd(**{name: values})
        return values.detach()
    try:
        return host_tensor(values)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise TypeError(f"{name} must be a tensor, an array or a sequence of numbers, got {type(values).__name__}") from None


def _quotas(counts: torch.Tensor, number: int) -> torch.Tensor:
    """How many each class keeps, int64 [classes]: in whole numbers, so that no rounding decides."""
    size = int(counts.sum())
    shares = counts * number
    quotas = shares // size
    # Sorts are stable, so the last one decides first.
    by_size = counts.argsort(stable=True)
    by_remainder = by_size[(shares % size)[by_size].argsort(stable=True, descending=True)]
    quotas[by_remainder[: number - int(quotas.sum())]] += 1
    return quotas


def _check_keep(keep: float) -> float:
    number = check_fraction("keep", keep, True, "the fraction of the samples that is kept")
    if number == 0.0:
        raise ValueError(f"keep must be in (0, 1], got {keep!r}: it is the fraction of the samples that is kept")
    return number
