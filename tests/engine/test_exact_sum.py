"""Sums of scores are exact whatever the scores, and the mean threshold is the exact mean as far as any float32 can tell."""

import random
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import pytest
import torch

from infobatch_fast.engine import ops
from support.compare import LARGEST, TINIEST, bits, make_scores
from support.oracle import exact_sum, float32, mean_threshold, place, round_up, value_at

TILE = 512  # scores that the CPU adds up at once; sizes around it and its multiples are the awkward ones
SIZES = [0, 1, 2, 255, 256, 257, 511, 512, 513, 1000, 1023, 1024, 1025]
WINDOW = 28  # neighbouring exponents that it adds up in one pass


def full(exponent: int) -> float:
    """The largest float32 below 2 ** (exponent + 1)."""
    return float32((2 - 2**-23) * 2.0**exponent)


ADVERSARIAL = {
    "one": [1.0],
    "largest, as many as cannot be added as floats": [LARGEST] * 1000,
    "largest of both signs cancel": [LARGEST, -LARGEST] * 500 + [TINIEST],
    "largest negative": [-LARGEST] * 777,
    "tiniest": [TINIEST] * 999,
    "tiniest beside the largest": [LARGEST, TINIEST, -LARGEST, TINIEST],
    "a window full of the same mantissa": [full(exponent) for exponent in range(-126, 128)] * 3,
    "the same, negative": [-full(exponent) for exponent in range(-126, 128)] * 3,
    "one window, all ones": [full(-95)] * TILE,
    "neighbouring windows": [full(-95), 2.0**-94, -(2.0**-96)] * TILE,
    **{
        f"{width} places from 2 ** {lowest}, sign {sign}": [
            *[sign * full(lowest + width - 1)] * (2 * TILE - 1),
            *[sign * 2.0**lowest, full(lowest)],
        ]
        for lowest in (-126, -125, -20, 90, 128 - WINDOW - 1)
        for width in (WINDOW - 1, WINDOW, WINDOW + 1)
        for sign in (1, -1)
    },
    "last denormal and first normal": [2.0**-126 - TINIEST, 2.0**-126, -(2.0**-126), TINIEST] * 100,
    "zeros": [0.0, -0.0] * 200,
    "harmonic": [float32(1 / k) for k in range(1, 2000)],
    "alternating": [float32((-1) ** k * 1.1**k) for k in range(900)],
    **{f"any bits {turn}": [score for score in make_scores("any bits", 1000 + turn) if score is not None] for turn in range(5)},
}


def limbs_of(scores: Sequence[float | None], device: torch.device) -> torch.Tensor:
    table = torch.tensor([float("nan") if score is None else score for score in scores], dtype=torch.float32, device=device)
    return ops.sum_scores(table)


def value_of(limbs: torch.Tensor) -> Fraction:
    """The number that the ten limbs stand for."""
    return Fraction(sum(limb << 32 * i for i, limb in enumerate(limbs.tolist()[:10])), 2**149)


@pytest.mark.parametrize("scores", ADVERSARIAL.values(), ids=ADVERSARIAL.keys())
def test_the_sum_is_exact(device: torch.device, scores: list[float]) -> None:
    limbs = limbs_of(scores, device)
    assert value_of(limbs) == exact_sum(scores)
    assert limbs[-1] == len(scores)


@pytest.mark.parametrize("n", SIZES)
def test_unseen_scores_count_as_nothing_at_any_size(device: torch.device, n: int) -> None:
    dice = random.Random(n)
    scores = [score if dice.random() < 0.7 else None for score in make_scores("any bits", n)]
    seen = [score for score in scores if score is not None]
    limbs = limbs_of(scores, device)
    assert value_of(limbs) == exact_sum(seen)
    assert limbs[-1] == len(seen)


def test_sums_of_parts_add_up_limb_by_limb(device: torch.device) -> None:
    dice = random.Random(1)
    scores = [score for part in ADVERSARIAL.values() for score in part]
    for parts in (2, 3, 8, 100):
        cuts = [0, *sorted(dice.sample(range(len(scores)), parts - 1)), len(scores)]
        pieces = [limbs_of(scores[first:last], device) for first, last in pairwise(cuts)]
        total = torch.stack(pieces).sum(0)
        assert value_of(total) == exact_sum(scores)
        assert total[-1] == len(scores)
        assert bits(ops.mean_threshold(total).tolist()[:1]) == bits([mean_threshold(scores)])


@pytest.mark.parametrize("name", ["losses", "denormal", "around 1e30", "any bits", "3e38 among ones below 1"])
def test_the_order_of_addition_does_not_matter(device: torch.device, name: str) -> None:
    scores = make_scores(name, 3000)
    sums = set()
    for turn in range(5):
        random.Random(turn).shuffle(scores)
        sums.add(value_of(limbs_of(scores, device)))
    assert len(sums) == 1


@pytest.mark.parametrize("scores", ADVERSARIAL.values(), ids=ADVERSARIAL.keys())
def test_the_mean_threshold_is_the_smallest_float_that_is_not_below_the_mean(device: torch.device, scores: list[float]) -> None:
    total = exact_sum(scores)
    values = ops.mean_threshold(limbs_of(scores, device)).tolist()
    threshold, count = values[0], len(scores)
    assert Fraction(threshold) * count >= total
    if threshold > -LARGEST:
        assert Fraction(value_at(place(threshold or -0.0) - 1)) * count < total
    assert bits(values) == bits([mean_threshold(scores), float("-inf"), float("-inf")])


@pytest.mark.parametrize("scores", ADVERSARIAL.values(), ids=ADVERSARIAL.keys())
def test_a_score_is_below_the_threshold_exactly_if_it_is_below_the_real_mean(device: torch.device, scores: list[float]) -> None:
    limbs = limbs_of(scores, device)
    threshold = ops.mean_threshold(limbs).tolist()[0]
    mean = exact_sum(scores) / len(scores)
    where = place(threshold)
    near = [value_at(where + step) for step in range(-40, 41)]
    for score in [*scores, *(score for score in near if abs(score) <= LARGEST), 0.0, -0.0, TINIEST, -TINIEST]:
        assert (score < threshold) == (Fraction(score) < mean)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 2**20 + 1, 2**31 + 1, 2**32, 2**40 - 1, 2**40])
def test_the_threshold_is_exact_for_any_number_of_scores(device: torch.device, count: int) -> None:
    for mean in make_scores("any bits", 60):
        for nudge in (-1, 0, 1):  # in units of the sum's last bit: just below a float, just it, just above
            units = int(Fraction(mean) * count * 2**149) + nudge
            digits = [abs(units) >> 32 * i & 0xFFFFFFFF for i in range(10)]
            limbs = torch.tensor([*(digit if units >= 0 else -digit for digit in digits), count], device=device)
            assert bits(ops.mean_threshold(limbs).tolist()[:1]) == bits([round_up(Fraction(units, count * 2**149))])


def test_the_sum_is_exact_where_torch_flushes_denormals(device: torch.device) -> None:
    scores = [TINIEST, -3 * TINIEST, 2.0**-126 - TINIEST, 2.0**-126] * TILE
    table = torch.tensor(scores, device=device)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    try:
        limbs = ops.sum_scores(table)
    finally:
        torch.set_flush_denormal(False)
    assert value_of(limbs) == exact_sum(scores)


def test_nothing_is_below_the_threshold_where_nothing_was_seen(device: torch.device) -> None:
    assert ops.mean_threshold(limbs_of([None] * 300, device)).tolist() == [float("-inf")] * 3


def test_nothing_is_below_the_mean_of_equal_scores(device: torch.device) -> None:
    for score in (0.1, 1e-12, 1e30, LARGEST, -LARGEST, TINIEST, -0.3, 0.0, -0.0):
        for n in (1, 3, 7, 1000, 4097):
            threshold = ops.mean_threshold(limbs_of([float32(score)] * n, device)).tolist()[0]
            assert threshold == float32(score)
