"""The package decides what docs/algorithm.md says, to the bit: plans against the oracle, at awkward sizes and scores."""

import itertools
import math
import random

import pytest
import torch

from infobatch_fast import InfoBatch, QuantileTiers
from infobatch_fast.engine import ops
from infobatch_fast.engine.schedule import Schedule
from support.compare import RULES, SCORES, assert_same_decisions, bits, feed, make_scores, policy_of, seen_of
from support.oracle import Oracle, Rule, cutoff, float32, prunes, weight
from support.runs import ARBITRARY

pytestmark = ARBITRARY

SIZES = [1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 511, 512, 513, 1023, 1024, 1025, 5003]
SETTINGS = list(itertools.product((0, 2**64 - 1), (0, 1, 2**32 - 1), (True, False)))  # seed, epoch, shuffle
LAST_PRUNED = 2**32  # with delta 1, so that every epoch there is can be pruned


def make_pruner(device: torch.device, n: int, rule: Rule, *, seed: int = 0, shuffle: bool = True) -> InfoBatch:
    return InfoBatch(n, LAST_PRUNED, delta=1.0, policy=policy_of(rule), seed=seed, shuffle=shuffle, device=device)


def assert_same_plan(pruner: InfoBatch, oracle: Oracle) -> None:
    assert_same_decisions(pruner, oracle)
    assert pruner.sampler.indices().tolist() == oracle.orders()[0]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
@pytest.mark.parametrize("n", SIZES)
def test_every_plan_is_the_one_of_the_page(device: torch.device, n: int, rule: Rule) -> None:
    turn = SIZES.index(n) + list(RULES.values()).index(rule)  # settings take turns, so that each meets each rule, size and score
    for number, name in enumerate(SCORES):
        seed, epoch, shuffle = SETTINGS[(turn + number) % len(SETTINGS)]
        pruner, oracle = make_pruner(device, n, rule, seed=seed, shuffle=shuffle), Oracle(n, rule, seed=seed, shuffle=shuffle)
        seen = seen_of(make_scores(name, n))
        pruner.set_epoch(7)
        feed(pruner, *seen)
        oracle.update(*seen)
        pruner.set_epoch(epoch)
        oracle.plan(epoch)
        assert_same_plan(pruner, oracle)


@pytest.mark.parametrize("n", [9, 1025])
def test_contiguous_shards_are_shuffled_as_the_page_says(device: torch.device, n: int) -> None:
    rule, seen = RULES["mean"], seen_of(make_scores("losses", n))
    pruner = InfoBatch(n, 3, delta=1.0, policy=policy_of(rule), seed=5, shard="contiguous", device=device)
    oracle = Oracle(n, rule, seed=5, contiguous=True)
    feed(pruner, *seen)
    oracle.update(*seen)
    pruner.set_epoch(2)
    oracle.plan(2)
    assert_same_plan(pruner, oracle)


@pytest.mark.parametrize(("seed", "epoch", "shuffle"), SETTINGS)
@pytest.mark.parametrize("n", [1, 2, 9, 65, 1025])
def test_seed_epoch_and_shuffle_enter_as_the_page_says(device: torch.device, n: int, seed: int, epoch: int, shuffle: bool) -> None:
    rule = RULES["two tiers"]
    pruner, oracle = make_pruner(device, n, rule, seed=seed, shuffle=shuffle), Oracle(n, rule, seed=seed, shuffle=shuffle)
    seen = seen_of(make_scores("losses", n))
    pruner.set_epoch(epoch ^ 1)
    feed(pruner, *seen)
    oracle.update(*seen)
    pruner.set_epoch(epoch)
    oracle.plan(epoch)
    assert_same_plan(pruner, oracle)


def test_a_plan_follows_the_scores_from_epoch_to_epoch(device: torch.device) -> None:
    n, rule, dice = 700, RULES["mean"], random.Random(5)
    pruner, oracle = InfoBatch(n, 8, policy=policy_of(rule), delta=0.75, warmup_epochs=1, device=device), Oracle(n, rule)
    for epoch in range(8):
        pruner.set_epoch(epoch)
        oracle.plan(epoch, pruning=prunes(epoch, 8, 0.75, 1))
        assert_same_plan(pruner, oracle)
        assert pruner.stats.pruned == (1 <= epoch < 6)
        order = oracle.orders()[0]
        losses = [dice.lognormvariate(0, 1) for _ in order]
        for first in range(0, len(order), 64):
            feed(pruner, order[first : first + 64], losses[first : first + 64])
        oracle.update(order, losses)


def test_the_order_of_updates_and_their_batching_decide_nothing(device: torch.device) -> None:
    n = 2000
    ids, scores = seen_of(make_scores("any bits", n))
    plans = []
    for turn in range(4):
        pruner = make_pruner(device, n, RULES["three tiers"], seed=3)
        shuffled = random.Random(turn).sample(range(n), n)
        for first in range(0, n, (n, 1, 37, 512)[turn]):
            places = shuffled[first : first + (n, 1, 37, 512)[turn]]
            feed(pruner, [ids[place] for place in places], [scores[place] for place in places])
        pruner.set_epoch(1)
        plans.append((pruner.stats.thresholds, pruner.weights(torch.arange(n)).tolist(), pruner.sampler.indices().tolist()))
    assert all(plan == plans[0] for plan in plans)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 5000])
def test_scores_are_recorded_and_losses_weighted_as_the_page_says(device: torch.device, size: int, dtype: torch.dtype) -> None:
    n, rule, dice = 300, RULES["three tiers"], random.Random(size)
    pruner, oracle = make_pruner(device, n, rule), Oracle(n, rule)
    first = [dice.random() for _ in range(n)]
    feed(pruner, range(n), first)
    oracle.update(range(n), first)
    pruner.set_epoch(1)
    oracle.plan(1)
    ids = [dice.randrange(n) for _ in range(size)]  # many of them several times
    odd = (math.nan, math.inf, -math.inf, 3.5e38, -1e300, 1e-46, -0.0)
    values = torch.tensor([dice.choice(odd) if dice.random() < 0.3 else dice.gauss(0, 1) for _ in ids], dtype=torch.float64)
    values = values.to(dtype)
    recorded = pruner.update(torch.tensor(ids), torch.ones(size, device=device), scores=values.to(device), reduction="none")
    oracle.update(ids, values.tolist())
    assert recorded.tolist() == [oracle.weights[sample] for sample in ids]
    assert bits(pruner.scores().tolist()) == bits(score for score in oracle.scores if score is not None)
    assert pruner.stats.non_finite == sum(not math.isfinite(float32(value)) for value in values.tolist())
    pruner.set_epoch(2)
    oracle.plan(2)
    assert_same_plan(pruner, oracle)


@pytest.mark.parametrize("rule", [RULES["mean"], RULES["three tiers"]], ids=["mean", "three tiers"])
@pytest.mark.parametrize("n", [300_000, 1_000_003])
def test_the_number_of_threads_decides_nothing(n: int, rule: Rule) -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(n, generator=generator) * 10.0 ** torch.randint(-30, 30, (n,), generator=generator)
    ids = torch.randperm(n, generator=generator)
    before = torch.get_num_threads()
    plans = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            pruner = make_pruner(torch.device("cpu"), n, rule)
            pruner.update(ids, scores)
            pruner.set_epoch(1)
            order = pruner.sampler.indices()
            pruner.update(order[: len(order) // 2], torch.ones(len(order) // 2))
            restored = make_pruner(torch.device("cpu"), n, rule)
            restored.load_state_dict(pruner.state_dict())  # half way, so that its order leaves out the visited
            plans.append((pruner.stats.thresholds, pruner.weights(ids), order, restored.sampler.indices()))
    finally:
        torch.set_num_threads(before)
    for plan in plans[1:]:
        assert plan[0] == plans[0][0]
        assert all(torch.equal(one, other) for one, other in zip(plan[1:], plans[0][1:], strict=True))


def test_cutoffs_and_weights_are_those_of_the_page(device: torch.device) -> None:
    dice = random.Random(2)
    halves = [(half + 0.5) / 65536 for half in range(0, 65536, 97)]
    ratios = [0.0, 2**-17, 2**-18, 0.5, 1 - 2**-53, 1 - 2**-17, *halves, *(dice.random() for _ in range(5000))]
    assert [ops.cutoff_of(1.0 - ratio) for ratio in ratios] == [cutoff(ratio) for ratio in ratios]
    for first in range(1, 65537, 4):
        cuts = (first, first + 1, first + 2, first + 3)
        assert ops.tier_weights(cuts) == [weight(cut) for cut in cuts]
        if first % 1021 == 0 or first < 100:
            tiers = ops.empty_tiers(device)
            ops.set_tiers(tiers, cuts)
            assert tiers[:4].tolist() == list(cuts)
            assert ops.weights_of_tiers(tiers).tolist() == [weight(cut) for cut in cuts]


def test_the_schedule_is_that_of_the_page() -> None:
    for num_epochs, delta, warmup in itertools.product((1, 2, 10, 90, 100, 1000), (0.0, 0.29, 0.7, 0.875, 1.0), (0, 1, 20)):
        schedule = Schedule(num_epochs, delta, warmup)
        for epoch in range(num_epochs + 2):
            assert schedule.prunes(epoch) == prunes(epoch, num_epochs, delta, warmup)


def test_a_quantile_next_to_one_takes_the_largest_score(device: torch.device) -> None:
    quantile = 1 - 2**-53
    pruner = InfoBatch(10, 3, delta=1.0, policy=QuantileTiers((quantile,), (0.5,)), device=device)
    feed(pruner, range(10), [float(score) for score in range(10)])
    pruner.set_epoch(1)
    assert pruner.stats.thresholds == (9.0,)
    assert pruner.stats.tier_sizes == (1, 9)
