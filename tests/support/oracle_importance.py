"""Importance sampling as docs/algorithm.md has it, in plain Python: the second half of its section 4."""

import math
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache

ALL = 65536
ZERO = -1  # the bin of all scores below 2^-126
Groups = list[tuple[int, float]]  # samples and their norm


def bin_of(score: float) -> int:
    """4 (e + 126) + k, or ``ZERO``."""
    if score < 2.0**-126:
        return ZERO
    mantissa, exponent = math.frexp(score)  # in [1/2, 1)
    return 4 * (exponent - 1 + 126) + math.floor((2 * mantissa - 1) * 4)


def upper_end(number: int) -> float:
    e, k = divmod(number + 1, 4)
    return math.inf if e - 126 == 128 else math.ldexp(1 + k / 4, e - 126)


@cache
def norm(number: int, by: str) -> float:
    if number == ZERO:
        return 2.0**-150
    e, k = divmod(number, 4)
    middle = math.ldexp(1 + k / 4 + 1 / 8, e - 126)
    if by == "score":
        return middle
    with localcontext() as context:
        context.prec = 200
        return float(1 - (-Decimal(middle)).exp()) if middle < 1000 else 1.0


def keep_cutoff(c: float, g: float, least: int) -> int:
    return min(ALL, max(least, math.floor(min(c * g, 1e9))))  # 1e9 stands for infinity


def factor(groups: Groups, target: int, least: int) -> float:
    def of(u: int) -> float:
        return struct.unpack("<d", struct.pack("<Q", u << 32))[0]

    low, high = 0, 0x7FF00000 - 1
    while low < high:
        middle = (low + high) // 2
        if sum(n * keep_cutoff(of(middle), g, least) for n, g in groups) >= target:
            high = middle
        else:
            low = middle + 1
    return of(low)


def importance(free: Sequence[float], by: str, saved: float, min_keep: float) -> tuple[list[float], list[int]]:
    """Thresholds, ascending, and cutoffs of the tiers, the top one first."""
    return cut_bins(Counter(bin_of(score) for score in free), by, saved, min_keep)


def cut_bins(counts: Mapping[int, int], by: str, saved: float, min_keep: float) -> tuple[list[float], list[int]]:
    """The same from how many scores each occupied bin has."""
    least = max(1, math.floor(min_keep * 65536 + 0.5))
    bins = sorted(counts)
    target = sum(counts.values()) * 2**16 * math.ceil(Fraction(1 - saved) * 2**32) // 2**32
    c = factor([(counts[b], norm(b, by)) for b in bins], target, least)
    cut = {b: keep_cutoff(c, norm(b, by), least) for b in bins}
    lowest = min(cut.values(), default=ALL)

    tiers: list[list[int]] = [[], [], [], []]
    for b in bins:
        cube = cut[b] ** 3
        step = 0 if cut[b] == ALL else 1 if cube >= lowest * 2**32 else 2 if cube >= lowest**2 * 2**16 else 3
        tiers[step].append(b)
    always = sum(counts[b] for b in tiers[0])
    below = [tier for tier in tiers[1:] if tier]
    groups: Groups = []
    for tier in below:
        size, squares = sum(counts[b] for b in tier), 0.0
        for b in tier:
            squares += counts[b] * (norm(b, by) * norm(b, by))
        groups.append((size, math.sqrt(squares / size)))
    c = factor(groups, target - ALL * always, least)
    return [upper_end(tier[-1]) for tier in reversed(below)], [ALL, *(keep_cutoff(c, a, least) for _, a in groups)]
