"""Several ranks decide and order as docs/algorithm.md says: gloo processes against the oracle, which plays all ranks at once."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from compare import RULES, bits, feed, make_scores, policy_of, seen_of
from oracle import Oracle, Rule, shard

from infobatch_fast import InfoBatch

RANKS = 3
LIMIT = timedelta(seconds=60)  # a rank that leaves the others behind is an error soon, and no test that hangs


def check(group: dist.ProcessGroup, n: int, rule: Rule, name: str, shuffle: bool, drop_last: bool) -> None:
    """One data set on the ranks of a group: the plan of an epoch, and the rest of it after a restart."""
    world, rank = dist.get_world_size(group), dist.get_rank(group)
    seed = 2**64 - n
    settings = {"policy": policy_of(rule), "delta": 1.0, "seed": seed, "shuffle": shuffle, "drop_last": drop_last}
    pruner = InfoBatch(n, 9, process_group=group, num_replicas=world, rank=rank, **settings)
    oracle = Oracle(n, rule, seed=seed, shuffle=shuffle, world=world)
    mine = {oracle.ids[slot] for slot in shard(n, world, rank)}
    ids, scores = seen_of(make_scores(name, n))
    places = [place for place, sample in enumerate(ids) if sample in mine]
    feed(pruner, [ids[place] for place in places], [scores[place] for place in places])
    oracle.update(ids, scores)
    pruner.set_epoch(5)
    oracle.plan(5)

    orders = oracle.orders(drop_last=drop_last)
    assert bits(pruner.stats.thresholds) == bits(t for t in oracle.thresholds if t > float("-inf"))
    assert pruner.stats.kept == sum(oracle.kept)
    assert pruner.stats.tier_sizes == tuple(oracle.tiers.count(tier) for tier in range(len(pruner.stats.tier_sizes)))
    assert len(pruner.sampler) == len(orders[rank])
    assert list(pruner.sampler) == orders[rank]
    assert pruner.weights(sorted(mine)).tolist() == [oracle.weights[sample] for sample in sorted(mine)]
    assert pruner.is_kept(sorted(mine)).tolist() == [oracle.kept[sample] for sample in sorted(mine)]

    done = [order[:: part + 1] for part, order in enumerate(map(oracle.whole_order, range(world)))]  # all of it on rank 0
    feed(pruner, done[rank], [1.0] * len(done[rank]))
    restored = InfoBatch(n, 9, process_group=group, num_replicas=world, rank=rank, **settings)
    restored.load_state_dict(pruner.state_dict())
    left = oracle.orders(drop_last=drop_last, visited={sample for part in done for sample in part})
    restored.set_epoch(5)
    assert len(restored.sampler) == len(left[rank])
    assert list(restored.sampler) == left[rank]
    assert restored.epoch == 5


def run_rank(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS, timeout=LIMIT)
    for world in range(1, RANKS + 1):
        group = dist.new_group(list(range(world)), timeout=LIMIT)
        if rank >= world:
            continue
        for n in (64, 257, 1030, 3001):
            check(group, n, RULES["mean"], "losses", True, False)
            check(group, n, RULES["three tiers"], "half unseen", True, True)
            check(group, n, RULES["two tiers"], "any bits", False, False)
            check(group, n, RULES["random"], "negative", False, True)
        check(group, 9, RULES["mean"], "losses", True, True)  # fewer rows than ranks: none yields anything
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")
def test_any_number_of_ranks_decides_and_orders_as_the_page_says(tmp_path: Path) -> None:
    mp.spawn(run_rank, args=(str(tmp_path / "store"),), nprocs=RANKS)
