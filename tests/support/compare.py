"""Puts a pruner beside the oracle: the same rule for both, and every decision of a plan compared bit for bit."""

import math
import random
import struct
from collections.abc import Callable, Iterable, Sequence

import torch

from infobatch_fast import ImportanceSampling, InfoBatch, MeanThreshold, NoPruning, Policy, QuantileTiers, RandomPruning
from support.oracle import Oracle, Rule, float32

LARGEST = float32(3.4028234663852886e38)
TINIEST = 2.0**-149

RULES = {
    "mean": Rule("mean", (0.5,)),
    "mean, odd ratio": Rule("mean", (0.3,)),
    "keeps all": Rule("mean", (0.0,)),
    "mean, momentum": Rule("mean", (0.5,), momentum=0.9),
    "one tier": Rule("quantiles", (0.9,), (0.5,)),
    "two tiers": Rule("quantiles", (0.75, 0.5), (0.2, 0.85)),
    "three tiers": Rule("quantiles", (0.9, 0.5, 0.25), (0.1, 0.5, 0.999)),
    "tiers, momentum": Rule("quantiles", (0.75, 0.5), (0.2, 0.85), momentum=1 / 3),
    "random": Rule("random", (0.7,)),
    "keeps hardly any": Rule("random", (1 - 2**-53,)),
    "none": Rule("none"),
    "importance": Rule("gradient_norm", saved=0.4),
    "importance, hardly any": Rule("gradient_norm", saved=0.85, min_keep=0.01),
    "importance by score": Rule("score", saved=0.5, min_keep=1e-6, momentum=0.9),
}


def policy_of(rule: Rule) -> Policy:
    if rule.kind == "quantiles":
        return QuantileTiers(rule.quantiles, rule.ratios, rule.momentum)
    if rule.kind == "mean":
        return MeanThreshold(*rule.ratios, momentum=rule.momentum)
    if rule.kind in ("gradient_norm", "score"):
        return ImportanceSampling(rule.saved, rule.kind, rule.min_keep, rule.momentum)
    return {"random": RandomPruning, "none": NoPruning}[rule.kind](*rule.ratios)


def _any_finite(dice: random.Random) -> float:
    """A float32 of any exponent and sign."""
    bits = dice.getrandbits(32)
    return struct.unpack("<f", struct.pack("<I", bits if bits >> 23 & 0xFF != 0xFF else bits ^ 1 << 23))[0]


# Scores by name: one of a sample from the dice, None for unseen.
SCORES: dict[str, Callable[[random.Random], float | None]] = {
    "losses": lambda dice: math.exp(dice.gauss(0, 1)),
    "tied": lambda dice: dice.choice((0.25, 0.5, 0.5, 2.0)),
    "all equal": lambda dice: 0.1,
    "denormal": lambda dice: dice.randrange(-3, 9) * TINIEST,
    "zeros of both signs": lambda dice: dice.choice((0.0, -0.0, -0.0, TINIEST, -TINIEST)),
    "around 1e-12": lambda dice: 1e-12 * dice.uniform(0.5, 2),
    "around 1e30": lambda dice: 1e30 * dice.uniform(0.5, 2),
    "3e38 among ones below 1": lambda dice: 3e38 if dice.random() < 0.01 else dice.random(),
    "largest of both signs": lambda dice: dice.choice((LARGEST, -LARGEST, 1.0)),
    "negative": lambda dice: -math.exp(dice.gauss(0, 1)),
    "any bits": _any_finite,
    "half unseen": lambda dice: dice.random() if dice.random() < 0.5 else None,
    "unseen": lambda dice: None,
}


def make_scores(name: str, n: int) -> list[float | None]:
    dice = random.Random(f"{name} {n}")
    scores = [SCORES[name](dice) for _ in range(n)]
    return [None if score is None else float32(score) for score in scores]


def seen_of(scores: Iterable[float | None]) -> tuple[list[int], list[float]]:
    """Ids and scores of the seen samples."""
    pairs = [(sample, score) for sample, score in enumerate(scores) if score is not None]
    return [sample for sample, _ in pairs], [score for _, score in pairs]


def bits(values: Iterable[float]) -> list[bytes]:
    """float32 values as bits, since -0 == +0."""
    return [struct.pack("<f", value) for value in values]


def feed(pruner: InfoBatch, ids: Sequence[int], scores: Sequence[float]) -> None:
    pruner.update(torch.tensor(ids, dtype=torch.int64), torch.tensor(scores, dtype=torch.float32, device=pruner.device))


def assert_same_decisions(pruner: InfoBatch, oracle: Oracle) -> None:
    """The plan in force: thresholds, tiers, kept set and weights."""
    everything = torch.arange(oracle.n)
    stats = pruner.stats
    thresholds = [threshold for threshold in oracle.thresholds if threshold > -math.inf]
    kept_tiers = [tier for tier, kept in zip(oracle.tiers, oracle.kept, strict=True) if kept]
    tiers = range(len(thresholds) + 1)
    assert bits(stats.thresholds) == bits(thresholds)
    assert stats.seen == oracle.seen
    assert stats.tier_sizes == tuple(oracle.tiers.count(tier) for tier in tiers)
    assert stats.tier_kept == tuple(kept_tiers.count(tier) for tier in tiers)
    assert stats.kept == len(kept_tiers)
    assert pruner.weights(everything).tolist() == oracle.weights
    assert pruner.is_kept(everything).tolist() == oracle.kept
