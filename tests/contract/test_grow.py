"""Samples that are added between epochs: what was known stays with its sample, and all else is as if N had always been so."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.utils.data import ConcatDataset, DataLoader

from infobatch_fast import InfoBatch, MeanThreshold, with_index
from support.compare import RULES, assert_same_decisions, bits, feed, make_scores, policy_of, seen_of
from support.items import Items
from support.oracle import Oracle
from support.ranks import error_of, flat, needs_gloo, own_ids, run_ranks
from support.refusals import raises
from support.restarts import BATCH, restored, saved
from support.runs import decisions, loss_of, order, record, record_all, snapshot, train

SIZES = [(1, 2), (7, 8), (8, 9), (64, 65), (90, 1023), (513, 514), (1000, 5003)]


def made_with(pruner: InfoBatch, size: int, **kwargs: Any) -> InfoBatch:
    """One that was constructed with the larger size and knows the same."""
    other = InfoBatch(size, 10, delta=1.0, device=pruner.device, **kwargs)
    scores = pruner.scores()
    ids = (~scores.isnan()).nonzero().flatten()
    other.update(ids, scores[ids])
    other.set_epoch(1)
    return other


@pytest.mark.parametrize("kind", [{}, {"shuffle": False}, {"shard": "contiguous"}, {"seed": 9, "drop_last": True}], ids=str)
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_a_grown_pruner_decides_as_one_that_was_made_so(device: torch.device, before: int, after: int, kind: Any) -> None:
    pruner = InfoBatch(before, 10, delta=1.0, device=device, **kind)
    ids, scores = seen_of(make_scores("half unseen", before))
    feed(pruner, ids, scores)
    pruner.set_epoch(1)
    known = pruner.scores()
    pruner.grow(after)
    assert (pruner.num_samples, pruner.data_source) == (after, after)
    assert bits(pruner.scores().tolist()) == bits([*known.tolist(), *[float("nan")] * (after - before)])
    other = made_with(pruner, after, **kind)
    for epoch in range(1, 4):
        for each in (pruner, other):
            each.set_epoch(epoch)
        assert order(pruner) == order(other)
        assert torch.equal(pruner.weights(range(after)), other.weights(range(after)))
        assert set(range(before, after)) <= set(order(pruner)) or epoch > 1  # unseen, so kept
        assert train(pruner) == train(other)


def test_tables_of_many_pieces_move_as_those_of_one(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    for piece in (1 << 20, 512):
        monkeypatch.setattr("infobatch_fast.engine.growth.PIECE", piece)
        pruner = InfoBatch(3001, 10, delta=1.0, device=device, protect=range(0, 3001, 7))
        record_all(pruner)
        pruner.set_epoch(1)
        pruner.grow(4000)
        assert pruner.protected == len(range(0, 3001, 7))
        states.append((snapshot(pruner), order(pruner)))
    assert states[0] == states[1]


@pytest.mark.parametrize("name", ["mean, momentum", "two tiers"])
def test_growth_epoch_after_epoch_follows_the_oracle(device: torch.device, name: str) -> None:
    rule, protected = RULES[name], [0, 5, 6, 28]
    pruner = InfoBatch(30, 10, policy=policy_of(rule), delta=1.0, device=device, protect=protected)
    oracle = Oracle(30, rule, protected=protected)
    for epoch, size in enumerate((30, 31, 100, 1030, 1031)):
        pruner.grow(size)
        if size > oracle.n:
            oracle.grow(size)
        oracle.plan(epoch)
        assert_same_decisions(pruner, oracle)
        expected = oracle.orders()[0]
        assert train(pruner) == expected  # the epoch moves on by itself
        oracle.update(expected, loss_of(torch.tensor(expected), epoch).tolist())
        assert pruner.epoch == epoch


def test_a_data_set_that_was_added_to_is_trained_on_by_its_loader(device: torch.device) -> None:
    items = Items(20)
    pruner = InfoBatch(items, 10, delta=1.0, device=device)
    loader = DataLoader(with_index(items), batch_size=4, sampler=pruner.sampler)
    visited: list[list[int]] = []
    for epoch in range(3):
        pruner.set_epoch(epoch)
        visited.append([])
        for index, item in loader:
            pruner.update(index, item[:, 0].to(device))
            visited[-1] += index.tolist()
        items.size += 5
        pruner.grow()
    assert sorted(visited[0]) == list(range(20))
    assert set(range(20, 25)) <= set(visited[1]) <= set(range(25))
    assert set(range(25, 30)) <= set(visited[2]) <= set(range(30))
    assert len(visited[2]) < 30
    seen = sorted(set().union(*visited))
    assert pruner.scores(seen).tolist() == [100.0 + sample for sample in seen]
    assert pruner.epoch == 3


def test_a_data_set_may_take_the_place_of_the_old_one(device: torch.device) -> None:
    pruner = InfoBatch(Items(20), 10, device=device)
    both = ConcatDataset([Items(20), Items(7)])
    pruner.grow(both)
    assert (pruner.num_samples, pruner.data_source, pruner.sampler.dataset) == (27, both, both)
    assert sorted(order(pruner)) == list(range(27))


def test_new_samples_may_be_protected(device: torch.device) -> None:
    pruner = InfoBatch(20, 10, prune_ratio=0.99, delta=1.0, device=device)
    pruner.grow(40, protect=[3, *range(30, 40)])
    assert pruner.protected == 11
    record_all(pruner, [0.0] * 39 + [1.0])
    pruner.set_epoch(1)
    assert {3, *range(30, 40)} <= set(order(pruner))
    pruner.set_epoch(2)
    pruner.grow(40, protect=torch.arange(40) < 5)
    assert pruner.protected == 15
    assert {*range(5), *range(30, 40)} <= set(order(pruner))


def test_growth_by_nothing_changes_nothing(device: torch.device) -> None:
    pruner, twin = (InfoBatch(20, 10, delta=1.0, device=device) for _ in range(2))
    for steps in (3, None):  # in mid-epoch, and behind it
        for each in (pruner, twin):
            train(each, 4, steps)
        before, table = snapshot(pruner), pruner._table
        pruner.grow(20)
        assert snapshot(pruner) == before
        assert pruner._table is table
    assert train(pruner) == train(twin)


def test_bad_indices_are_still_raised_after_growth(device: torch.device) -> None:
    pruner = InfoBatch(20, 10, device=device)
    record(pruner, [3, 99], [1.0, 1.0])
    pruner.set_epoch(1)
    pruner.grow(30)
    with raises(IndexError, "index: 1 out of range for 30 samples, for instance 99"):
        len(pruner.sampler)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_compiled_update_goes_on_in_the_larger_table(device: torch.device) -> None:
    pruner = InfoBatch(20, 10, policy=MeanThreshold(momentum=0.5), delta=1.0, device=device)
    step = torch.compile(pruner.update, fullgraph=True, backend="aot_eager")
    step(torch.arange(20, device=device), torch.ones(20, device=device))
    pruner.set_epoch(1)
    pruner.grow(50)
    step(torch.arange(15, 35, device=device), torch.full((20,), 3.0, device=device))
    assert pruner.scores(range(14, 36)).nan_to_num(-1).tolist() == [1.0, *[2.0] * 5, *[3.0] * 15, -1.0]


# ---- when ----


def test_growth_is_refused_in_mid_epoch_and_changes_nothing(device: torch.device) -> None:
    pruner = InfoBatch(20, 10, delta=1.0, device=device)
    twin = InfoBatch(20, 10, delta=1.0, device=device)
    for each in (pruner, twin):
        train(each, 4, steps=2)
    before, expected = snapshot(pruner), decisions(pruner)
    with raises(RuntimeError, "grow: epoch 0 is under way, and its plan is one of 20 samples", "set_epoch(1)", "len(loader)"):
        pruner.grow(30)
    assert (snapshot(pruner), decisions(pruner)) == (before, expected)
    assert train(pruner) == train(twin)
    pruner.grow(30)
    assert (pruner.epoch, pruner.num_samples) == (1, 30)


def test_the_rest_of_an_epoch_may_be_left_out(device: torch.device) -> None:
    pruner = InfoBatch(20, 10, device=device)
    iterator = iter(pruner.sampler)
    next(iterator)
    pruner.set_epoch(1)
    pruner.grow(30)
    assert sorted(pruner.sampler) == list(range(30))
    assert len(list(iterator)) == 19  # of the chunk that it had already


@pytest.mark.parametrize(
    ("value", "error"),
    [(1.5, TypeError), (True, TypeError), (19, ValueError), (0, ValueError), (-1, ValueError), (2**40 + 1, ValueError)],
)
def test_a_wrong_size_is_refused(device: torch.device, value: Any, error: type[Exception]) -> None:
    pruner = InfoBatch(20, 10, device=device)
    before = snapshot(pruner)
    with raises(error, "new_size"):
        pruner.grow(value)
    assert snapshot(pruner) == before


def test_a_size_that_is_not_that_of_the_data_set_is_refused(device: torch.device) -> None:
    with raises(ValueError, "new_size must be given, as the pruner was made for the number 20"):
        InfoBatch(20, 10, device=device).grow()
    items = Items(20)
    pruner = InfoBatch(items, 10, device=device)
    with raises(ValueError, "new_size=25, but the data source has 20 samples"):
        pruner.grow(25)
    items.size = 19
    with raises(ValueError, "new_size must be at least 20", "got 19"):
        pruner.grow()
    items.size = 25
    with raises(IndexError, "protect: 1 ids out of range for 25 samples, for instance 25"):
        pruner.grow(protect=[25])
    assert pruner.num_samples == 20
    pruner.grow(25)
    assert (pruner.num_samples, pruner.data_source) == (25, items)


# ---- restarts ----


@pytest.mark.parametrize("steps", [0, 1, 3, 100])
def test_a_run_that_grew_and_is_cut_goes_on_bit_for_bit(device: torch.device, steps: int) -> None:
    def grown() -> InfoBatch:
        pruner = InfoBatch(45, 5, device=device, protect=[3, 44])
        train(pruner, BATCH)
        pruner.grow(70, protect=[69])
        return pruner

    pruner, reference = grown(), grown()
    visited = train(pruner, BATCH, steps)
    again = restored(saved(pruner), device, size=70)
    assert again.protected == 3
    if steps < 100:
        assert visited + train(again, BATCH) == train(reference, BATCH)
    else:
        train(reference, BATCH)
        again.grow(90)  # all of the restored epoch was visited, so it is over
        reference.grow(90)
    assert (again.epoch, reference.epoch) == ((1, 1) if steps < 100 else (2, 2))
    for each in (again, reference):
        each.set_epoch(2)
    assert train(again, BATCH) == train(reference, BATCH)
    assert snapshot(again) == snapshot(reference)


def test_a_state_from_before_the_growth_loads_first_and_grows_then(device: torch.device) -> None:
    pruner = InfoBatch(45, 5, device=device)
    train(pruner, BATCH)
    file = saved(pruner)
    pruner.grow(60)
    with raises(ValueError, "state has num_samples=45, this pruner 60"):
        restored(file, device, size=60)
    again = restored(file, device, size=45)
    again.set_epoch(1)
    again.grow(60)
    assert train(again) == train(pruner)


# ---- ranks ----


def on_ranks(folder: str, kind: dict[str, Any]) -> Any:
    pruner = InfoBatch(1030, 9, delta=1.0, seed=4, protect=range(0, 1030, 3), **kind)
    facts: list[Any] = []
    for epoch, size in enumerate((1030, 1031, 3000)):
        pruner.set_epoch(epoch)
        pruner.grow(size, protect=[size - 1])
        ids = own_ids(pruner)
        stats = pruner.stats
        facts.append((stats.kept, stats.thresholds, stats.tier_kept, stats.seen))
        record(pruner, ids, loss_of(ids, epoch))
    dcp.save({"pruner": pruner}, checkpoint_id=folder)
    again = InfoBatch(3000, 9, delta=1.0, seed=4, protect=[], **kind)
    dcp.load({"pruner": again}, checkpoint_id=folder)
    for each in (pruner, again):
        each.set_epoch(3)
    assert order(pruner) == order(again)
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, ids.tolist())
    assert sorted(flat(everyone)) == list(range(3000))
    return facts, pruner._table.scores, pruner.protected, order(pruner)[: pruner._epochs.plan().available]


@needs_gloo
@pytest.mark.parametrize("kind", [{}, {"shard": "contiguous"}], ids=str)
def test_growth_does_not_depend_on_the_number_of_ranks(tmp_path: Path, kind: dict[str, Any]) -> None:
    (alone,) = run_ranks(1, on_ranks, str(tmp_path / "1"), kind)
    for world in (2, 3):
        ranks = run_ranks(world, on_ranks, str(tmp_path / str(world)), kind)
        assert all(rank[0] == alone[0] for rank in ranks)
        assert torch.equal(torch.cat([rank[1] for rank in ranks]), alone[1])
        assert sum(rank[2] for rank in ranks) == alone[2]
        assert sorted(sample for rank in ranks for sample in rank[3]) == sorted(alone[3])


def disagree() -> list[str]:
    odd, pruner = dist.get_rank() == 1, InfoBatch(100, 9)
    messages = [error_of(lambda: pruner.grow(120 if odd else 130))]
    messages.append(error_of(lambda: pruner.grow(120, protect=[1] if odd else None)))
    pruner.set_epoch(int(odd))
    messages.append(error_of(lambda: pruner.grow(120)))
    pruner.set_epoch(2)
    len(pruner.sampler)
    if odd:
        list(pruner.sampler)
    messages.append(error_of(lambda: pruner.grow(120)))
    if not odd:
        list(pruner.sampler)
    pruner.grow(120)  # put right, it goes on
    assert pruner.num_samples == 120
    return messages


@needs_gloo
def test_ranks_that_grow_differently_all_fail_and_may_go_on() -> None:
    ranks = run_ranks(2, disagree)
    assert ranks[0] == ranks[1]
    words = ["'new_size': {0: '130', 1: '120'}", "'protect': {0: 'False', 1: 'True'}", "'epoch': {0: '0', 1: '1'}"]
    words.append("'between epochs': {0: 'False', 1: 'True'}")
    for message, word in zip(ranks[0], words, strict=True):
        assert message.startswith("RuntimeError: grow was called differently on the ranks; by rank: {")
        assert word in message
