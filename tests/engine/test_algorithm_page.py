"""The numbers on docs/algorithm.md by which an implementation is checked are those of the package and of the oracle."""

import re
from pathlib import Path

import torch

from infobatch_fast import InfoBatch
from infobatch_fast.engine import ops
from support.draws import DEAL, Permutation, ids_of_slots, philox
from support.oracle import Oracle, Rule

PAGE = Path(__file__).parents[2] / "docs/algorithm.md"
TEXT = PAGE.read_text() if PAGE.exists() else ""


def test_the_deals_on_the_page_are_those_of_the_package_and_of_the_oracle() -> None:
    rows = re.findall(r"^ +N = (\d+): +([\d ]+)$", TEXT, re.MULTILINE)
    assert [int(n) for n, _ in rows] == [20, 1024]
    for n, numbers in rows:
        size, expected = int(n), [int(slot) for slot in numbers.split()]
        deal = Permutation(size, 3, DEAL, 0, 0)
        assert [deal.permute(sample) for sample in range(8)] == expected
        assert [ids_of_slots(size, 3)[slot] for slot in expected] == list(range(8))
        assert InfoBatch(size, 1, seed=3).engine.table.slots_of(torch.arange(8)).tolist() == expected


def test_the_order_on_the_page_is_that_of_the_package_and_of_the_oracle() -> None:
    (numbers,) = re.findall(r"^Check: N = 20, seed 3, epoch 0, one rank, nothing seen:\n\n +([\d ]+)$", TEXT, re.MULTILINE)
    expected = [int(sample) for sample in numbers.split()]
    oracle = Oracle(20, Rule("mean", (0.5,)), seed=3)
    oracle.plan(0)
    assert oracle.orders() == [expected]
    assert list(InfoBatch(20, 1, seed=3).sampler) == expected


def test_the_generator_and_the_version_on_the_page_are_those_of_the_package() -> None:
    words = re.findall(r"key \(0, 0\) give ([0-9A-F ]+)\.", TEXT)
    assert [f"{word:08X}" for word in philox((0, 0, 0, 0), (0, 0))] == words[0].split()
    assert f"Version {ops.ALGORITHM_VERSION} (`ALGORITHM_VERSION`)" in TEXT


def test_thresholds_of_minus_infinity_are_left_out_of_the_statistics() -> None:
    pruner = InfoBatch(20, 1, delta=1.0, seed=3)
    assert (pruner.stats.pruned, pruner.stats.thresholds) == (True, ())
