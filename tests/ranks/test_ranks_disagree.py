"""Ranks that cannot go on together all say so, and what to do; none hangs, and none goes on alone."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from infobatch_fast import InfoBatch, QuantileTiers
from support.draws import shard
from support.ranks import arbitrary, error_of, needs_gloo, own_ids, run_ranks
from support.runs import record

pytestmark = needs_gloo

DIFFERENT = {
    "num_samples": ({"data_source": 1000}, {"data_source": 1001}, ["num_samples", "1000", "1001"]),
    "policy": ({}, {"policy": QuantileTiers()}, ["policy", "MeanThreshold", "QuantileTiers"]),
    "prune ratio": ({}, {"prune_ratio": 0.4}, ["policy", "0.5", "0.4"]),
    "seed": ({}, {"seed": 1}, ["seed", "'0'", "'1'"]),
    "shuffle": ({"shard": "contiguous"}, {"shard": "contiguous", "shuffle": False}, ["shuffle", "True", "False"]),
    "shard": ({}, {"shard": "contiguous"}, ["shard", "scattered", "contiguous"]),
    "drop_last": ({}, {"drop_last": True}, ["drop_last", "True", "False"]),
    "num_epochs": ({}, {"num_epochs": 10}, ["schedule", "num_epochs=9", "num_epochs=10"]),
}


@arbitrary
def disagree() -> dict[str, str]:
    """Rank 1 differs, in one thing after the other. The group survives all of it, so no rank is ahead of another one."""
    odd, messages = dist.get_rank() == 1, {}
    usual = {"data_source": 1000, "num_epochs": 9, "delta": 1.0}
    for name, (common, different, _) in DIFFERENT.items():
        pruner = InfoBatch(**{**usual, **(different if odd else common)})
        messages[name] = error_of(lambda pruner=pruner: len(pruner.sampler))
        messages[name + " again"] = error_of(lambda pruner=pruner: next(iter(pruner.sampler)))

    pruner = InfoBatch(**usual)
    pruner.set_epoch(5 if odd else 4)
    messages["epoch"] = error_of(lambda: len(pruner.sampler))
    pruner.set_epoch(6)
    assert len(pruner.sampler) > 0  # put right, it goes on

    restored = InfoBatch(**usual)
    if odd:
        restored.load_state_dict(pruner.state_dict())
    restored.set_epoch(6)
    messages["restored"] = error_of(lambda: len(restored.sampler))
    messages["too small"] = error_of(lambda: len(InfoBatch(2, 9).sampler))
    return messages


def test_ranks_that_differ_all_fail_with_one_message_that_names_the_difference() -> None:
    ranks = run_ranks(3, disagree)
    assert ranks[0] == ranks[1] == ranks[2]
    for name, (_, _, words) in DIFFERENT.items():
        for message in (ranks[0][name], ranks[0][name + " again"]):
            assert message.startswith("RuntimeError: InfoBatch was constructed differently on the ranks")
            assert all(word in message for word in words), message
            assert message.count("{0: ") == 1, message  # only what differs
    assert "ranks plan different epochs, by rank [4, 5, 4]: call set_epoch" in ranks[0]["epoch"]
    assert "epoch 6: ranks [1] go on from a checkpoint and the others do not: call load_state_dict" in ranks[0]["restored"]
    assert "rank 0 of 3 keeps no sample" in ranks[0]["too small"]
    assert "the data set of 2 samples is too small for 3 ranks" in ranks[0]["too small"]


@arbitrary
def score_samples_of_others() -> list[str]:
    messages = []
    pruner = InfoBatch(1000, 9, delta=1.0)
    for rank in (1, 0):
        before = pruner.engine.table.scores.clone()
        if dist.get_rank() == rank:  # a loader that sharded a sharded sampler would get the samples of all
            weights = record(pruner, torch.arange(1000), torch.ones(1000), reduction="none")
            assert weights.sum() == 1000
            owned = own_ids(pruner)
            assert torch.equal(pruner.scores(owned), torch.ones(len(owned)))
        else:
            pruner.stats  # noqa: B018  the plan is made on all ranks
            assert torch.equal(before.isnan(), pruner.engine.table.scores.isnan())
        pruner.set_epoch(pruner.epoch + 1)
        messages.append(error_of(lambda: next(iter(pruner.sampler))))
        assert next(iter(pruner.sampler)) >= 0  # once told, it goes on
    return messages


def test_losses_of_other_ranks_samples_fail_on_all_ranks_at_the_next_plan() -> None:
    ranks = run_ranks(2, score_samples_of_others)
    assert ranks[0] == ranks[1]
    for rank, message in zip((1, 0), ranks[0], strict=True):
        owned = len(shard(1000, 2, rank))
        assert f"IndexError: index: rank {rank} of 2 got {1000 - owned} samples that other ranks own" in message
        assert "sharded the sampler a second time" in message
        assert "use_distributed_sampler=False" in message


def refuse() -> list[str]:
    return [
        error_of(lambda: InfoBatch(100, 1, num_replicas=3)),
        error_of(lambda: InfoBatch(100, 1, rank=2)),
        error_of(lambda: InfoBatch(100, 1, num_replicas=1).stats),
    ]


def test_a_group_of_another_size_is_refused() -> None:
    for messages in run_ranks(2, refuse):
        assert "num_replicas=3 does not fit the process group of 2 ranks" in messages[0]
        assert "rank must be in [0, 1], got 2" in messages[1]
        assert messages[2] == "nothing was raised"  # a rank of its own


def test_several_ranks_need_a_process_group() -> None:
    with pytest.raises(ValueError, match=r"num_replicas=2 needs a process group.*torchrun"):
        InfoBatch(100, 1, num_replicas=2, rank=0)
