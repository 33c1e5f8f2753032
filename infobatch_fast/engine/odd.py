"""Tensors whose numbers do not lie in memory of their own, where native code would read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.parameter import is_lazy

_OUTSIDE = "call InfoBatch outside of torch.func (vmap, grad, jvp, functionalize) and FakeTensorMode, as docs/loops.md shows"


def address(tensor: torch.Tensor) -> int:
    """Where the memory of a tensor begins; an empty one needs none.

    Raises:
        TypeError: It has none.
    """
    try:
        where = 0 if _is_made_of_others(tensor) else tensor.data_ptr()
    except RuntimeError:  # inside of torch.func
        where = 0
    if where == 0 and tensor.numel() > 0:
        raise TypeError(f"torch makes tensors without memory here: {_OUTSIDE}")
    return where


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether it is a DTensor."""
    return hasattr(tensor, "to_local")


def _is_made_of_others(tensor: torch.Tensor) -> bool:
    """Whether its class overrides how torch computes: a FakeTensor, or one that holds other tensors."""
    return type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__


def _has_no_memory(tensor: torch.Tensor) -> bool:
    try:
        address(tensor)
    except TypeError:
        return True
    return False


_ODD: tuple[tuple[Callable[[torch.Tensor], bool], str], ...] = (  # in this order: later checks would fail on the earlier kinds
    (is_lazy, "a {kind}: materialize it first"),
    (is_sharded, "a {kind}: pass {name}.full_tensor()"),
    (lambda tensor: tensor.is_nested, "a nested tensor: torch.stack one number for each sample"),
    (lambda tensor: tensor.layout is not torch.strided, "one of layout {layout}: pass {name}.to_dense()"),
    (lambda tensor: tensor.is_quantized, "a quantised one: pass {name}.dequantize()"),
    (_is_made_of_others, f"a {{kind}}, which is made of other tensors or of none: pass what it holds, and {_OUTSIDE}"),
    (lambda tensor: tensor.is_meta, "one on the device meta, which holds no numbers: make it on a device that does"),
    (lambda tensor: tensor._is_zerotensor(), "zeros that torch keeps in no memory: pass {name}.clone()"),
    (_has_no_memory, f"one without memory of its own: {_OUTSIDE}"),
)


def oddity(name: str, tensor: torch.Tensor) -> str | None:
    """What is odd about the tensor ``name``, and what to pass instead; None if its numbers lie in memory."""
    for is_odd, text in _ODD:
        if is_odd(tensor):
            return text.format(name=name, kind=type(tensor).__name__, layout=tensor.layout)
    return None


def refuse_odd(**tensors: Any) -> None:
    """Names the first argument that is an odd tensor.

    Raises:
        TypeError: There is one.
    """
    for name, tensor in tensors.items():
        found = oddity(name, tensor) if isinstance(tensor, torch.Tensor) else None
        if found is not None:
            raise TypeError(f"{name} must be a plain tensor, got {found}")


def explain_odd(**tensors: Any) -> None:
    """Called after a failure that torch may have explained in its own terms: names the odd argument, or the odd place of the call.

    Raises:
        TypeError: An argument or the place of the call was odd.
    """
    refuse_odd(**tensors)
    address(torch.empty(1, device="cpu"))
