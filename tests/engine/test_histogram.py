"""The histogram of the scores: every seen score of all ranks in its bin, wherever scores lie, and nothing else happens."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from infobatch_fast import InfoBatch
from infobatch_fast.engine import ops
from infobatch_fast.engine.histogram import count_scores
from infobatch_fast.engine.ranks import find_ranks
from support.ranks import needs_gloo, run_ranks
from support.runs import record

CASES = {
    "losses": (torch.rand(5000, generator=torch.Generator().manual_seed(1)) * 30 - 25).exp().tolist(),
    "both signs": torch.randn(3000, generator=torch.Generator().manual_seed(2)).tolist(),
    "zeros": [0.0, 0.0, -0.0],
    "zero and more": [0.0, 1e-7, 2.5, 2.5],
    "all alike": [-3.0] * 5,
    "all there is": [0.0, -1e30, 3.4e38, 1e-45, 1e-12],
    "neighbours": [1.0, 1.0000001],
    "one": [0.25],
}


@pytest.mark.parametrize("bins", [1, 2, 64, 1000, 4096])
@pytest.mark.parametrize("case", CASES)
def test_every_seen_score_is_in_its_bin(device: torch.device, case: str, bins: int) -> None:
    scores = CASES[case]
    pruner = InfoBatch(len(scores) + 7, 3, device=device)  # seven are not seen
    record(pruner, torch.arange(len(scores)), torch.tensor(scores))
    counts, edges = pruner.histogram(bins)
    assert (counts.shape, counts.dtype, edges.shape, edges.dtype) == ((bins,), torch.int64, (bins + 1,), torch.float64)
    assert bool((edges.diff() > 0).all())
    values = np.array(scores, dtype=np.float32).astype(np.float64)
    assert counts.tolist() == np.histogram(values, edges.numpy())[0].tolist()
    assert counts.sum() == len(scores)
    if len(set(scores)) > 1:
        assert (edges[0], edges[-1]) == (values.min(), values.max())


def test_bins_are_logarithmic_on_both_sides_of_zero() -> None:
    pruner = InfoBatch(4, 3)
    record(pruner, [0, 1, 2, 3], [-4.0, -1.0, 1.0, 4.0])
    assert pruner.histogram(bins=6)[1].tolist() == pytest.approx([-4, -2, -1, 0, 1, 2, 4])
    pruner = InfoBatch(2, 3)
    record(pruner, [0, 1], [1e-3, 1e3])
    assert pruner.histogram(bins=6)[1].tolist() == pytest.approx([1e-3, 1e-2, 1e-1, 1, 10, 100, 1000])


def test_without_scores_all_counts_are_zero() -> None:
    counts, edges = InfoBatch(10, 3).histogram(4)
    assert counts.tolist() == [0] * 4
    assert edges.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_no_plan_is_made_and_nothing_changes(made: list[int]) -> None:
    pruner = InfoBatch(10, 3)
    record(pruner, range(10), torch.arange(10.0))
    pruner.set_epoch(1)
    before = pruner.scores()
    made.clear()
    pruner.set_epoch(2)
    pruner.histogram()
    assert made == []
    assert torch.equal(before, pruner.scores())


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))])
        return result


def test_memory_does_not_grow_with_the_table() -> None:
    pruner = InfoBatch(3000, 1)
    with Largest() as largest:
        counts, edges = pruner.histogram()
    assert largest.elements == edges.numel()
    assert counts.sum() == 0


def test_subnormal_scores_are_in_their_bins_where_torch_flushes_them() -> None:
    scores = [0.0, 1e-45, -1e-45, 3e-45, 1e-40, -1e-39, 1e-38]
    pruner = InfoBatch(len(scores), 3)
    record(pruner, range(len(scores)), scores)
    expected = [part.tolist() for part in pruner.histogram(9)]
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush")
    try:
        assert [part.tolist() for part in pruner.histogram(9)] == expected
    finally:
        torch.set_flush_denormal(False)


def test_every_float_has_a_key_and_every_number_the_first_key_that_is_not_below_it() -> None:
    bits = torch.randint(0x7F800000, (3000,), generator=torch.Generator().manual_seed(3), dtype=torch.int32)
    keys = torch.cat([bits, -bits, torch.tensor([0, 1, -1, 0x7FFFFF, 0x800000, 0x7F7FFFFF, -0x7F7FFFFF], dtype=torch.int32)])
    numbers = (keys.abs().view(torch.float32).double() * keys.sign()).tolist()
    assert ops.numbers_of_keys(keys) == numbers
    for key, number in zip(keys.tolist(), numbers, strict=True):
        assert ops.first_key_from(number) == key
        assert ops.first_key_from(math.nextafter(number, -math.inf)) == key
        assert ops.first_key_from(math.nextafter(number, math.inf)) == key + 1


def test_scores_at_an_edge_are_above_it_and_zeros_are_alike(device: torch.device) -> None:
    scores = torch.tensor([-2.0, -0.0, 0.0, 1e-45, 1.0, math.nan], device=device)

    def counts(scores: torch.Tensor, *edges: float) -> list[int]:
        return ops.count_bins(scores, ops.keys_from(edges, device)).tolist()

    assert counts(scores, -2.0, -2.0, 0.0, 1e-45, 1.0, 5.0) == [0, 0, 1, 2, 1, 1, 0]
    assert counts(scores, -0.0) == [1, 4]
    assert counts(scores[:0], 0.5) == [0, 0]


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_count_together(threads: int) -> None:
    scores = torch.randn(300_007, generator=torch.Generator().manual_seed(4))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        counts, edges = count_scores(scores, 200, find_ranks(1, 0, None))
    finally:
        torch.set_num_threads(before)
    assert counts.tolist() == np.histogram(scores.double().numpy(), edges.numpy())[0].tolist()
    assert (edges[0], edges[-1]) == (scores.min(), scores.max())


@pytest.mark.parametrize("bins", [0, -1, 4097, 2.5, True])
def test_bins_must_be_an_int_within_the_limit(bins: int) -> None:
    with pytest.raises((ValueError, TypeError), match="bins must be"):
        InfoBatch(10, 3).histogram(bins)


def histogram_of_ranks(samples: int) -> tuple[list[int], list[float]]:
    pruner = InfoBatch(samples, 3)
    mine = pruner.sampler.indices()  # some of them twice, so that ranks keep step
    record(pruner, mine, (mine + 1.0) ** 3)
    counts, edges = pruner.histogram(16)
    return counts.tolist(), edges.tolist()


@needs_gloo
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_count_together(world: int) -> None:
    alone = InfoBatch(100, 3)
    record(alone, range(100), (torch.arange(100) + 1.0) ** 3)
    counts, edges = alone.histogram(16)
    for of_rank in run_ranks(world, histogram_of_ranks, 100):
        assert of_rank == (counts.tolist(), edges.tolist())
    assert math.isclose(edges[-1].item(), 1e6)
