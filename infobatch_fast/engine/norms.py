"""Norms of gradients, computed from scores for importance sampling."""

from __future__ import annotations

import math
from decimal import Context, Decimal, localcontext
from functools import cache
from typing import Literal

import torch

from . import ops

Norm = Literal["gradient_norm", "score"]
NORMS: tuple[Norm, ...] = ("gradient_norm", "score")


@cache
def norms_of_bins(by: Norm) -> tuple[float, ...]:
    """The norm of each bin, as docs/algorithm.md defines it: that of the score in the middle of the bin, rounded to a double."""
    middles = (math.ldexp(1 + step % 4 / 4 + 1 / 8, step // 4 - 126) for step in range(ops.NORMS))
    return tuple(middles if by == "score" else map(_wrong, middles))


@cache
def norms_on(by: Norm, device: torch.device) -> torch.Tensor:
    """``norms_of_bins`` on a device, float64 [ops.NORMS], made once."""
    return torch.tensor(norms_of_bins(by), dtype=torch.float64, device=device)


def _wrong(loss: float) -> float:
    """1 - exp(-loss), the probability of being wrong that a cross-entropy loss stands for.

    It is the same on all machines, because decimal numbers are rounded once. The C library's exp is not.
    """
    if loss > 64:  # 1 - exp(-64) is nearer to 1 than to any other double
        return 1.0
    with localcontext(Context(prec=100, traps=[])):  # whatever the user's own context traps
        return float(1 - (-Decimal(loss)).exp())
