"""What a checkpoint holds, and what makes one fit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from . import ops
from .checks import check_int
from .damage import CHECK_BYTES, check_damage, check_version, row_checks, sealed
from .epochs import Epochs
from .marks import BYTES_PER_ROW, rows_of
from .odd import is_sharded, oddity
from .places import LAST_EPOCH, SavedPlan
from .ranks import Ranks
from .sharded import local_part, shared_tensor
from .table import NEVER, ScoreTable

FORMAT, FORMAT_WITH_PROTECTED = 3, 4  # the second has one tensor more
PIECE = 1 << 24  # scores looked at in one go, as torch makes temporary copies of them

_FITS = {  # what must be equal, and what to do if it is not
    "format": "another version of infobatch_fast wrote it; load it with that version",
    "algorithm": "a version of infobatch_fast that draws other samples wrote it; load it with that version",
    "num_samples": "construct InfoBatch with the data set of the saved run, and after loading call grow() if samples were added",
    "seed": "construct InfoBatch with the seed of the saved run",
    "shuffle": "construct InfoBatch with the shuffle of the saved run",
    "shard": "construct InfoBatch with the shard of the saved run",
}
_COUNTS = ("epoch", "scored", "planned_samples", "planned_kept", "seen")


def pack_state(epochs: Epochs) -> dict[str, Any]:
    """The state of a pruner: the same on all ranks, except for the parts of the tables. No side effects; one pass over tables."""
    state, table, ranks = _pack_unchecked(epochs), epochs.table, epochs.table.ranks
    rows, first_row = rows_of(table.num_samples), table.first_slot // ops.ROW_SLOTS
    if not epochs.settings.lengths.is_dynamic:
        # Plans follow each other inside an iteration: a loader's thread may make the next one before the state is written.
        state["marks"] = shared_tensor(table.row_marks.clone(), BYTES_PER_ROW * first_row, BYTES_PER_ROW * rows, ranks)
    state["row_checks"] = shared_tensor(_row_checks(table), CHECK_BYTES * first_row, CHECK_BYTES * rows, ranks)
    return sealed(state)


def _row_checks(table: ScoreTable) -> torch.Tensor:
    return row_checks(table.scores, table.row_marks, table.protect, table.first_slot // ops.ROW_SLOTS)


def _pack_unchecked(epochs: Epochs) -> dict[str, Any]:
    epoch, scored, saved = epochs.to_save()
    table, settings, ranks = epochs.table, epochs.settings, epochs.table.ranks
    levels = list(reversed(saved.thresholds)) if saved else []
    rows, first_row = rows_of(table.num_samples), table.first_slot // ops.ROW_SLOTS
    state = epochs.more_state() | {
        "format": FORMAT if table.protect is None else FORMAT_WITH_PROTECTED,
        "algorithm": ops.ALGORITHM_VERSION,
        "num_samples": table.num_samples,
        "seed": settings.seed,
        "shuffle": settings.shuffle,
        "shard": settings.shard,
        "epoch": epoch,
        "scored": scored * ranks.num_replicas,
        "planned_samples": epochs.planned_samples,
        "planned_kept": epochs.planned_kept,
        "planned": saved is not None,
        "pruned": saved.pruned if saved else False,
        "seen": saved.seen if saved else 0,
        "cutoffs": torch.tensor(saved.cutoffs if saved else (ops.CUTOFF_RANGE,) * 4, dtype=torch.int64, device="cpu"),
        "thresholds": torch.tensor(levels + [NEVER] * (ops.MAX_THRESHOLDS - len(levels)), dtype=torch.float32, device="cpu"),
        "scores": shared_tensor(table.scores, table.first_slot, table.num_samples, ranks),
        "marks": shared_tensor(table.row_marks, BYTES_PER_ROW * first_row, BYTES_PER_ROW * rows, ranks),
    }
    if table.protect is not None:  # a copy, so that a state which is read into it and then refused leaves the pruner's own
        state["protected"] = shared_tensor(table.protect.clone(), first_row, rows, ranks)
    return state


def gather_state(epochs: Epochs) -> dict[str, Any]:
    """A state for savers that write a single file: a copy on the CPU, whole on the first rank, empty on the others.

    A collective call. It loads on any number of ranks, each of which reads all of it: 4.75 bytes a sample of the data set.
    """
    with epochs.table.ranks.waiting_for("the state of all ranks for one file"):
        return _gather_state(epochs)


def _gather_state(epochs: Epochs) -> dict[str, Any]:
    state, table, ranks = _pack_unchecked(epochs), epochs.table, epochs.table.ranks
    shards = [Ranks(ranks.num_replicas, rank).shard(table.num_samples)[1] for rank in range(ranks.num_replicas)]
    state["scores"] = ranks.collect(table.scores, shards)
    state["marks"] = ranks.collect(table.row_marks, [BYTES_PER_ROW * rows_of(size) for size in shards])
    if table.protect is not None:
        state["protected"] = ranks.collect(table.protect, [rows_of(size) for size in shards])
    state["row_checks"] = ranks.collect(_row_checks(table), [CHECK_BYTES * rows_of(size) for size in shards])
    return sealed(state) if ranks.rank == 0 else {}


def unpack_state(epochs: Epochs, state: dict[str, Any]) -> None:
    """Checks all of ``state``, then takes it over.

    Raises:
        ValueError: It does not fit; the pruner stays as it was. If the state was already read into the live tables, as
            ``torch.distributed.checkpoint`` does, the tables are emptied instead.
    """
    table = epochs.table
    try:
        scores, marks, protected = _check(epochs, state)
    except ValueError:
        if not table.is_its_own() and isinstance(state, dict) and _is_live(state.get("scores"), table):
            with epochs.planner.writing():
                table.clear()
            epochs.begin_anew()
        raise
    c0, c1, c2, c3 = state["cutoffs"].tolist()
    with epochs.planner.writing():
        table.scores.copy_(scores)
        for piece in _pieces(table.scores):
            # One NaN only: the GPU claims slots by others, and one with its sign set would be below any threshold on the CPU.
            piece.masked_fill_(piece.isnan(), math.nan)
        table.row_marks.copy_(marks)
        ops.set_tiers(table.tiers, (c0, c1, c2, c3))
        table.take_note()
    if protected is not None:
        table.protect = protected.to(table.device, copy=True)
    table.faults.zero_()
    saved = None
    if state["planned"]:
        thresholds = tuple(level for level in reversed(state["thresholds"].tolist()) if level > NEVER)
        saved = SavedPlan(state["pruned"], (c0, c1, c2, c3), thresholds, state["seen"])
    planned = state["planned_samples"], state["planned_kept"]
    epochs.load(state["epoch"], state["scored"] // table.ranks.num_replicas, planned, saved)
    epochs.load_more(state)


def _pieces(values: torch.Tensor) -> Iterator[torch.Tensor]:
    return (values[first : first + PIECE] for first in range(0, values.numel(), PIECE))


def _is_live(value: Any, table: ScoreTable) -> bool:
    """Whether ``value`` is the memory of the table's own scores."""
    if not isinstance(value, torch.Tensor):
        return False
    if is_sharded(value) or oddity("state['scores']", value) is None:
        part = local_part(value, table.first_slot, table.num_slots, table.num_samples)
        return part is not None and part.numel() > 0 and part.data_ptr() == table.scores.data_ptr()
    return False


def _is_readable(name: str, value: Any) -> bool:
    """Whether ``value`` is a tensor. A tensor whose numbers do not lie in memory is refused."""
    if not isinstance(value, torch.Tensor):
        return False
    found = None if is_sharded(value) else oddity(name, value)
    if found is not None:
        raise ValueError(f"{name} must be a plain tensor, got {found}")
    return True


def _check(epochs: Epochs, state: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """This rank's parts of the scores, the marks and the protected bits in ``state``, if all of it fits."""
    expected, table, more = _pack_unchecked(epochs) | {"row_checks": None, "number_check": 0}, epochs.table, epochs.more_names
    if isinstance(state, dict) and more.isdisjoint(state):  # the run had epochs as long as their plans
        expected = {name: value for name, value in expected.items() if name not in more}
    expected.pop("protected", None)
    check_version(state, expected["format"])
    if not isinstance(state, dict) or not expected.keys() <= state.keys():
        missing = sorted(expected.keys() - state.keys()) if isinstance(state, dict) else f"all, as it is a {type(state).__name__}"
        raise ValueError(
            f"state must be what InfoBatch.state_dict() returned; missing: {missing}. Read a file by torch.load, and pass the "
            "entry that holds the pruner's state"
        )
    for name, value in expected.items():
        if not isinstance(value, torch.Tensor | None) and type(state[name]) is not type(value):
            raise ValueError(f"state[{name!r}] must be of type {type(value).__name__}, got {state[name]!r}")
    protects = state["format"] == FORMAT_WITH_PROTECTED
    if protects and "protected" not in state:
        raise ValueError(
            f"state has format={FORMAT_WITH_PROTECTED}, which holds protected samples, but no 'protected': construct InfoBatch "
            "with protect=[] to load it by torch.distributed.checkpoint"
        )
    if protects:
        expected["format"] = FORMAT_WITH_PROTECTED
    elif table.protect is not None:
        expected["format"] = FORMAT  # a run that protected nothing; the pruner's own stay
    for name, remedy in _FITS.items():
        if state[name] != expected[name]:
            raise ValueError(f"state has {name}={state[name]!r}, this pruner {expected[name]!r}: {remedy}")
    for name in _COUNTS:
        check_int(f"state[{name!r}]", state[name], 0, LAST_EPOCH if name == "epoch" else None)
    if more <= expected.keys():
        epochs.check_more(state)
    if state["planned"] and state["planned_samples"] < table.num_samples:
        raise ValueError(
            f"state['planned_samples'] must be at least {table.num_samples} under a plan, got {state['planned_samples']}: the "
            "checkpoint is damaged, load another one"
        )
    return _read_parts(table, state, protects)


def _read_parts(table: ScoreTable, state: dict[str, Any], protects: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """This rank's parts of the tensors."""
    rows, row = rows_of(table.num_slots), table.first_slot // ops.ROW_SLOTS
    parts: dict[str, torch.Tensor] = {}
    for name, dtype, first, length, total in (
        ("scores", torch.float32, table.first_slot, table.num_slots, table.num_samples),
        ("marks", torch.uint8, BYTES_PER_ROW * row, BYTES_PER_ROW * rows, BYTES_PER_ROW * rows_of(table.num_samples)),
        ("cutoffs", torch.int64, 0, 4, 4),
        ("thresholds", torch.float32, 0, ops.MAX_THRESHOLDS, ops.MAX_THRESHOLDS),
        *([("protected", torch.uint8, row, rows, rows_of(table.num_samples))] if protects else []),
        ("row_checks", torch.uint8, CHECK_BYTES * row, CHECK_BYTES * rows, CHECK_BYTES * rows_of(table.num_samples)),
    ):
        value = state[name]
        part = local_part(value, first, length, total) if _is_readable(f"state[{name!r}]", value) else None
        if part is None or part.dtype != dtype:
            got = f"{value.dtype} {list(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)
            raise ValueError(f"state[{name!r}] must be a tensor of {dtype} [{total}], got {got}")
        parts[name] = part
    _check_values(parts, table.num_slots)
    check_damage(state, parts["scores"], parts["marks"], parts.get("protected"), parts["row_checks"], row)
    return parts["scores"], parts["marks"], parts.get("protected")


def _check_values(parts: dict[str, torch.Tensor], num_slots: int) -> None:
    if not all(1 <= cutoff <= ops.CUTOFF_RANGE for cutoff in parts["cutoffs"].tolist()):
        raise ValueError(
            f"state['cutoffs'] must be in [1, {ops.CUTOFF_RANGE}], got {parts['cutoffs'].tolist()}: the checkpoint is damaged, "
            "load another one"
        )
    for name, impossible in (("scores", torch.isinf), ("thresholds", torch.isnan)):
        if any(bool(impossible(piece).any()) for piece in _pieces(parts[name])):
            raise ValueError(f"state[{name!r}] holds impossible values: the checkpoint is damaged, load another one")
    beyond = parts["marks"][num_slots // 2 :].tolist()  # a byte marks two slots
    if num_slots % 2:
        beyond[0] >>= 4
    if any(beyond):
        raise ValueError("state['marks'] marks samples that do not exist: the checkpoint is damaged, load another one")
    if "protected" in parts and num_slots % ops.ROW_SLOTS and int(parts["protected"][-1]) >> num_slots % ops.ROW_SLOTS:
        raise ValueError("state['protected'] protects samples that do not exist: the checkpoint is damaged, load another one")
