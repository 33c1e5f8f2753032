"""Protected samples are never pruned and weigh 1, whatever their score; all else goes on as without them."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from infobatch_fast import InfoBatch
from support.compare import RULES, assert_same_decisions, feed, make_scores, policy_of, seen_of
from support.oracle import Oracle, Rule
from support.ranks import error_of, needs_gloo, own_ids, run_ranks
from support.refusals import raises
from support.restarts import BATCH, restored, run_of, saved
from support.runs import kept_set, loss_of, order, record, record_all, snapshot, train

SIZES = [1, 7, 8, 9, 64, 511, 512, 513, 1025, 33_000]


@pytest.mark.parametrize("name", ["mean", "three tiers", "random", "none", "importance", "importance by score"])
@pytest.mark.parametrize("n", SIZES)
def test_protected_samples_are_in_the_top_tier_as_the_page_says(device: torch.device, n: int, name: str) -> None:
    rule = RULES[name]
    protected = sorted({sample * 7919 % n for sample in range(0, n, 5)} | {n - 1})
    kind: dict[str, Any] = {"seed": n, "shuffle": n % 2 == 0}
    pruner = InfoBatch(n, 9, policy=policy_of(rule), delta=1.0, device=device, protect=protected, **kind)
    oracle = Oracle(n, rule, protected=protected, **kind)
    assert pruner.protected == len(protected)
    seen = seen_of(make_scores("half unseen", n))
    feed(pruner, *seen)
    oracle.update(*seen)
    for epoch in (1, 2):
        pruner.set_epoch(epoch)
        oracle.plan(epoch)
        assert_same_decisions(pruner, oracle)
        assert order(pruner) == oracle.orders()[0]
        assert pruner.weights(protected).tolist() == [1.0] * len(protected)
        assert set(protected) <= set(kept_set(pruner))


def test_ids_and_a_mask_of_the_same_samples_protect_the_same(device: torch.device) -> None:
    ids = [3, 3, 299, 0, 17, 16, 18, 3]
    mask = torch.zeros(300, dtype=torch.bool)
    mask[ids] = True
    forms: list[Any] = [ids, tuple(ids), torch.tensor(ids), torch.tensor(ids, dtype=torch.int32, device=device), np.array(ids)]
    forms += [mask, mask.to(device), mask.tolist(), mask.numpy()]
    pruners = [InfoBatch(300, 10, device=device, protect=form) for form in forms]
    assert all(snapshot(pruner) == snapshot(pruners[0]) for pruner in pruners)
    assert [pruner.protected for pruner in pruners] == [6] * len(forms)


def test_more_ids_than_are_looked_at_in_one_go(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    monkeypatch.setattr("infobatch_fast.engine.protect.PIECE", 16)
    ids = torch.arange(0, 300, 2)
    mask = torch.zeros(300, dtype=torch.bool)
    mask[ids] = True
    for form in (ids.repeat(2), mask):
        pruner = InfoBatch(300, 10, delta=1.0, prune_ratio=0.99, device=device, protect=form)
        assert pruner.protected == 150
        record_all(pruner, [0.0] * 299 + [1.0])
        pruner.set_epoch(1)
        assert set(ids.tolist()) <= set(kept_set(pruner))
        assert len(pruner.sampler) < 170


def test_nothing_is_allocated_or_saved_where_nothing_is_protected(device: torch.device) -> None:
    pruner = InfoBatch(1000, 10, device=device)
    assert pruner.engine.table.protect is None
    assert (pruner.protected, pruner.state_dict()["format"]) == (0, 3)
    assert "protected" not in pruner.state_dict()
    protecting = InfoBatch(1000, 10, device=device, protect=[5])
    assert protecting.engine.table.protect is not None
    assert protecting.engine.table.protect.numel() == 125


def test_scores_of_protected_samples_count_in_the_threshold(device: torch.device) -> None:
    pruner = InfoBatch(4, 9, delta=1.0, device=device, protect=[0])
    record_all(pruner, [0.0, 2.0, 2.0, 4.0])
    pruner.set_epoch(1)
    assert pruner.stats.thresholds == (2.0,)
    assert (pruner.stats.tier_sizes, pruner.stats.kept) == ((4, 0), 4)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([10], IndexError, "protect: 1 ids out of range for 10 samples, for instance 10"),
        ([-1, 3, 11], IndexError, "protect: 2 ids out of range for 10 samples, for instance -1"),
        (torch.zeros(9, dtype=torch.bool), ValueError, "protect is a mask of 9 samples and the data set has 10"),
        (torch.zeros(10), TypeError, "protect must be sample ids of an integer dtype or a bool mask, got torch.float32"),
        ([0.5], TypeError, "protect must be sample ids of an integer dtype or a bool mask, got torch.float32"),
        (torch.zeros(2, 5, dtype=torch.bool), ValueError, "protect must be of one dimension, got shape [2, 5]"),
        (3, ValueError, "protect must be of one dimension, got shape []"),
        ("abc", TypeError, "protect must be sample ids or a bool mask, got 'abc'"),
        ({1, 2}, TypeError, "protect must be sample ids or a bool mask, got {1, 2}"),
    ],
)
def test_wrong_ids_and_masks_are_refused(value: Any, error: type[Exception], message: str) -> None:
    with raises(error, message):
        InfoBatch(10, 9, protect=value)


# ---- checkpoints ----

PROTECTED = [1, 8, 9, 40, 44]


def test_a_run_with_protected_samples_that_is_cut_goes_on_bit_for_bit(device: torch.device) -> None:
    reference, pruner = run_of(device, protect=PROTECTED), run_of(device, protect=PROTECTED)
    for each in (reference, pruner):
        train(each, BATCH)
        each.set_epoch(1)
    visited = train(pruner, BATCH, steps=3)
    again = restored(saved(pruner), device)  # constructed without: the saved ones are taken over
    assert again.protected == len(PROTECTED)
    assert visited + train(again, BATCH) == train(reference, BATCH)
    for each in (again, reference):
        each.set_epoch(2)
        assert set(PROTECTED) <= set(kept_set(each))
    assert snapshot(again) == snapshot(reference)


def test_a_state_without_protected_samples_leaves_the_pruners_own(device: torch.device) -> None:
    pruner = run_of(device)
    train(pruner, BATCH)
    again = restored(saved(pruner), device, protect=PROTECTED)
    assert again.protected == len(PROTECTED)
    again.set_epoch(1)
    assert set(PROTECTED) <= set(kept_set(again))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protected": None}, "state['protected'] must be a tensor of torch.uint8 [6], got None"),
        (
            {"protected": torch.zeros(5, dtype=torch.uint8)},
            "state['protected'] must be a tensor of torch.uint8 [6], got torch.uint8 [5]",
        ),
        ({"protected": torch.full((6,), 255, dtype=torch.uint8)}, "state['protected'] protects samples that do not exist"),
        ({"format": 5}, "state has format=5"),
    ],
)
def test_a_damaged_state_is_refused_whole(device: torch.device, change: dict[str, Any], message: str) -> None:
    pruner = run_of(device, protect=PROTECTED)
    before = snapshot(pruner)
    with raises(ValueError, message):
        pruner.load_state_dict(pruner.state_dict() | change)
    assert snapshot(pruner) == before


def test_a_state_that_lost_its_protected_samples_is_refused(device: torch.device) -> None:
    state = run_of(device, protect=PROTECTED).state_dict()
    del state["protected"]
    with raises(ValueError, "state has format=4", "no 'protected'", "protect=[]"):
        run_of(device).load_state_dict(state)


# ---- ranks ----


def on_ranks(folder: str) -> str:
    n, world, rank, rule = 1030, dist.get_world_size(), dist.get_rank(), Rule("mean", (0.9,))
    protected = list(range(0, n, 3))
    pruner = InfoBatch(n, 9, policy=policy_of(rule), delta=1.0, seed=4, protect=protected)
    oracle = Oracle(n, rule, seed=4, world=world, protected=protected)
    mine = own_ids(pruner)
    assert pruner.protected == sum(sample % 3 == 0 for sample in mine.tolist())
    record(pruner, mine, loss_of(mine))
    oracle.update(range(n), loss_of(torch.arange(n)).tolist())
    for epoch in (1, 2):
        pruner.set_epoch(epoch)
        oracle.plan(epoch)
        assert order(pruner) == oracle.orders()[rank]
    dcp.save({"pruner": pruner}, checkpoint_id=folder)
    again = InfoBatch(n, 9, policy=policy_of(rule), delta=1.0, seed=4, protect=[])
    dcp.load({"pruner": again}, checkpoint_id=folder)
    assert order(again) == order(pruner)
    again.set_epoch(3)
    oracle.plan(3)
    assert order(again) == oracle.orders()[rank]
    without = InfoBatch(n, 9, policy=policy_of(rule), delta=1.0, seed=4)
    return error_of(lambda: dcp.load({"pruner": without}, checkpoint_id=folder))


@pytest.mark.slow
@needs_gloo
def test_each_rank_protects_its_own_samples_and_saves_their_part(tmp_path: Any) -> None:
    for world in (2, 3):
        for message in run_ranks(world, on_ranks, str(tmp_path / str(world))):
            assert "construct InfoBatch with protect=[]" in message


def disagree() -> str:
    pruner = InfoBatch(100, 9, protect=[1] if dist.get_rank() else None)
    return error_of(lambda: len(pruner.sampler))


@needs_gloo
def test_ranks_of_which_only_some_protect_all_fail() -> None:
    for message in run_ranks(2, disagree):
        assert "by rank: {'protect': {0: 'False', 1: 'True'}}" in message
