"""Where a run stands: in an epoch, in its plan, and in an iteration of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from . import ops
from .chunks import Ids

LAST_EPOCH = 2**32 - 1  # what a counter of the generator holds


class SavedPlan(NamedTuple):
    """Numbers of the plan that a checkpoint was taken under; its bits are in the marks."""

    pruned: bool
    cutoffs: ops.Cutoffs
    thresholds: tuple[float, ...]
    seen: int


class Place(NamedTuple):
    """A position in an epoch's order. ``drawn``: all indices that were yielded before it, where plans follow each other."""

    epoch: int
    position: int
    drawn: int = 0


class Piece(NamedTuple):
    """Ids at positions [first, end) of an iteration, which others know by a token.

    ``check`` raises a RuntimeError if another iteration or epoch has begun. Code that takes ids of the piece one by one calls it
    when ``Epochs.running`` is another token.
    """

    iteration: object
    check: Callable[[], None]
    first: int
    end: int
    ids: Ids


class Reached(NamedTuple):
    """Where a sampler's newest iteration stands."""

    iteration: object
    position: int
