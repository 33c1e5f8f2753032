"""Samples that are added between epochs: what was known stays with its sample, and all else is as if N had always been so."""

from typing import Any

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader

from infobatch_fast import InfoBatch, MeanThreshold, with_index
from support.compare import RULES, assert_same_decisions, bits, feed, make_scores, policy_of, seen_of
from support.items import Items
from support.oracle import Oracle
from support.refusals import raises
from support.runs import loss_of, order, record, record_all, snapshot, train

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


@pytest.mark.parametrize("name", ["mean, momentum", "two tiers", "importance", "importance by score"])
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
        before, table = snapshot(pruner), pruner.engine.table
        pruner.grow(20)
        assert snapshot(pruner) == before
        assert pruner.engine.table is table
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
