"""The contract, sentence by sentence: what ``update`` returns and records."""

import math
from contextlib import nullcontext

import pytest
import torch

from infobatch_fast import InfoBatch
from support.runs import ARBITRARY, half_pruned, record, snapshot

pytestmark = ARBITRARY

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


# ---- loss ----


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_update_returns_the_plain_batch_mean_of_the_weighted_losses(device: torch.device, dtype: torch.dtype) -> None:
    losses = torch.tensor([0.5, 1.25, 3.0, 0.25], dtype=dtype, device=device)
    for index, total in (([1, 2, 3, 4], 10.0), ([1, 2, 600, 700], 6.75), ([500, 600, 700, 800], 5.0)):
        pruner = half_pruned(device)
        result = pruner.update(torch.tensor(index), losses)
        assert result.shape == ()
        assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert result.item() == total / 4, "not renormalised by the weights"
        assert pruner.update(torch.tensor(index), losses, reduction="sum").item() == total
        each = pruner.update(torch.tensor(index), losses, reduction="none")
        assert torch.equal(each, losses * pruner.weights(index))


@pytest.mark.parametrize("batch", [1, 3, 1000, 65_536])
def test_the_mean_is_right_to_rounding_at_any_batch_size_also_under_autocast(device: torch.device, batch: int) -> None:
    pruner = half_pruned(device)
    index = torch.arange(batch, device=device) * 37 % 1000
    losses = (torch.arange(batch, device=device) % 1013 / 7).float()
    exact = (losses.double() * pruner.weights(index).double()).mean().item()
    with torch.autocast(device.type, torch.bfloat16):
        result = pruner.update(index, losses)
    assert result.dtype == torch.float32
    assert result.item() == pytest.approx(exact, rel=3e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("prune_ratio", [0.5, 0.3])
def test_gradients_are_exactly_weight_over_batch_size(device: torch.device, dtype: torch.dtype, prune_ratio: float) -> None:
    pruner = half_pruned(device, prune_ratio)
    index = torch.tensor([1, 600, 2, 700, 3, 800, 4, 900])
    weights = pruner.weights(index)
    for reduction, divisor in (("mean", 8), ("sum", 1), ("none", 1)):
        losses = torch.rand(8, device=device).to(dtype).requires_grad_()
        pruner.update(index, losses, reduction=reduction).sum().backward()  # type: ignore[arg-type]
        assert losses.grad is not None
        assert torch.equal(losses.grad, (weights / divisor).to(dtype))


def test_gradients_flow_into_what_the_losses_were_computed_from(device: torch.device) -> None:
    pruner = half_pruned(device)
    parameter = torch.tensor([1.0, 2.0, 3.0, 4.0], device=device, requires_grad=True)
    losses = parameter**2
    pruner.update(torch.tensor([1, 600, 2, 700]), losses, scores=parameter * 3).backward()
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [1.0, 1.0, 3.0, 2.0]  # weight / 4 * 2 * parameter; nothing from the scores


def test_update_does_not_touch_the_callers_tensors(device: torch.device) -> None:
    pruner = half_pruned(device)
    losses = torch.tensor([1.0, math.nan, 3.0, 1.0], device=device)
    scores, index = losses * 2, torch.tensor([1, 2, 2000, 1], device=device)
    tensors = (losses, scores, index)
    before = [(tensor.clone(), tensor._version) for tensor in tensors]
    result = pruner.update(index, losses, scores=scores, reduction="none")
    result.zero_()
    for tensor, (clone, version) in zip(tensors, before, strict=True):
        assert torch.equal(tensor.nan_to_num(-1), clone.nan_to_num(-1))
        assert tensor._version == version
    with pytest.raises(IndexError, match="2000"):
        _ = pruner.stats


def test_update_needs_neither_contiguous_tensors_nor_losses_with_gradients(device: torch.device) -> None:
    pruner = half_pruned(device)
    index, losses = torch.arange(20)[::2], torch.arange(20.0, device=device)[::2]
    for mode in (nullcontext(), torch.no_grad(), torch.inference_mode()):
        with mode, torch.enable_grad():
            assert pruner.update(index, losses, reduction="sum").item() == 180.0
    assert torch.equal(pruner.scores(index), losses)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_losses_of_every_float_dtype_are_stored_as_float32(device: torch.device, dtype: torch.dtype) -> None:
    pruner = InfoBatch(1000, 10, device=device)
    losses = (torch.rand(1000, device=device) * 10 - 5).to(dtype)
    pruner.update(torch.arange(1000), losses)
    assert torch.equal(pruner.scores(), losses.float())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_separate_scores_are_stored_instead_of_the_losses(device: torch.device, dtype: torch.dtype) -> None:
    pruner = half_pruned(device)
    scores = torch.tensor([5.0, 6.0], dtype=dtype, device=device, requires_grad=True)
    assert record(pruner, [1, 600], [1.0, 1.0], scores=scores).item() == 1.5
    assert pruner.scores([1, 600]).tolist() == [5.0, 6.0]


def test_scores_are_for_the_next_plan_and_weights_come_from_the_current_one(device: torch.device) -> None:
    pruner = half_pruned(device)
    index = torch.tensor([1, 2, 600, 700])
    for _ in range(2):
        weighted = record(pruner, index, [9.0, 9.0, 0.0, 0.0], reduction="none")
        assert weighted.tolist() == [18, 18, 0, 0]
        assert pruner.weights(index).tolist() == [2, 2, 1, 1]
    pruner.set_epoch(2)
    assert pruner.weights(index).tolist() == [1, 1, 2, 2]


def test_an_empty_batch_records_nothing(device: torch.device) -> None:
    pruner = half_pruned(device)
    before = snapshot(pruner)
    empty = torch.empty(0, device=device)
    assert pruner.update(empty.long(), empty, reduction="sum").item() == 0
    assert pruner.update(empty.long(), empty, reduction="none").shape == (0,)
    assert snapshot(pruner) == before


# ---- duplicates ----


def test_of_an_index_that_occurs_twice_in_one_call_the_later_one_wins(device: torch.device) -> None:
    pruner = InfoBatch(500, 10, device=device)
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(500, (50_000,), generator=generator)
    losses = torch.rand(50_000, generator=generator)
    record(pruner, index, losses)
    expected = dict(zip(index.tolist(), losses.tolist(), strict=True))
    assert pruner.scores().tolist() == [expected[sample] for sample in range(500)]
    assert pruner.stats.scored == 50_000


def test_of_duplicates_the_last_finite_one_wins_and_all_weigh_the_same(device: torch.device) -> None:
    pruner = half_pruned(device)
    weighted = record(pruner, [7, 600, 7, 7, 600], [1.0, 1.0, 4.0, math.nan, math.inf], reduction="none")
    assert weighted[:3].tolist() == [2.0, 1.0, 8.0]
    assert pruner.scores([7, 600]).tolist() == [4.0, 1.0]
    assert pruner.stats.non_finite == 2
