"""Checks of arguments. Each error names the argument and the value, and says what would be right."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Iterable, Sequence, Sized
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader

from . import ops
from .odd import is_sharded, refuse_odd
from .sources import refuse_ids_inside

Index: TypeAlias = torch.Tensor | Sequence[int] | int


def check_int(name: str, value: Any, low: int, high: int | None = None, meaning: str = "") -> int:
    """``value`` as an int in [low, high], NumPy's ints included. If it is out of range, the error holds ``meaning``.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is out of range.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {value!r} of type {type(value).__name__}") from None
    if number < low or (high is not None and number > high):
        span = f"at least {low}" if high is None else f"in [{low}, {high}]"
        raise ValueError(f"{name} must be {span}, got {number}" + (f": it is {meaning}" if meaning else ""))
    return number


def check_fraction(name: str, value: Any, closed: bool, meaning: str) -> float:
    """``value`` as a float in [0, 1], or in [0, 1) if not ``closed``. If it is out of range, the error holds ``meaning``.

    Raises:
        TypeError: It is not a real number.
        ValueError: It is out of range or NaN.
    """
    span = "[0, 1]" if closed else "[0, 1)"
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        number = float(value) + 0.0  # no -0, as ranks compare what is printed
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name} must be a number in {span}, got {value!r} of type {type(value).__name__}") from None
    if not (0.0 <= number <= 1.0) or (number == 1.0 and not closed):
        raise ValueError(f"{name} must be in {span}, got {value!r}: it is {meaning}")
    return number


def check_fractions(name: str, values: Any, closed: bool, meaning: str) -> tuple[float, ...]:
    """``values`` as a tuple of such floats.

    Raises:
        TypeError: It is not a sequence, or holds something that is not a real number.
        ValueError: A number is out of range or NaN.
    """
    if not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a sequence of numbers, got {values!r}: pass a tuple")
    return tuple(check_fraction(name, value, closed, meaning) for value in values)


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Makes sure that ``value`` is one of ``choices``.

    Raises:
        ValueError: It is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_size(data_source: Sized | int, name: str = "data_source") -> int:
    """Number of samples of a data set, or the number itself.

    Raises:
        TypeError: It has no length, or is a loader.
        ValueError: It is empty, or above 2^40, or a data set inside it hands out its own ids.
    """
    if isinstance(data_source, Integral) and not isinstance(data_source, bool):
        return check_int(name, data_source, 1, ops.MAX_SAMPLES)
    if isinstance(data_source, DataLoader):
        raise TypeError(
            f"{name} is a DataLoader, whose length is its number of batches: pass the data set, {name}.dataset, and give the "
            "loader sampler=pruner.sampler"
        )
    refuse_ids_inside(name, data_source)
    try:
        size = len(data_source)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"{name} must be a data set with a length, or the number of its samples, got {type(data_source).__name__}: for a "
            "stream pass the number of its samples, and wrap it in KeptOnly(dataset, pruner)"
        ) from None
    except (OverflowError, ValueError) as error:  # Python's own limits of a length
        raise ValueError(
            f"len({name}) must be in [1, {ops.MAX_SAMPLES}], and that of {type(data_source).__name__} is not ({error}): pass a "
            "data set of fewer samples, or the number of its samples"
        ) from error
    return check_int(f"len({name})", size, 1, ops.MAX_SAMPLES)


def check_index(index: Index, device: torch.device) -> torch.Tensor:
    """Sample indices as a contiguous int64 tensor [B] on the table's device.

    Raises:
        TypeError: They are not integers.
        ValueError: They are not of one dimension, or on a GPU while the table is on the CPU.
        RuntimeError: They are on the CPU while a CUDA graph is captured.
    """
    if type(index) is not torch.Tensor:
        index = _index_tensor(index)
    if index.dtype != torch.int64:
        if index.dtype.is_floating_point or index.dtype.is_complex or index.dtype == torch.bool:
            raise TypeError(
                f"index must be of an integer dtype, got {index.dtype}: pass the sample indices that the batch came with, from "
                "DataLoader(with_index(dataset), ...); floats cannot hold indices above 2^24"
            )
        is_unsigned = index.dtype == torch.uint64 and not torch.compiler.is_compiling()
        index = index.to(torch.int64)
        if is_unsigned and index.is_cpu and bool((index < 0).any()):  # they wrapped around; on a GPU they count as out of range
            raise ValueError(f"index must be below 2^63, got {int(index[index < 0][0]) % 2**64}: pass int64 sample indices")
    if index.dim() != 1:
        raise ValueError(f"index must be of shape [B], got {list(index.shape)}: pass one index for each sample, index.flatten()")
    if index.device != device:
        if index.device.type not in ("cpu", "cuda"):
            raise ValueError(f"index is on {index.device}, where no pruner can be: pass index.cpu()")
        if device.type == "cpu":
            raise ValueError(
                f"index is on {index.device} and the pruner on cpu, so each step would wait for the GPU: construct "
                f"InfoBatch(..., device={str(index.device)!r})"
            )
        if index.device.type == "cpu":
            index = _for_copy(index, device)
        index = index.to(device, non_blocking=True)
    return index.contiguous()


def _for_copy(index: torch.Tensor, device: torch.device) -> torch.Tensor:
    """An index on the CPU, in pinned memory, so that the host does not wait for its copy to a GPU."""
    if not torch.compiler.is_compiling() and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "index is on the CPU while a CUDA graph is captured, so each replay would read whatever that memory then holds: put "
            f"it on {device} before capturing, and copy the next indices into it before each replay"
        )
    return index if index.is_pinned() else index.pin_memory()


def host_tensor(values: Any) -> torch.Tensor:
    """Python or NumPy data as a tensor on the CPU, whatever the default device.

    Raises:
        TypeError, ValueError, RuntimeError: It cannot be one.
    """
    # torch takes np.uint64 in arrays alone, neither negative strides nor the other order of bytes, and warns of read-only arrays.
    if isinstance(values, (list, tuple)) and values and isinstance(values[0], np.unsignedinteger):
        values = np.array(values)
    if isinstance(values, np.ndarray):
        values = np.array(values, dtype=values.dtype.newbyteorder("="))
    return torch.as_tensor(values, device="cpu")


def _index_tensor(index: Index) -> torch.Tensor:
    if not isinstance(index, torch.Tensor):
        try:
            index = host_tensor([index] if isinstance(index, Integral) else index)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise TypeError(f"index must be a tensor or a sequence of ints below 2^63, got {reprlib.repr(index)}") from None
        if index.numel() == 0:  # torch takes an empty list for floats
            index = index.to(torch.int64)
    else:
        _refuse_subclass("index", index)
    return index


def _refuse_subclass(name: str, tensor: torch.Tensor) -> None:
    if is_sharded(tensor) or not torch.compiler.is_compiling():  # which runs this with tensors that stand for others
        refuse_odd(**{name: tensor})


def check_values(name: str, values: torch.Tensor, index: torch.Tensor, device: torch.device) -> None:
    """Makes sure that ``values`` holds one floating number for each index, on the table's device.

    Raises:
        TypeError: It is not a tensor of a floating dtype.
        ValueError: Its shape or device differs.
    """
    if type(values) is not torch.Tensor:
        if not isinstance(values, torch.Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(values).__name__}: pass a torch.Tensor [B]")
        _refuse_subclass(name, values)
    if values.shape != index.shape:  # so it has one dimension, as check_index saw to
        raise ValueError(
            f"{name} must hold one number for each of the {index.shape[0]} indices, got shape {list(values.shape)}: "
            + _shape_remedy(values, index.shape[0])
        )
    if not values.dtype.is_floating_point or values.dtype.itemsize < 2:  # torch does not calculate with floats of eight bits
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {values.dtype}: compute them in one of these")
    if values.device != device:
        if values.device.type not in ("cpu", "cuda"):
            raise ValueError(
                f"{name} must be on {device}, where the pruner is, got {values.device}: pass {name}.to({str(device)!r})"
            )
        raise ValueError(
            f"{name} is on {values.device} and the pruner on {device}: construct InfoBatch(..., device={str(values.device)!r}), "
            "the device that computes the losses"
        )


def _shape_remedy(values: torch.Tensor, indices: int) -> str:
    """What to write where ``values`` is of another shape than that number of indices."""
    if values.dim() > 1:
        return "reduce to one number a sample, for instance losses.mean(dim=1)"
    if values.dim() == 0 or values.shape[0] == 1:
        return "compute the loss with reduction='none'"
    if indices == 1:
        return "pass the indices that the batch came with, from DataLoader(with_index(dataset), ...), not the number of the batch"
    if values.shape[0] and indices and values.shape[0] % indices == 0:
        return f"if each sample has several of them in a row, take losses.view({indices}, -1).mean(dim=1)"
    return (
        "samples were lost or added between index and losses, for instance by a collate function that leaves some out. Leave out "
        "whole (index, item) pairs instead, without collate_with_index: "
        "collate_fn=lambda pairs: default_collate([pair for pair in pairs if pair[1] is not None])"
    )
