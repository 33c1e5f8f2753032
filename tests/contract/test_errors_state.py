"""A checkpoint that does not fit is refused whole: the pruner goes on as if it had never seen it."""

import math
from itertools import islice
from typing import Any

import pytest
import torch

from infobatch_fast import InfoBatch
from support.refusals import in_mid_epoch, raises
from support.restarts import sealed
from support.runs import decisions, snapshot, train


@pytest.fixture
def pruner(device: torch.device) -> InfoBatch:
    return in_mid_epoch(device)


WRONG: dict[str, list[Any]] = {
    "format": [0, 1, 2, 4, "3", None, True],
    "algorithm": [0, 99, "1", None],
    "num_samples": [9, 11, 10.0, None],
    "seed": [1, "0", None, torch.zeros(3)],
    "shuffle": [False, 1, None],
    "epoch": [-1, 1.0, "1", None, 2**32],
    "scored": [-1, 1.0, None],
    "planned_samples": [-1, 1.0, None],
    "planned_kept": [-1, 1.0, None],
    "planned": [1, None, "yes"],
    "pruned": [1, None],
    "seen": [-1, 1.0, None],
    "cutoffs": [None, [65536] * 4, torch.ones(3, dtype=torch.int64), torch.ones(4), torch.zeros(4, dtype=torch.int64)],
    "thresholds": [None, [0.5], torch.zeros(2), torch.zeros(3, dtype=torch.float64), torch.full((3,), math.nan)],
    "scores": [
        None,
        [0.0] * 10,
        torch.zeros(9),
        torch.zeros(11),
        torch.zeros(10, 1),
        torch.zeros(10).double(),
        torch.full((10,), math.inf),
    ],
    "marks": [
        None,
        torch.zeros(7, dtype=torch.uint8),
        torch.zeros(9, dtype=torch.uint8),
        torch.zeros(8),
        torch.full((8,), 255, dtype=torch.uint8),
    ],
    "row_checks": [None, 0, torch.zeros(3, dtype=torch.uint8), torch.zeros(4), torch.zeros(4, dtype=torch.uint8)],
    "number_check": [None, 0, "0", True],
}
CHANGES = [(name, value) for name, values in WRONG.items() for value in values]


def copied(pruner: InfoBatch) -> dict[str, Any]:
    return {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in pruner.state_dict().items()}


def assert_refused(pruner: InfoBatch, state: Any, *parts: str) -> None:
    """``state`` is refused whole: the pruner, which has a plan, goes on as its twin that never saw it does."""
    before, expected = snapshot(pruner), decisions(pruner)
    position = pruner.sampler.state_dict()
    with raises(ValueError, *parts):
        pruner.load_state_dict(state)
    assert snapshot(pruner) == before
    assert decisions(pruner) == expected
    assert pruner.sampler.state_dict() == position
    twin = in_mid_epoch(pruner.device)
    for _ in range(2):
        assert train(pruner) == train(twin)
    pruner.set_epoch(1)  # not ignored: nothing was loaded
    assert pruner.epoch == 1


def test_the_state_that_the_refused_ones_are_made_from_is_taken(device: torch.device, pruner: InfoBatch) -> None:
    fresh = InfoBatch(10, 10, delta=1.0, device=device)
    fresh.load_state_dict(copied(pruner))
    assert snapshot(fresh) == snapshot(pruner)
    assert set(WRONG) <= set(pruner.state_dict())


@pytest.mark.parametrize(("name", "value"), CHANGES, ids=lambda x: str(x).replace("\n", "")[:40])
def test_a_state_with_a_wrong_value_is_refused_whole(pruner: InfoBatch, name: str, value: Any) -> None:
    assert_refused(pruner, copied(pruner) | {name: value}, "state", name)


@pytest.mark.parametrize("name", WRONG)
def test_a_state_that_lacks_a_field_is_refused_whole(pruner: InfoBatch, name: str) -> None:
    state = copied(pruner)
    del state[name]
    assert_refused(pruner, state, "state must be what InfoBatch.state_dict() returned; missing:", name)


@pytest.mark.parametrize("state", [None, [], "x", {}], ids=repr)
def test_what_is_no_state_is_refused(pruner: InfoBatch, state: Any) -> None:
    assert_refused(pruner, state, "state must be what InfoBatch.state_dict() returned", "Read a file by torch.load")


@pytest.mark.parametrize(
    ("difference", "other"),
    [("num_samples=11", {"data_source": 11}), ("seed=7", {"seed": 7}), ("shuffle=False", {"shuffle": False})],
)
def test_the_state_of_another_run_is_refused(pruner: InfoBatch, difference: str, other: dict[str, Any]) -> None:
    state = InfoBatch(**{"data_source": 10, "num_epochs": 10, **other}).state_dict()
    assert_refused(pruner, state, "state has", difference, "this pruner")


def test_marks_of_samples_that_do_not_exist_are_refused(device: torch.device) -> None:
    for size in (7, 8, 9, 10):
        pruner = InfoBatch(size, 10, device=device)
        len(pruner.sampler)
        slots = 8 * len(pruner.state_dict()["marks"]) // 4
        for slot in range(slots):
            state = copied(pruner)
            state["marks"][slot // 2] |= 2 << 4 * (slot % 2)  # visited
            if slot < size:
                InfoBatch(size, 10, device=device).load_state_dict(sealed(state))
            else:
                before = snapshot(pruner)
                with raises(ValueError, "state['marks'] marks samples that do not exist"):
                    pruner.load_state_dict(state)
                assert snapshot(pruner) == before


@pytest.mark.parametrize("lengths", [{}, {"steps_per_epoch": 4, "batch_size": 2}], ids=["dynamic", "constant"])
def test_a_state_that_was_read_into_the_live_tables_and_is_refused_leaves_a_pruner_as_new(
    device: torch.device, lengths: dict[str, Any]
) -> None:
    pruner, new = (InfoBatch(40, 5, device=device, **lengths) for _ in range(2))
    for batch in islice(pruner.sampler.batches(2), 3):
        pruner.update(batch, torch.ones(2, device=device))
    assert pruner.progress > 0
    state = pruner.state_dict()
    for name in ("scores", "marks"):
        state[name].copy_(state[name].clone())  # as torch.distributed.checkpoint loads
    with raises(ValueError, "state has seed=9"):
        pruner.load_state_dict(state | {"seed": 9})
    assert pruner.scores().isnan().all()
    assert (pruner.epoch, pruner.progress) == (0, 0.0)
    assert list(pruner.sampler) == list(new.sampler)
    for batch in islice(pruner.sampler.batches(2), 3):
        pruner.update(batch, torch.ones(2, device=device))
    pruner.set_epoch(1)
    pruner.set_epoch(0)
    assert pruner.stats.saved_fraction == new.stats.saved_fraction
    if not lengths:
        assert pruner.epoch == 0, "not ignored: nothing was loaded"


@pytest.mark.parametrize("lengths", [{}, {"steps_per_epoch": 4, "batch_size": 8}], ids=["dynamic", "constant"])
def test_a_state_of_live_tables_that_nothing_was_read_into_is_refused_whole(device: torch.device, lengths: dict[str, Any]) -> None:
    pruner, twin = (InfoBatch(40, 5, delta=1.0, device=device, **lengths) for _ in range(2))
    for epoch in range(3):
        for each in (pruner, twin):
            each.set_epoch(epoch)
            for batch in islice(each.sampler.batches(8), 3):
                each.update(batch, torch.tensor(batch, device=device) / 7.0)
        before = snapshot(pruner)
        with raises(ValueError, "state has seed=9"):
            pruner.load_state_dict(pruner.state_dict() | {"seed": 9})
        assert snapshot(pruner) == before
        assert decisions(pruner) == decisions(twin)
    assert pruner.stats.saved_fraction == twin.stats.saved_fraction
    assert train(pruner) == train(twin)


def test_so_it_is_after_a_state_was_loaded_or_the_data_set_has_grown(device: torch.device) -> None:
    pruner = InfoBatch(40, 5, delta=1.0, device=device)
    pruner.update(list(range(40)), torch.arange(40.0, device=device))
    pruner.load_state_dict(copied(pruner))
    pruner.set_epoch(1)
    for size in (40, 50):
        pruner.grow(size)
        before = snapshot(pruner)
        with raises(ValueError, "state has seed=9"):
            pruner.load_state_dict(pruner.state_dict() | {"seed": 9})
        assert snapshot(pruner) == before


def test_a_pruner_that_was_made_in_inference_mode_refuses_a_state_as_well(device: torch.device) -> None:
    with torch.inference_mode():
        pruner = InfoBatch(40, 5, device=device)
        with raises(ValueError, "state has seed=9"):
            pruner.load_state_dict(pruner.state_dict() | {"seed": 9})
