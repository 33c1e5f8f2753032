"""The algorithm of docs/algorithm.md in plain Python, slow and exact: written from that page alone, without code of the package.

Scores are Python floats that hold float32 values, sums are fractions, words are integers. The functions are the sections of the
page, in its order, from the fourth on: ``draws`` has those before. ``Oracle`` goes through the life of a pruner.
"""

import math
import struct
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from support.draws import KEEP, SHUFFLE, Permutation, draw, ids_of_slots, shard
from support.oracle_importance import ALL, importance

# 4. Thresholds


def float32(value: float) -> float:
    """The value rounded to float32; infinite where that overflows."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def place(value: float) -> int:
    """The place of a float32 value in ascending order, -0 before +0."""
    bits = struct.unpack("<I", struct.pack("<f", value))[0]
    return bits if bits < 2**31 else 2**31 - 1 - bits


def value_at(where: int) -> float:
    """The float32 value at a place."""
    return struct.unpack("<f", struct.pack("<I", where if where >= 0 else 2**31 - 1 - where))[0]


def exact_sum(scores: Iterable[float]) -> Fraction:
    return sum((Fraction(score) for score in scores), Fraction(0))


def round_up(value: Fraction) -> float:
    """The smallest float32 that is not below the value (+0 for zero)."""
    where = place(float32(float(value)))
    while Fraction(value_at(where)) < value:
        where += 1
    while value_at(where - 1) > -math.inf and Fraction(value_at(where - 1)) >= value:
        where -= 1
    return value_at(where) or 0.0


def mean_threshold(seen: Sequence[float]) -> float:
    return round_up(exact_sum(seen) / len(seen)) if seen else -math.inf


def quantile_threshold(seen: Sequence[float], quantile: float) -> float:
    if not seen:
        return -math.inf
    fraction = min(math.ceil(Fraction(quantile) * 2**32), 2**32 - 1)
    return sorted(seen, key=place)[len(seen) * fraction // 2**32]


@dataclass(frozen=True)
class Rule:
    """A policy: ``kind`` is none, random, mean, quantiles, gradient_norm or score, the last two of importance sampling.

    The ratios stand in the order in which the package takes them. ``saved`` and ``min_keep`` are those of importance sampling.
    """

    kind: str
    ratios: tuple[float, ...] = ()
    quantiles: tuple[float, ...] = ()
    momentum: float = 0.0
    saved: float = 0.0
    min_keep: float = 0.1

    def blended(self, old: float | None, new: float) -> float:
        """A sample's score after ``new`` came in. Doubles hold the products exactly, and their sums round as if they did."""
        if old is None or self.momentum == 0.0:
            return new
        return float32(float32(float32(self.momentum) * old) + float32(float32(1.0 - self.momentum) * new))

    def thresholds(self, seen: Sequence[float]) -> list[float]:
        if self.kind == "mean":
            return [mean_threshold(seen)]
        if self.kind == "quantiles":
            return [quantile_threshold(seen, quantile) for quantile in self.quantiles]
        return [math.inf] if self.kind == "random" else []

    def cuts(self, seen: Sequence[float], free: Sequence[float]) -> tuple[list[float], list[int]]:
        """Thresholds, ascending, and cutoffs of the tiers, the top one first; ``free``: seen and not protected."""
        if self.kind in ("gradient_norm", "score"):
            return importance(free, self.kind, self.saved, self.min_keep)
        return self.thresholds(seen), [ALL] + [cutoff(ratio) for ratio in reversed(self.ratios)]


def prunes(epoch: int, num_epochs: int, delta: float, warmup_epochs: int) -> bool:
    return warmup_epochs <= epoch < math.floor(float(Fraction(delta) * num_epochs))


# 5. Keep probability and weight


def cutoff(ratio: float) -> int:
    return max(1, math.floor((1 - ratio) * 65536 + 0.5))


def weight(cut: int, scale: float = 1.0) -> float:
    return float32(65536 / cut * scale)


def keep_draw(seed: int, slot: int, epoch: int) -> int:
    """The 16 bits of a slot."""
    row, lane = divmod(slot, 8)
    return draw(seed, row, epoch, KEEP)[lane // 2] >> 16 * (lane % 2) & 0xFFFF


# 6. Order


def cut_or_fill(whole: Sequence[int], left: Sequence[int], length: int) -> list[int]:
    """What is left of a rank's order, brought to a length."""
    return [left[p] if p < len(left) else whole[(p - len(left)) % len(whole)] for p in range(length)]


class Oracle:
    """A pruner of any number of ranks at once."""

    def __init__(
        self,
        n: int,
        rule: Rule,
        *,
        seed: int = 0,
        shuffle: bool = True,
        contiguous: bool = False,
        world: int = 1,
        protected: Collection[int] = (),
        by_step: bool = False,
    ) -> None:
        self.protected, self.by_step = set(protected), by_step
        self.n, self.rule, self.seed, self.shuffle, self.world = n, rule, seed, shuffle, world
        self.scores: list[float | None] = [None] * n
        self.ids: Sequence[int] = range(n) if contiguous or not shuffle else ids_of_slots(n, seed)
        self.visited: set[int] = set()

    def grow(self, n: int) -> None:
        """Samples are added: ids up to n."""
        self.scores += [None] * (n - self.n)
        self.ids = range(n) if isinstance(self.ids, range) else ids_of_slots(n, self.seed)
        self.n = n

    def update(self, ids: Iterable[int], scores: Iterable[float]) -> None:
        ids = list(ids)
        old = {sample: self.scores[sample] for sample in ids}
        for sample, score in zip(ids, scores, strict=True):
            new = self.rule.blended(old[sample], float32(score))
            if math.isfinite(new):
                self.scores[sample] = new
            self.visited.add(sample)

    def plan(self, epoch: int, *, pruning: bool = True) -> None:
        """Decides an epoch: sets ``thresholds``, and for each sample its tier, its weight and whether it is ``kept``."""
        self.epoch = epoch
        self.visited = set()
        seen = [score for score in self.scores if score is not None]
        self.seen = len(seen)
        free = [score for sample, score in enumerate(self.scores) if score is not None and sample not in self.protected]
        self.thresholds, cutoffs = self.rule.cuts(seen, free) if pruning else ([], [ALL])
        self.tiers = [0 if score is None else sum(score < t for t in self.thresholds) for score in self.scores]
        for sample in self.protected:
            self.tiers[sample] = 0
        draws = [0] * self.n
        for slot, sample in enumerate(self.ids):
            draws[sample] = keep_draw(self.seed, slot, epoch)
        self.kept = [draws[sample] < cutoffs[tier] for sample, tier in enumerate(self.tiers)]
        scale = sum(self.kept) / self.n if self.by_step else 1.0
        self.weights = [weight(cutoffs[tier], scale) for tier in self.tiers]

    def whole_order(self, rank: int = 0) -> list[int]:
        """All that a rank keeps, in its order."""
        slots = [slot for slot in shard(self.n, self.world, rank) if self.kept[self.ids[slot]]]
        if not self.shuffle or not slots:
            return [self.ids[slot] for slot in slots]
        shuffle = Permutation(len(slots), self.seed, SHUFFLE, self.epoch, rank)
        return [self.ids[slots[shuffle.permute(p)]] for p in range(len(slots))]

    def orders(self, *, drop_last: bool = False, visited: Collection[int] = ()) -> list[list[int]]:
        """What each rank yields, without the samples that were visited before a restart."""
        whole = [self.whole_order(rank) for rank in range(self.world)]
        left = [[sample for sample in order if sample not in visited] for order in whole]
        length = (min if drop_last else max)(len(order) for order in left)
        return [cut_or_fill(*pair, length) for pair in zip(whole, left, strict=True)]
