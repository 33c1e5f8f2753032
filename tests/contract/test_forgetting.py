"""Forgetting events, counted once more by a loop in plain Python."""

import copy
import doctest
import math
import random
from itertools import pairwise
from typing import Any

import pytest
import torch

from infobatch_fast.selection import ForgettingEvents, forgetting, select
from support.refusals import INTS, raises
from support.syncs import no_host_sync

SIZE = 23


class ByHand:
    """What each sample was at each of its visits."""

    def __init__(self) -> None:
        self.visits: list[list[bool]] = [[] for _ in range(SIZE)]

    def update(self, index: list[int], correct: list[bool]) -> None:
        for sample, right in dict(zip(index, correct, strict=True)).items():  # a dict keeps the last one
            self.visits[sample].append(right)

    def counts(self) -> list[int]:
        return [sum(before and not after for before, after in pairwise(row)) for row in self.visits]

    def scores(self) -> list[float]:
        counts = self.counts()
        return [
            (count if any(row) else max(counts) + 1) if row else math.nan for count, row in zip(counts, self.visits, strict=True)
        ]


def play(events: ForgettingEvents, seed: int, steps: int = 60, by_hand: ByHand | None = None) -> ByHand:
    """Random batches, in which samples occur several times; the last three samples never occur, and three are never right."""
    draw, by_hand = random.Random(seed), by_hand or ByHand()
    for _ in range(steps):
        index = draw.choices(range(SIZE - 3), k=draw.choice([0, 1, 7, 40]))
        correct = [sample > 2 and draw.random() < 0.7 for sample in index]
        by_hand.update(index, correct)
        events.update(index, torch.tensor(correct, dtype=torch.bool, device=events.device))
    return by_hand


def bits(events: ForgettingEvents) -> dict[str, list[int]]:
    return {name: value.tolist() for name, value in events.state_dict().items()}


def test_the_example_of_the_docstring_is_real() -> None:
    found = doctest.testmod(forgetting)
    assert (found.failed, found.attempted) == (0, 5)


@pytest.mark.parametrize("seed", range(8))
def test_events_are_those_of_a_loop_over_the_visits(device: torch.device, seed: int) -> None:
    events = ForgettingEvents(SIZE, device)
    by_hand = play(events, seed)
    assert events.counts.dtype == torch.int32
    assert events.counts.tolist() == by_hand.counts()
    assert events.never_learned.tolist() == [bool(row) and not any(row) for row in by_hand.visits]
    assert events.scores().dtype == torch.float32
    assert events.scores().tolist() == pytest.approx(by_hand.scores(), nan_ok=True)
    assert events.counts.device == events.scores().device == events.device


def test_samples_that_were_never_right_rank_above_all() -> None:
    events = ForgettingEvents(3)
    for right in (True, False, True, False):
        events.update([0, 1, 2], torch.tensor([right, False, True]))
    assert events.scores().tolist() == [2.0, 3.0, 0.0]
    assert select(events.scores(), 1 / 3).tolist() == [1]
    assert select(events.scores(), 1 / 3, "easiest").tolist() == [2]


def test_samples_that_were_never_visited_are_refused_by_select() -> None:
    events = ForgettingEvents(3)
    events.update([0, 2], torch.tensor([True, False]))
    with raises(ValueError, "scores holds NaN for 1 of 3 samples, the first of them 1"):
        select(events.scores(), 0.5)


def test_what_is_handed_out_is_a_copy(device: torch.device) -> None:
    events = ForgettingEvents(SIZE, device)
    play(events, 0)
    before = bits(events)
    events.counts.zero_()
    events.scores().zero_()
    events.never_learned.zero_()
    for value in events.state_dict().values():
        value.zero_()
    assert bits(events) == before


@pytest.mark.parametrize("cut", [0, 1, 30])
def test_a_restart_goes_on_where_the_state_was_taken(device: torch.device, cut: int) -> None:
    events, resumed = ForgettingEvents(SIZE, device), ForgettingEvents(SIZE, device)
    by_hand = play(events, 1, cut)
    play(resumed, 2, 3)
    resumed.load_state_dict({name: value.cpu() for name, value in copy.deepcopy(events.state_dict()).items()})
    play(resumed, 3, by_hand=by_hand)
    assert resumed.counts.tolist() == by_hand.counts()
    assert resumed.scores().tolist() == pytest.approx(by_hand.scores(), nan_ok=True)


def test_a_single_process_gathers_its_own(device: torch.device) -> None:
    events = ForgettingEvents(SIZE, device)
    play(events, 4)
    whole = events.gather()
    assert bits(whole) == bits(events)
    play(whole, 5)
    assert bits(whole) != bits(events)


def test_ids_out_of_range_are_refused_and_nothing_is_noted() -> None:
    events = ForgettingEvents(SIZE)
    play(events, 6)
    before = bits(events)
    for index in ([0, SIZE], [-1, 3]):
        with raises(IndexError, f"index must be in [0, {SIZE}), got {min(index)} to {max(index)}", "with_index(dataset)"):
            events.update(index, torch.tensor([False, False]))
    assert bits(events) == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_they_are_left_out_and_raised_once_where_the_host_reads() -> None:
    events, clean = ForgettingEvents(SIZE, "cuda"), ForgettingEvents(SIZE, "cuda")
    for right in (True, False):
        events.update([0, SIZE, -1, 2], torch.tensor([right] * 4, device="cuda"))
        clean.update([0, 2], torch.tensor([right] * 2, device="cuda"))
    with raises(IndexError, f"index must be in [0, {SIZE}), got 4 that are not, which were left out"):
        _ = events.counts
    assert bits(events) == bits(clean)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_update_waits_for_nothing() -> None:
    events = ForgettingEvents(SIZE, "cuda")
    index, correct = torch.tensor([1, 5, 1], device="cuda"), torch.tensor([True, False, False], device="cuda")
    events.update(index, correct)
    with no_host_sync():
        events.update(index, correct)


def test_events_that_were_made_in_inference_mode_count_outside_of_it(device: torch.device) -> None:
    with torch.inference_mode():
        events = ForgettingEvents(2, device)
    for right in (True, False):
        events.update([1], torch.tensor([right], device=device))
    assert events.counts.tolist() == [0, 1]


EVENTS = ForgettingEvents(4)
BOOLS = torch.tensor([True, False])
GOOD: dict[str, Any] = EVENTS.state_dict()
WRONG: list[tuple[Any, type[Exception], str]] = [
    *((lambda v=value: ForgettingEvents(v), kind, "num_samples must be an int") for value, kind in INTS),
    (lambda: ForgettingEvents(0), ValueError, "num_samples must be in [1, 2147483648], got 0"),
    (lambda: ForgettingEvents(4, "tpu"), ValueError, "device must be 'cpu' or 'cuda', got 'tpu'"),
    (lambda: EVENTS.update([0, 1], [True, False]), TypeError, "correct must be a bool tensor, got list"),  # type: ignore[arg-type]
    (lambda: EVENTS.update([0, 1], torch.ones(2)), TypeError, "got torch.float32: pass logits.argmax(1) == labels"),
    (lambda: EVENTS.update([0], BOOLS), ValueError, "correct must hold one bool for each of the 1 indices, got shape [2]"),
    (lambda: EVENTS.update([0.5, 1.0], BOOLS), TypeError, "index must be of an integer dtype"),  # type: ignore[list-item]
    (lambda: EVENTS.update([0, 1], BOOLS.to("meta")), TypeError, "correct must be a plain tensor"),
    (lambda: EVENTS.load_state_dict([]), ValueError, "state must be what ForgettingEvents.state_dict() returned"),  # type: ignore[arg-type]
    (lambda: EVENTS.load_state_dict({"counts": GOOD["counts"]}), ValueError, "with ['counts', 'status'], got ['counts']"),
    (
        lambda: EVENTS.load_state_dict(ForgettingEvents(5).state_dict()),
        ValueError,
        "state['counts'] has 5 samples, but num_samples is 4: construct ForgettingEvents(5)",
    ),
    (lambda: EVENTS.load_state_dict({**GOOD, "status": GOOD["status"][:3]}), ValueError, "state['status'] has 3 samples"),
    (lambda: EVENTS.load_state_dict({**GOOD, "status": GOOD["counts"]}), ValueError, "must be a tensor torch.int8 [N]"),
    (lambda: EVENTS.load_state_dict({**GOOD, "status": GOOD["status"] + 4}), ValueError, "sample 0 has 0 events and status 3"),
    (lambda: EVENTS.load_state_dict({**GOOD, "status": GOOD["status"] + 3}), ValueError, "sample 0 has 0 events and status 2"),
    (lambda: EVENTS.load_state_dict({**GOOD, "counts": GOOD["counts"] + 1}), ValueError, "sample 0 has 1 events and status -1"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[f"{n} {message}" for n, (_, _, message) in enumerate(WRONG)])
def test_wrong_input_is_named_and_changes_nothing(call: Any, error: type[Exception], message: str) -> None:
    with raises(error, message):
        call()
    assert bits(EVENTS) == {"counts": [0] * 4, "status": [-1] * 4}
