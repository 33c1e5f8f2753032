"""A damaged checkpoint is refused: each of its tensors has checks, and a plan that cannot be is none."""

import math
import random
from typing import Any

import pytest
import torch

from infobatch_fast import InfoBatch, QuantileTiers
from infobatch_fast.engine.damage import number_check, row_checks
from support.refusals import raises
from support.restarts import BATCH, run_of, sealed
from support.runs import record, snapshot, train

TIERS = {"policy": QuantileTiers((0.3, 0.6), (0.5, 0.5)), "delta": 1.0}


def in_mid_epoch(device: torch.device, **kwargs: Any) -> InfoBatch:
    pruner = run_of(device, **kwargs)
    train(pruner, BATCH)
    pruner.set_epoch(1)
    train(pruner, BATCH, steps=2)
    return pruner


def copied(pruner: InfoBatch) -> dict[str, Any]:
    return {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in pruner.state_dict().items()}


def flip(tensor: torch.Tensor, bits: list[int]) -> None:
    """Flips bits of a tensor, counted from its start, wherever it is."""
    damaged = tensor.cpu().clone()
    for bit in bits:
        damaged.view(torch.uint8)[bit // 8] ^= 1 << bit % 8
    tensor.copy_(damaged)


@pytest.mark.parametrize("kwargs", [{}, TIERS | {"protect": [3, 17, 44]}], ids=["mean", "tiers, protected"])
def test_any_one_to_three_flipped_bits_in_any_tensor_of_a_state_are_noticed(device: torch.device, kwargs: dict[str, Any]) -> None:
    """In all of them: no bit of a state is padding that nobody reads. By chance, three bits of a row pass once in 65,371."""
    draw, pruner = random.Random(20), in_mid_epoch(device, **kwargs)
    names = [name for name, value in copied(pruner).items() if isinstance(value, torch.Tensor)]
    assert {"scores", "marks", "cutoffs", "thresholds", "row_checks"} <= set(names)
    before = snapshot(pruner)
    for count in range(300):
        state, name = copied(pruner), names[count % len(names)]
        bits = draw.sample(range(8 * state[name].nbytes), 1 + count % 3)
        flip(state[name], bits)
        with pytest.raises(ValueError, match="state"):
            pruner.load_state_dict(state)
        assert snapshot(pruner) == before, (name, bits)
    pruner.load_state_dict(copied(pruner))


def test_one_and_two_flipped_bits_of_a_row_are_always_noticed() -> None:
    scores, marks, protect = torch.zeros(8), torch.zeros(4, dtype=torch.uint8), torch.zeros(1, dtype=torch.uint8)

    def check() -> int:
        return int(row_checks(scores, marks, protect, 0).view(torch.int16)) + 2**15

    places, changes = [(part, bit) for part in (scores, marks, protect) for bit in range(8 * part.nbytes)], []
    empty = check()
    for part, bit in places:
        flip(part, [bit])
        changes.append((check() - empty) % 65371)
        flip(part, [bit])
    # Setting a bit adds its change, and clearing it takes it away: two of them make nothing if they are equal or opposite.
    assert len(set(changes) | {-change % 65371 for change in changes}) == 2 * len(places)
    assert 0 not in changes


def test_a_check_tells_rows_apart() -> None:
    rows = row_checks(torch.zeros(40), torch.zeros(20, dtype=torch.uint8), None, 0)
    assert len({tuple(each) for each in rows.view(-1, 2).tolist()}) == 5
    later = row_checks(torch.zeros(16), torch.zeros(8, dtype=torch.uint8), torch.zeros(2, dtype=torch.uint8), 3)
    assert torch.equal(rows[6:], later)


def test_the_checks_are_the_same_on_both_devices_and_those_of_this_row(device: torch.device) -> None:
    scores = torch.tensor([1.0, -2.5, math.nan, 0.0, 3e38])
    marks, protect = torch.tensor([7, 250, 1, 0], dtype=torch.uint8), torch.tensor([18], dtype=torch.uint8)
    found = row_checks(scores.to(device), marks.to(device), protect.to(device), 4)
    as_signed = [*scores.view(torch.int32).tolist(), 0, 0, 0]
    row = sum(word << 32 * place for place, word in enumerate(as_signed))
    row += sum(byte << 256 + 8 * place for place, byte in enumerate([*marks.tolist(), 18])) + (4 << 296)
    assert int(found.view(torch.int16)) == row % 65371 - 2**15


def test_a_state_that_was_held_while_the_pruner_went_on_is_refused_and_says_why(device: torch.device) -> None:
    pruner = in_mid_epoch(device)
    state = pruner.state_dict()
    record(pruner, [40], [9.0])
    with raises(ValueError, "differ from state['row_checks'] in", "rows of eight slots", "the pruner went on between state_dict()"):
        run_of(device).load_state_dict(state)


@pytest.mark.parametrize("name", ["epoch", "planned_samples", "planned_kept", "seen"])
def test_a_number_that_was_changed_is_refused(device: torch.device, name: str) -> None:
    state = copied(in_mid_epoch(device))
    with raises(ValueError, "state['number_check'] is", "the checkpoint is damaged"):
        run_of(device).load_state_dict(state | {name: state[name] + 1})


def test_a_state_of_an_older_version_is_refused_by_that_name(device: torch.device) -> None:
    state = copied(in_mid_epoch(device)) | {"format": 1}
    del state["row_checks"], state["number_check"]
    with raises(ValueError, "state has format=1, this pruner 3", "older version of infobatch_fast", "no checks against damage"):
        run_of(device).load_state_dict(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thresholds": torch.tensor([0.1, 0.5, -math.inf])}, "state['thresholds'] must not ascend"),
        ({"cutoffs": torch.tensor([1, 65536, 65536, 65536])}, "state['cutoffs'] must begin with 65536, got [1, "),
        ({"seen": 46}, "state['seen'] must be at most state['num_samples']=45, got 46"),
        ({"planned_kept": 91}, "state['planned_kept'] must be at most state['planned_samples']=90, got 91"),
        ({"planned_kept": 2}, "samples, but state['planned_kept'] is 2"),
        ({"thresholds": torch.full((3,), -math.inf)}, "state['marks'] name tiers that have no threshold"),
        ({"marks": torch.zeros(24, dtype=torch.uint8)}, "state['marks'] leave out samples of the top tier, 45 times"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_even_if_its_checks_fit(
    device: torch.device, change: dict[str, Any], message: str
) -> None:
    pruner = in_mid_epoch(device, **TIERS)
    before = snapshot(pruner)
    with raises(ValueError, message):
        pruner.load_state_dict(sealed(copied(pruner) | change))
    assert snapshot(pruner) == before


def test_the_check_of_the_numbers_is_one_of_each_of_them(device: torch.device) -> None:
    state = copied(in_mid_epoch(device))
    for name in ("pruned", "planned", "shuffle"):
        assert number_check(state | {name: not state[name]}) != number_check(state)
