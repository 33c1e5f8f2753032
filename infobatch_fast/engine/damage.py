"""Notices damaged checkpoints: by checks that are saved with them, and by values that no plan can have.

Each row of eight slots has its own check. Ranks own whole rows, so each rank writes and compares the checks of its own part. Any
number of ranks can compare what any other number of ranks has saved.
"""

from __future__ import annotations

import math
from hashlib import sha256
from typing import Any

import torch

from . import ops
from .marks import BYTES_PER_ROW, KEPT, TIER_SHIFT

# A row's bits are one large number, and its check is that number modulo a prime for which 2 is a primitive root: powers of two
# differ then, as far as a row has bits, so one or two flipped bits always change the check. Other damage to a row goes unnoticed
# once in 65,371 times.
PRIME = 65371
CHECK_BYTES = 2
WORDS = (32,) * ops.ROW_SLOTS, (8,) * BYTES_PER_ROW, (8,)  # bits of the scores, the marks and the protected bits of a row
PIECE = 1 << 17  # rows looked at in one go, as torch makes temporary copies of them

NUMBERS = (  # the same on all ranks; not "scored", which each rank counts by itself
    *("format", "algorithm", "num_samples", "seed", "shuffle", "shard"),
    *("epoch", "planned_samples", "planned_kept", "planned", "pruned", "seen", "cutoffs", "thresholds"),
)
FORMATS_WITHOUT_CHECKS = (1, 2)
LOST = "the checkpoint is damaged, or the pruner went on between state_dict() and saving: load another checkpoint"


def row_checks(scores: torch.Tensor, marks: torch.Tensor, protect: torch.Tensor | None, first_row: int) -> torch.Tensor:
    """The checks of rows: uint8 [CHECK_BYTES * rows], on the device of ``scores``, for which the host does not wait.

    Args:
        scores: float32 [n], by slot.
        marks: uint8 [BYTES_PER_ROW * rows].
        protect: uint8 [rows]; None counts as zeros.
        first_row: Number of the first row; a check tells rows apart.
    """
    of_scores, of_marks, of_protect, of_number = _powers(scores.device)
    rows = marks.numel() // BYTES_PER_ROW
    checks = torch.empty(rows, dtype=torch.int16, device=scores.device)
    for first in range(0, rows, PIECE):
        last = min(first + PIECE, rows)
        words = scores[first * ops.ROW_SLOTS : last * ops.ROW_SLOTS].contiguous().view(torch.int32)
        if words.numel() < (last - first) * ops.ROW_SLOTS:  # the last row may be cut
            words = torch.nn.functional.pad(words, (0, (last - first) * ops.ROW_SLOTS - words.numel()))
        total = (words.view(-1, ops.ROW_SLOTS) * of_scores).sum(1)
        total += (marks[first * BYTES_PER_ROW : last * BYTES_PER_ROW].reshape(-1, BYTES_PER_ROW) * of_marks).sum(1)
        if protect is not None:
            total += protect[first:last] * of_protect
        numbers = torch.arange(first_row + first, first_row + last, dtype=torch.int64, device=scores.device)
        total += numbers.remainder(PRIME) * of_number
        checks[first:last] = total.remainder(PRIME) - (1 << 15)  # int16 holds it
    return checks.view(torch.uint8)


def _powers(device: torch.device) -> tuple[torch.Tensor, ...]:
    """Factors of a row's words and of its number: int64, filled by kernels, as the host would wait for a copy.

    No sum of products leaves int64: 8 * 2^31 * PRIME < 2^51.
    """
    bit, powers = 0, []
    for bits in (*WORDS, (0,)):
        part = torch.empty(len(bits), dtype=torch.int64, device=device)
        for place, width in enumerate(bits):
            part[place].fill_(pow(2, bit, PRIME))
            bit += width
        powers.append(part)
    return tuple(powers)


def number_check(state: dict[str, Any]) -> int:
    """A check of the numbers that all ranks share."""
    text = repr([state[name].tolist() if isinstance(state[name], torch.Tensor) else state[name] for name in NUMBERS])
    return int.from_bytes(sha256(text.encode()).digest()[:7], "big")


def sealed(state: dict[str, Any]) -> dict[str, Any]:
    """A state with the check of its numbers.

    The end of an epoch is noted by repeating that check: a flipped bit cannot fake it, and ranks that do not agree on the end still
    agree on all that is checked.
    """
    check = number_check(state)
    return state | {"number_check": check} | ({"is_over": check} if state.get("is_over") else {})


def check_version(state: Any, current: int) -> None:
    """Refuses a state that was written before there were checks.

    Raises:
        ValueError: The state is such a one; the message names its version.
    """
    found = state.get("format") if isinstance(state, dict) else None
    if type(found) is int and found in FORMATS_WITHOUT_CHECKS:
        raise ValueError(
            f"state has format={found}, this pruner {current}: an older version of infobatch_fast wrote it, whose states have no "
            "checks against damage; resume with that version, or without the pruner's state"
        )


def check_damage(
    state: dict[str, Any],
    scores: torch.Tensor,
    marks: torch.Tensor,
    protect: torch.Tensor | None,
    checks: torch.Tensor,
    first_row: int,
) -> None:
    """Compares a state, and this rank's parts of its tensors, with the checks in it, and its plan with what a plan can be.

    Raises:
        ValueError: It is damaged.
    """
    found = number_check(state)
    if found != state["number_check"]:
        raise ValueError(f"state['number_check'] is {state['number_check']}, and its numbers make {found}: {LOST}")
    if state.get("is_over", 0) not in (0, found):
        raise ValueError(f"state['is_over'] must be 0 or {found}, got {state['is_over']}: {LOST}")
    here = row_checks(scores, marks.to(scores.device), None if protect is None else protect.to(scores.device), first_row)
    differ = (here != checks.to(scores.device)).view(-1, CHECK_BYTES).any(1)
    if bool(differ.any()):
        bad = differ.nonzero()
        raise ValueError(
            f"state['scores'], state['marks'] or state['protected'] differ from state['row_checks'] in {len(bad)} of {len(differ)} "
            f"rows of eight slots, the first of them row {first_row + int(bad[0])}: {LOST}"
        )
    _check_numbers(state)
    if state["planned"]:
        _check_marks(state, marks, scores.numel())


def _check_numbers(state: dict[str, Any]) -> None:
    levels, cutoffs = state["thresholds"].tolist(), state["cutoffs"].tolist()
    if levels != sorted(levels, reverse=True):
        raise ValueError(f"state['thresholds'] must not ascend, got {levels}: the checkpoint is damaged, load another one")
    if cutoffs[0] != ops.CUTOFF_RANGE:
        raise ValueError(
            f"state['cutoffs'] must begin with {ops.CUTOFF_RANGE}, got {cutoffs}: the checkpoint is damaged, load another one"
        )
    for part, whole in (("seen", "num_samples"), ("planned_kept", "planned_samples")):
        if state[part] > state[whole]:
            raise ValueError(
                f"state[{part!r}] must be at most state[{whole!r}]={state[whole]}, got {state[part]}: the checkpoint is "
                "damaged, load another one"
            )


def _check_marks(state: dict[str, Any], marks: torch.Tensor, num_slots: int) -> None:
    """Checks that slots of the top tier are kept, that each tier has a threshold, and that no more is kept than was planned."""
    tiers = sum(level > -math.inf for level in state["thresholds"].tolist())
    kept = dropped = beyond = torch.zeros((), dtype=torch.int64, device=marks.device)
    for place in (0, 1):  # a byte marks two slots
        for piece in torch.split(marks[: (num_slots + 1 - place) // 2], PIECE * BYTES_PER_ROW):
            mark = piece >> 4 * place & 15
            tier, is_kept = mark >> TIER_SHIFT, mark & KEPT
            kept = kept + is_kept.sum()
            dropped = dropped + ((tier == 0) & (is_kept == 0)).sum()
            beyond = beyond + (tier > tiers).sum()
    for count, what in ((dropped, "leave out samples of the top tier"), (beyond, "name tiers that have no threshold")):
        if int(count):
            raise ValueError(f"state['marks'] {what}, {int(count)} times: the checkpoint is damaged, load another one")
    if int(kept) > state["planned_kept"]:
        raise ValueError(
            f"state['marks'] keep {int(kept)} samples, but state['planned_kept'] is {state['planned_kept']}: "
            "the checkpoint is damaged, load another one"
        )
