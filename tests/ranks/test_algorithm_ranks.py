"""Several ranks decide and order as docs/algorithm.md says: gloo processes against the oracle, which plays all ranks at once."""

import pytest
import torch.distributed as dist

from infobatch_fast import InfoBatch
from support.compare import RULES, bits, feed, make_scores, policy_of, seen_of
from support.draws import shard
from support.oracle import Oracle, Rule
from support.ranks import arbitrary, needs_gloo, run_ranks


def check(n: int, rule: Rule, name: str, *, drop_last: bool, **kind: bool) -> None:
    """One data set: the plan of an epoch, and the rest of it after a restart."""
    world, rank = dist.get_world_size(), dist.get_rank()
    seed = 2**64 - n
    shard_kind = "contiguous" if kind.get("contiguous") else "scattered"
    settings = {"policy": policy_of(rule), "seed": seed, "shuffle": kind.get("shuffle", True), "shard": shard_kind}
    settings |= {"delta": 1.0, "drop_last": drop_last, "rescale": "step" if kind.get("by_step") else "epoch"}
    pruner = InfoBatch(n, 9, **settings)
    oracle = Oracle(n, rule, seed=seed, world=world, **kind)
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
    restored = InfoBatch(n, 9, **settings)
    restored.load_state_dict(pruner.state_dict())
    left = oracle.orders(drop_last=drop_last, visited={sample for part in done for sample in part})
    restored.set_epoch(5)
    assert len(restored.sampler) == len(left[rank])
    assert list(restored.sampler) == left[rank]
    assert restored.epoch == 5


@arbitrary
def check_all() -> None:
    for n in (64, 257, 1030):
        check(n, RULES["mean"], "losses", drop_last=False)
        check(n, RULES["three tiers"], "half unseen", drop_last=True, contiguous=True)
        check(n, RULES["two tiers"], "any bits", drop_last=False, shuffle=False)
        check(n, RULES["random"], "negative", drop_last=True)
        check(n, RULES["importance"], "half unseen", drop_last=False, by_step=True)
        check(n, RULES["importance by score"], "any bits", drop_last=True)


@needs_gloo
@pytest.mark.parametrize("world", [2, 3, 4])
def test_several_ranks_decide_and_order_as_the_page_says(world: int) -> None:
    run_ranks(world, check_all)
