"""Samples that are added on several ranks: the same decisions on any number of them, and all are told where they differ."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from infobatch_fast import InfoBatch
from support.ranks import arbitrary, error_of, flat, needs_gloo, own_ids, run_ranks
from support.runs import loss_of, order, record

pytestmark = needs_gloo


@arbitrary
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
    return facts, pruner.engine.table.scores, pruner.protected, order(pruner)[: pruner.engine.epochs.plan().available]


@pytest.mark.parametrize("kind", [{}, {"shard": "contiguous"}], ids=str)
def test_growth_does_not_depend_on_the_number_of_ranks(tmp_path: Path, kind: dict[str, Any]) -> None:
    (alone,) = run_ranks(1, on_ranks, str(tmp_path / "1"), kind)
    for world in (2, 3):
        ranks = run_ranks(world, on_ranks, str(tmp_path / str(world)), kind)
        assert all(rank[0] == alone[0] for rank in ranks)
        assert torch.equal(torch.cat([rank[1] for rank in ranks]), alone[1])
        assert sum(rank[2] for rank in ranks) == alone[2]
        assert sorted(sample for rank in ranks for sample in rank[3]) == sorted(alone[3])


@arbitrary
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


def test_ranks_that_grow_differently_all_fail_and_may_go_on() -> None:
    ranks = run_ranks(2, disagree)
    assert ranks[0] == ranks[1]
    words = ["'new_size': {0: '130', 1: '120'}", "'protect': {0: 'False', 1: 'True'}", "'epoch': {0: '0', 1: '1'}"]
    words.append("'between epochs': {0: 'False', 1: 'True'}")
    for message, word in zip(ranks[0], words, strict=True):
        assert message.startswith("RuntimeError: grow was called differently on the ranks; by rank: {")
        assert word in message
