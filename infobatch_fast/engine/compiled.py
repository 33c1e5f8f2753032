"""``record`` as an operator of torch, for compiled functions.

The plan may change between two calls of a compiled graph, so the graph holds the number of a pruner, and the pruner is asked at run
time. A token of one element, which nobody reads, tells torch that the call writes something and must not be left out, repeated or
moved. It must not be the table: a compiler hands a copy of what is written to the operator, and afterwards copies it back over all
that was recorded.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Protocol

import torch


class Records(Protocol):
    """What ``record`` calls back."""

    def record_now(self, index: torch.Tensor, scores: torch.Tensor, averaged: bool) -> torch.Tensor:
        """Weights of a batch, whose scores are recorded."""


_library = torch.library.Library("infobatch_fast", "DEF")  # type: ignore[no-untyped-call]
_library.define("record(Tensor(a!) token, Tensor index, Tensor scores, int handle, bool averaged) -> Tensor")  # type: ignore[no-untyped-call]
_targets: weakref.WeakValueDictionary[int, Records] = weakref.WeakValueDictionary()
_handles = itertools.count(1)  # never reused: a compiled graph may outlive its pruner


def register(target: Records) -> int:
    """A number by which ``record`` finds ``target`` as long as it lives."""
    handle = next(_handles)
    _targets[handle] = target
    return handle


def _record(token: torch.Tensor, index: torch.Tensor, scores: torch.Tensor, handle: int, averaged: bool) -> torch.Tensor:
    target = _targets.get(handle)
    if target is None:
        raise RuntimeError("update: the InfoBatch of this compiled function no longer exists; keep a reference to it")
    return target.record_now(index, scores, averaged)


def _record_meta(token: torch.Tensor, index: torch.Tensor, scores: torch.Tensor, handle: int, averaged: bool) -> torch.Tensor:
    return torch.empty_like(scores)


for _key in ("CPU", "CUDA"):
    _library.impl("record", _record, _key)  # type: ignore[no-untyped-call]
torch.library.register_fake("infobatch_fast::record", _record_meta, lib=_library)
_record_op = torch.ops.infobatch_fast.record.default


def record(token: torch.Tensor, index: torch.Tensor, scores: torch.Tensor, handle: int, averaged: bool) -> torch.Tensor:
    """Stores float32 scores [B] of ids int64 [B] in the table of pruner ``handle``.

    Returns:
        Their weights, float32 [B]; ``averaged``: weights / B.
    """
    weights: torch.Tensor = _record_op(token, index, scores, handle, averaged)
    return weights
