"""What a checkpoint holds, and what makes one fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from . import ops
from .epochs import SavedPlan

if TYPE_CHECKING:
    from .pruner import InfoBatch

FORMAT = 1


def pack_state(pruner: InfoBatch) -> dict[str, Any]:
    """The state of a pruner. Free of side effects; the big tensors are the live ones."""
    epochs, saved = pruner._epochs, pruner._epochs.save()
    return {
        "format": FORMAT,
        "algorithm": ops.ALGORITHM_VERSION,
        "num_samples": pruner.num_samples,
        "seed": pruner.seed,
        "shuffle": pruner.shuffle,
        "epoch": epochs.epoch,
        "scored": epochs.scored,
        "planned_samples": epochs.planned_samples,
        "planned_kept": epochs.planned_kept,
        "planned": saved is not None,
        "pruned": saved.pruned if saved else False,
        "cutoffs": list(saved.cutoffs if saved else (ops.CUTOFF_RANGE,) * 4),
        "thresholds": list(saved.thresholds if saved else ()),
        "seen": saved.seen if saved else 0,
        "scores": pruner._table.scores,
        "marks": pruner._table.row_marks,
    }


def unpack_state(pruner: InfoBatch, state: dict[str, Any]) -> None:
    """Checks all of ``state``, then takes it over.

    Raises:
        ValueError: It does not fit; the pruner is as it was.
    """
    _check(pruner, state)
    table = pruner._table
    table.scores.copy_(state["scores"])
    table.row_marks.copy_(state["marks"])
    table.faults.zero_()
    saved = None
    if state["planned"]:
        c0, c1, c2, c3 = state["cutoffs"]
        saved = SavedPlan(state["pruned"], (c0, c1, c2, c3), tuple(state["thresholds"]), state["seen"])
    planned = state["planned_samples"], state["planned_kept"]
    pruner._epochs.load(state["epoch"], state["scored"], planned, saved)


def _check(pruner: InfoBatch, state: dict[str, Any]) -> None:
    expected = pack_state(pruner)
    if not isinstance(state, dict) or not expected.keys() <= state.keys():
        missing = sorted(expected.keys() - state.keys()) if isinstance(state, dict) else f"it is a {type(state).__name__}"
        raise ValueError(f"state must be what InfoBatch.state_dict() returned; missing: {missing}")
    for name, remedy in (
        ("format", "it was written by another version of infobatch_fast"),
        ("algorithm", "it was written by a version of infobatch_fast that draws other samples"),
        ("num_samples", "it belongs to a data set of another size"),
        ("seed", "construct InfoBatch with the seed of the saved run"),
        ("shuffle", "construct InfoBatch with the shuffle of the saved run"),
    ):
        if state[name] != expected[name]:
            raise ValueError(f"state has {name}={state[name]!r}, this pruner {expected[name]!r}: {remedy}")
    for name, value in expected.items():
        if type(state[name]) is not type(value):
            raise ValueError(f"state[{name!r}] must be of type {type(value).__name__}, got {type(state[name]).__name__}")
        if isinstance(value, torch.Tensor) and (state[name].shape != value.shape or state[name].dtype != value.dtype):
            raise ValueError(
                f"state[{name!r}] must be {value.dtype} {list(value.shape)}, got {state[name].dtype} {list(state[name].shape)}"
            )
        if isinstance(value, int) and state[name] < 0:
            raise ValueError(f"state[{name!r}] must be at least 0, got {state[name]}")
    if len(state["cutoffs"]) != 4 or not all(isinstance(c, int) and 1 <= c <= ops.CUTOFF_RANGE for c in state["cutoffs"]):
        raise ValueError(f"state['cutoffs'] must be four ints in [1, {ops.CUTOFF_RANGE}], got {state['cutoffs']!r}")
    thresholds = state["thresholds"]
    if len(thresholds) > ops.MAX_THRESHOLDS or not all(isinstance(t, float) for t in thresholds):
        raise ValueError(f"state['thresholds'] must be up to {ops.MAX_THRESHOLDS} floats, got {thresholds!r}")
    if bool(torch.isinf(state["scores"]).any()):
        raise ValueError("state['scores'] holds infinite values: the checkpoint is damaged")
