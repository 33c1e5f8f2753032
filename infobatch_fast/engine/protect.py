"""Protected samples, which are never pruned: one bit a slot, in rows of eight as the marks."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import torch

from . import ops
from .checks import host_tensor
from .odd import refuse_odd
from .table import ScoreTable

Protect: TypeAlias = torch.Tensor | Sequence[int] | Sequence[bool]
PIECE = 1 << 20  # ids looked at in one go


def check_protect(protect: Protect, num_samples: int) -> torch.Tensor:
    """``protect`` as sample ids, int64 [any], or as a mask, bool [N]; on its own device.

    Raises:
        TypeError: It holds neither integers nor booleans.
        ValueError: It is not of one dimension, or a mask of another length than the data set.
        IndexError: An id is out of range.
    """
    refuse_odd(protect=protect)
    try:
        given = protect if isinstance(protect, torch.Tensor) else host_tensor(protect)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"protect must be sample ids or a bool mask, got {reprlib.repr(protect)}") from None
    if given.numel() == 0 and not isinstance(protect, torch.Tensor):  # torch takes an empty list for floats
        given = given.to(torch.int64)
    if given.dtype.is_floating_point or given.dtype.is_complex:
        raise TypeError(f"protect must be sample ids of an integer dtype or a bool mask, got {given.dtype}")
    if given.dim() != 1:
        raise ValueError(f"protect must be of one dimension, got shape {list(given.shape)}: pass ids or a mask of all samples")
    if given.dtype == torch.bool:
        if given.numel() != num_samples:
            raise ValueError(
                f"protect is a mask of {given.numel()} samples and the data set has {num_samples}: pass one bool a sample, or ids"
            )
        return given
    if given.dtype == torch.uint8 and given.numel() == num_samples > 2 and int(given.max()) <= 1:
        raise TypeError(f"protect looks like a mask, as it holds {num_samples} zeros and ones, but is of {given.dtype}: pass bools")
    given = given.to(torch.int64)
    bad = (given < 0) | (given >= num_samples)
    if bool(bad.any()):
        example = int(given[bad][0])
        raise IndexError(
            f"protect: {int(bad.sum())} ids out of range for {num_samples} samples, for instance {example}: pass ids from 0 to "
            f"{num_samples - 1}"
        )
    return given


def protect_samples(table: ScoreTable, given: torch.Tensor) -> None:
    """Sets the bits of those samples of ``given``, as ``check_protect`` returned it, that this rank owns."""
    if table.protect is None:
        table.protect = torch.zeros(table.num_rows, dtype=torch.uint8, device=table.device)
    for ids in _ids(given):
        slots = table.slots_of(ids.to(table.device))
        set_bits(table.protect, slots[slots >= 0])


def set_bits(protect: torch.Tensor, slots: torch.Tensor) -> None:
    """Sets the bits of slots [any], each of which may occur more than once."""
    slots = torch.unique(slots)
    rows, bits = slots >> 3, (1 << (slots & 7)).to(torch.uint8)
    bits = bits & ~protect[rows]  # adding is setting for bits that are not set yet
    protect.index_add_(0, rows, bits)


def bits_at(protect: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Whether slots are protected: bool, of their shape."""
    return (protect[slots >> 3] >> (slots & 7)) & 1 == 1


def count_bits(protect: torch.Tensor) -> int:
    """The number of protected slots. Waits for the device."""
    ones = sum((piece >> bit & 1).sum(dtype=torch.int64) for piece in torch.split(protect, PIECE) for bit in range(ops.ROW_SLOTS))
    return int(ones)


def _ids(given: torch.Tensor) -> Iterator[torch.Tensor]:
    for number, piece in enumerate(torch.split(given, PIECE)):
        yield piece.nonzero().flatten() + number * PIECE if given.dtype == torch.bool else piece.contiguous()
