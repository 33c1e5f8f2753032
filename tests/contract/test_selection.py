"""What a kept fraction holds: the same as sorted lists in plain Python."""

import doctest
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from infobatch_fast import InfoBatch
from infobatch_fast.selection import choice, select
from support.refusals import raises


def test_the_examples_of_the_docstrings_are_real() -> None:
    found = doctest.testmod(choice)
    assert found.failed == 0
    assert found.attempted >= 3


def select_by_hand(scores: list[float], keep: float, order: str, labels: list[int] | None) -> list[int]:
    """Sorted lists, and fractions for the classes."""
    number, sign = round(keep * len(scores)), -1 if order == "hardest" else 1
    members: dict[int, list[int]] = {}
    for sample in range(len(scores)):
        members.setdefault(labels[sample] if labels else 0, []).append(sample)
    exact = {label: Fraction(number * len(ids), len(scores)) for label, ids in members.items()}
    quotas = {label: math.floor(share) for label, share in exact.items()}
    left = sorted(members, key=lambda label: (quotas[label] - exact[label], len(members[label]), label))
    for label in left[: number - sum(quotas.values())]:
        quotas[label] += 1
    kept = [sorted(ids, key=lambda sample: (sign * scores[sample], sample))[: quotas[label]] for label, ids in members.items()]
    return sorted(sample for ids in kept for sample in ids)


@pytest.mark.parametrize("order", ["hardest", "easiest"])
@pytest.mark.parametrize("size", [1, 2, 7, 64, 501])
def test_select_keeps_what_sorted_lists_keep(device: torch.device, size: int, order: Any) -> None:
    generator = torch.Generator().manual_seed(size)
    for keep in (0.5, 0.7, 1 / 3, 0.999, 1.0):
        if not round(keep * size):
            continue
        scores = torch.randint(-3, 4, (size,), generator=generator).float()  # many are equal
        labels = torch.randint(5, (size,), generator=generator).square() - 7
        for classes in (None, labels):
            found = select(scores.to(device), keep, order, None if classes is None else classes.to(device))
            assert found.dtype == torch.int64
            assert found.device.type == "cpu"
            assert found.tolist() == select_by_hand(scores.tolist(), keep, order, None if classes is None else labels.tolist())


def test_classes_of_equal_remainders_are_taken_by_size_and_then_by_label() -> None:
    labels = [0] * 6 + [1] * 2 + [2] * 2  # exact shares of 5: 3, 1, 1; of 6: 3.6, 1.2, 1.2; of 3: 1.8, 0.6, 0.6
    for keep, quotas in ((0.5, [3, 1, 1]), (0.6, [4, 1, 1]), (0.3, [2, 1, 0])):
        assert torch.tensor(labels)[select([0.0] * 10, keep, labels=labels)].bincount(minlength=3).tolist() == quotas


def test_random_is_decided_by_the_seed_and_the_number_alone() -> None:
    first = select(1000, 0.3, "random", seed=3)
    assert len(first) == 300
    assert first.tolist() == sorted(set(first.tolist()))
    torch.manual_seed(99)
    assert torch.equal(first, select(torch.full((1000,), math.nan), 0.3, "random", seed=3))
    assert not torch.equal(first, select(1000, 0.3, "random", seed=4))
    labels = torch.arange(1000) % 4
    assert labels[select(1000, 0.3, "random", labels)].bincount().tolist() == [75] * 4
    before = torch.get_rng_state()
    select(1000, 0.3, "random")
    assert torch.equal(before, torch.get_rng_state()), "the program's generator is not touched"


def test_random_keeps_each_sample_as_often() -> None:
    """Of 400 draws each sample is in 200, give or take; 5.5 standard deviations, so a false alarm in 250,000 such tests of 100."""
    times = torch.zeros(100)
    for seed in range(400):
        times[select(100, 0.5, "random", seed=seed)] += 1
    assert float((times - 200).abs().max()) < 5.5 * math.sqrt(400 * 0.25)


def test_scores_may_be_arrays_lists_integers_and_infinite() -> None:
    assert select(np.array([1.0, 3.0, 2.0])[::-1], 2 / 3).tolist() == [0, 1]
    assert select(torch.tensor([1, 3, 2], dtype=torch.int32), 1 / 3).tolist() == [1]
    assert select([math.inf, 0.0, -math.inf], 1 / 3, "easiest").tolist() == [2]
    assert select(torch.rand(4).requires_grad_(), 1.0).tolist() == [0, 1, 2, 3]


def test_scores_of_a_pruner_that_has_not_seen_all_are_refused() -> None:
    pruner = InfoBatch(10, 5)
    pruner.record(torch.tensor([0, 1, 2, 3, 5]), torch.rand(5))
    with raises(ValueError, "scores holds NaN for 5 of 10 samples, the first of them 4", "record() each sample once"):
        select(pruner.scores(), 0.5)
    pruner.record(torch.tensor([4, 6, 7, 8, 9]), torch.rand(5))
    assert len(select(pruner.scores(), 0.5)) == 5


# ---- wrong input ----

ROWS, CLASSES = torch.ones(4, 2), torch.tensor([0, 1, 0, 1])
WRONG: list[tuple[Any, type[Exception], str]] = [
    (lambda: select(ROWS, 0.5), ValueError, "scores must be one number for each of 1 to 2147483648 samples, [N], got shape [4, 2]"),
    (lambda: select([], 0.5), ValueError, "got shape [0]"),
    (lambda: select("abc", 0.5), TypeError, "scores must be a tensor, an array or a sequence of numbers, got str"),  # type: ignore[arg-type]
    (lambda: select(4, 0.5), TypeError, "scores must be one number for each sample with order='hardest', got 4"),
    (lambda: select(0, 0.5, "random"), ValueError, "scores, the number of samples, must be in [1, 2147483648], got 0"),
    (lambda: select(CLASSES > 0, 0.5), TypeError, "scores must be of a real dtype, got torch.bool"),
    (lambda: select(ROWS[:, 0], 0.0), ValueError, "keep must be in (0, 1], got 0.0"),
    (lambda: select(ROWS[:, 0], 1.5), ValueError, "keep must be in"),
    (lambda: select(ROWS[:, 0], math.nan), ValueError, "got nan: it is the fraction of the samples that is kept"),
    (lambda: select(ROWS[:, 0], "half"), TypeError, "keep must be a number in"),  # type: ignore[arg-type]
    (lambda: select(ROWS[:, 0], 0.1), ValueError, "keep=0.1 of 4 samples keeps none: pass at least 0.25"),
    (lambda: select(ROWS[:, 0], 0.5, "best"), ValueError, "order must be one of 'hardest', 'easiest', 'random', got 'best'"),  # type: ignore[arg-type]
    (lambda: select(ROWS[:, 0], 0.5, labels=[0, 1]), ValueError, "labels must be of shape [4], as scores are, got [2]"),
    (lambda: select(ROWS[:, 0], 0.5, labels=ROWS[:, 0]), TypeError, "labels must be class indices of an integer dtype"),  # type: ignore[arg-type]
    (lambda: select(ROWS[:, 0], 0.5, seed=-1), ValueError, "seed must be in [0, 4294967295], got -1"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[message for _, _, message in WRONG])
def test_wrong_input_is_named(call: Any, error: type[Exception], message: str) -> None:
    with raises(error, message):
        call()
