"""``record`` and ``weigh`` as operators of torch, for compiled functions.

The plan may change between two calls of a compiled graph, so the graph holds the number of a pruner, and the pruner is asked at run
time. A token of one element, which nobody reads, tells torch that the call writes something and must not be left out, repeated or
moved. It must not be the table: a compiler passes a copy of the written tensor to the operator, and afterwards copies it back over
everything that was recorded.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Protocol

import torch


class Records(Protocol):
    """What ``record`` calls back."""

    def record_now(self, index: torch.Tensor, scores: torch.Tensor, averaged: bool, visits: bool) -> torch.Tensor:
        """Records the scores of a batch and returns its weights."""

    def weights_now(self, index: torch.Tensor) -> torch.Tensor:
        """Weights of a batch."""


_library = torch.library.Library("infobatch_fast", "DEF")  # type: ignore[no-untyped-call]
_library.define(  # type: ignore[no-untyped-call]
    "record(Tensor(a!) token, Tensor index, Tensor scores, int handle, bool averaged, bool visits) -> Tensor"
)
_library.define("weigh(Tensor(a!) token, Tensor index, int handle) -> Tensor")  # type: ignore[no-untyped-call]
_targets: weakref.WeakValueDictionary[int, Records] = weakref.WeakValueDictionary()
_handles = itertools.count(1)  # never reused: a compiled graph may outlive its pruner


def register(target: Records) -> int:
    """A number by which ``record`` finds ``target`` as long as it lives."""
    handle = next(_handles)
    _targets[handle] = target
    return handle


def _target(handle: int) -> Records:
    target = _targets.get(handle)
    if target is None:
        raise RuntimeError("the InfoBatch of this compiled function no longer exists; keep a reference to it")
    return target


def _record(
    token: torch.Tensor, index: torch.Tensor, scores: torch.Tensor, handle: int, averaged: bool, visits: bool
) -> torch.Tensor:
    return _target(handle).record_now(index, scores, averaged, visits)


def _weigh(token: torch.Tensor, index: torch.Tensor, handle: int) -> torch.Tensor:
    return _target(handle).weights_now(index)


def _like_scores(
    token: torch.Tensor, index: torch.Tensor, scores: torch.Tensor, handle: int, averaged: bool, visits: bool
) -> torch.Tensor:
    return torch.empty_like(scores)


def _like_index(token: torch.Tensor, index: torch.Tensor, handle: int) -> torch.Tensor:
    return torch.empty_like(index, dtype=torch.float32)


for _name, _run, _fake in (("record", _record, _like_scores), ("weigh", _weigh, _like_index)):
    for _key in ("CPU", "CUDA"):
        _library.impl(_name, _run, _key)  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"infobatch_fast::{_name}", _fake, lib=_library)
_record_op = torch.ops.infobatch_fast.record.default
_weigh_op = torch.ops.infobatch_fast.weigh.default


def record(
    token: torch.Tensor, index: torch.Tensor, scores: torch.Tensor, handle: int, averaged: bool, visits: bool
) -> torch.Tensor:
    """Stores float32 scores [B] of ids int64 [B] in the table of pruner ``handle``. With ``visits`` they count as trained on.

    Returns:
        Their weights, float32 [B]; ``averaged``: weights / B.
    """
    weights: torch.Tensor = _record_op(token, index, scores, handle, averaged, visits)
    return weights


def weigh(token: torch.Tensor, index: torch.Tensor, handle: int) -> torch.Tensor:
    """The weights of ids, float32 [B], under the plan that pruner ``handle`` has when this runs."""
    weights: torch.Tensor = _weigh_op(token, index, handle)
    return weights
