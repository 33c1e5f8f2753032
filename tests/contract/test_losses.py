"""``per_sample`` and its companions: each sample's own mean, in plain Python beside it, and the gradient that goes with it."""

import doctest
import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from infobatch_fast import InfoBatch, losses, per_sample, pixel_losses, token_losses
from support.refusals import raises
from support.syncs import no_host_sync

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(*shape, generator=GENERATOR, dtype=torch.float64).to(dtype)


def by_hand(loss: torch.Tensor, samples: list[int], weights: torch.Tensor, reduction: str) -> dict[int, float]:
    """The mean or sum of each sample's elements, in a loop."""
    sums: dict[int, list[float]] = {}
    for sample, row, row_weights in zip(samples, loss.flatten(1).tolist(), weights.flatten(1).tolist(), strict=True):
        entry = sums.setdefault(sample, [0.0, 0.0])
        for value, weight in zip(row, row_weights, strict=True):
            entry[0] += value * weight
            entry[1] += weight
    return {sample: total if reduction == "sum" else total / count if count else 0.0 for sample, (total, count) in sums.items()}


def test_the_examples_of_the_docstrings_are_real() -> None:
    assert doctest.testmod(losses).failed == 0
    assert doctest.testmod(losses).attempted >= 5


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", [(1,), (5,), (5, 1), (4, 7), (3, 2, 4), (2, 3, 4, 5)])
def test_each_sample_gets_the_mean_of_its_own_elements(device: torch.device, shape: tuple[int, ...], reduction: Any) -> None:
    loss, ones = random(*shape), torch.ones(shape)
    expected = by_hand(loss.reshape(shape[0], -1), list(range(shape[0])), ones.reshape(shape[0], -1), reduction)
    result = per_sample(loss.to(device), reduction=reduction)
    torch.testing.assert_close(result.cpu(), torch.tensor(list(expected.values()), dtype=torch.float64))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", [torch.bool, torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("mask_shape", [(4, 6, 3), (4, 6, 1), (1, 6, 3), (4, 6), (4, 1), (4,), (1,)])
def test_only_what_the_mask_counts_counts(
    device: torch.device, mask_shape: tuple[int, ...], kind: torch.dtype, reduction: Any
) -> None:
    loss = random(4, 6, 3)
    mask = (random(*mask_shape) * 3).to(kind)
    whole = mask.reshape(*mask_shape, *[1] * (3 - len(mask_shape))).expand(4, 6, 3)
    expected = by_hand(loss, list(range(4)), whole.double(), reduction)
    result = per_sample(loss.to(device), mask=mask.to(device), reduction=reduction)
    torch.testing.assert_close(result.cpu(), torch.tensor(list(expected.values()), dtype=torch.float64))


def test_what_does_not_count_may_be_nan_and_gets_no_gradient(device: torch.device) -> None:
    loss = torch.tensor([[1.0, math.nan], [math.inf, math.nan], [2.0, 4.0]], device=device, requires_grad=True)
    mask = torch.tensor([[True, False], [False, False], [True, True]], device=device)
    result = per_sample(loss, mask=mask)
    assert result.tolist() == [1.0, 0.0, 3.0]
    result.sum().backward()
    assert loss.grad is not None
    assert loss.grad.tolist() == [[1.0, 0.0], [0.0, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("masked", [False, True])
def test_boxes_go_to_the_image_that_they_are_in(device: torch.device, masked: bool, reduction: Any) -> None:
    image_of_box = torch.tensor([3, 0, 3, 3, 5, 0])  # images 1, 2 and 4 have none
    loss, weights = random(6, 4), (random(6, 4) > 0.5).double() if masked else torch.ones(6, 4)
    expected = dict.fromkeys(range(6), 0.0) | by_hand(loss, image_of_box.tolist(), weights, reduction)
    mask = weights.bool().to(device) if masked else None
    result = per_sample(loss.to(device), image_of_box.to(device), mask, num_samples=6, reduction=reduction)
    torch.testing.assert_close(result.cpu(), torch.tensor([expected[image] for image in range(6)], dtype=torch.float64))


def test_rows_of_one_sample_share_its_mean_and_their_gradient_is_that_of_the_mean_over_rows(device: torch.device) -> None:
    ids = torch.tensor([70, 8, 70, 2**40, 8, 70], device=device)
    values = random(6, 3, dtype=torch.float32).to(device)
    loss = values.clone().requires_grad_()
    result = per_sample(loss, ids)
    expected = by_hand(values.cpu(), ids.tolist(), torch.ones(6, 3), "mean")
    torch.testing.assert_close(result.cpu(), torch.tensor([expected[sample] for sample in ids.tolist()]))
    result.mean().backward()
    assert loss.grad is not None
    torch.testing.assert_close(loss.grad, torch.full((6, 3), 1 / 18, device=device))


def test_rows_of_one_sample_are_scored_by_their_mean(device: torch.device) -> None:
    pruner = InfoBatch(100, 10, device=device)
    ids = torch.tensor([7, 9, 7, 7], device=device)
    loss = torch.tensor([1.0, 5.0, 2.0, 6.0], device=device)
    assert pruner.update(ids, per_sample(loss, ids)).item() == 3.5
    assert pruner.scores([7, 9]).tolist() == [3.0, 5.0]


def test_gradients_are_those_of_the_function() -> None:
    loss = random(5, 3).requires_grad_()
    mask = random(5, 3) > 0.4
    for arguments in ({}, {"index": torch.tensor([1, 0, 1, 3, 3])}, {"index": torch.tensor([1, 0, 1, 3, 3]), "num_samples": 4}):
        for reduction in ("mean", "sum"):
            assert torch.autograd.gradcheck(
                lambda x, a=arguments, r=reduction: per_sample(x, mask=mask, reduction=r, **a),  # type: ignore[misc]
                loss,
            )


@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_half_precision_is_added_up_in_float32(device: torch.device, dtype: torch.dtype, result: torch.dtype) -> None:
    loss = torch.ones(2, 70_000, dtype=dtype, device=device)
    assert per_sample(loss).dtype == result
    assert per_sample(loss).tolist() == [1.0, 1.0]
    assert per_sample(loss, reduction="sum").tolist() == [70_000.0, 70_000.0]


@pytest.mark.parametrize("shape", [(0,), (0, 5), (3, 0), (0, 0)])
def test_nothing_at_all_gives_zeros(device: torch.device, shape: tuple[int, ...]) -> None:
    loss = torch.ones(shape, device=device)
    index = torch.zeros(shape[0], dtype=torch.int64, device=device)
    zeros = [0.0] * shape[0]
    assert per_sample(loss).tolist() == zeros
    assert per_sample(loss, mask=torch.ones_like(loss)).tolist() == zeros
    assert per_sample(loss, index).tolist() == zeros
    assert per_sample(loss, index, num_samples=3).tolist() == [0.0] * 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_no_host_sync() -> None:
    loss, ids = torch.rand(64, 9, device="cuda"), torch.arange(64, device="cuda") // 3
    logits, labels = torch.rand(4, 9, 11, device="cuda"), torch.zeros(4, 9, dtype=torch.int64, device="cuda")
    with no_host_sync():
        for arguments in ({}, {"index": ids}, {"index": ids, "num_samples": 22}):
            per_sample(loss, mask=loss > 0.5, **arguments)  # type: ignore[arg-type]
        token_losses(logits, labels)


# ---- tokens and pixels ----


def test_tokens_are_those_of_a_causal_language_model(device: torch.device) -> None:
    logits, labels = random(3, 7, 11).to(device), (random(3, 7) * 11).long().to(device)
    labels[0, 4:] = -100
    labels[2] = -100
    values, mask = token_losses(logits, labels)
    assert mask.sum(1).tolist() == [3, 6, 0]
    # what transformers computes: the mean over all tokens of the batch
    expected = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    torch.testing.assert_close(per_sample(values, mask=mask, reduction="sum").sum() / mask.sum(), expected)
    for sample in range(2):
        alone = functional.cross_entropy(logits[sample, :-1], labels[sample, 1:], ignore_index=-100)
        torch.testing.assert_close(per_sample(values, mask=mask)[sample], alone)
    assert per_sample(values, mask=mask)[2] == 0


def test_tokens_without_shift_and_with_another_ignored_label(device: torch.device) -> None:
    logits, labels = (
        random(2, 5, 4, dtype=torch.float32).to(device),
        torch.tensor([[0, 1, 2, 3, 3], [3, 3, 0, 1, 2]], device=device),
    )
    values, mask = token_losses(logits, labels, ignore_index=3, shift=False)
    assert mask.tolist() == [[True, True, True, False, False], [False, False, True, True, True]]
    whole = functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    torch.testing.assert_close(values, whole * mask)


def test_pixels_that_are_ignored_do_not_count(device: torch.device) -> None:
    logits, labels = random(2, 3, 4, 5).to(device), (random(2, 4, 5) * 3).long().to(device)
    labels[0, :2] = 255
    values, mask = pixel_losses(logits, labels, ignore_index=255)
    for sample in range(2):
        alone = functional.cross_entropy(logits[sample : sample + 1], labels[sample : sample + 1], ignore_index=255)
        torch.testing.assert_close(per_sample(values, mask=mask)[sample], alone)


def test_logits_of_half_precision_are_computed_in_float32(device: torch.device) -> None:
    logits, labels = random(2, 5, 4).to(device, torch.bfloat16), torch.zeros(2, 5, dtype=torch.int64, device=device)
    assert token_losses(logits, labels)[0].dtype == torch.float32
    assert torch.equal(token_losses(logits, labels)[0], token_losses(logits.float(), labels)[0])
    assert pixel_losses(logits.transpose(1, 2), labels)[0].dtype == torch.float32


# ---- wrong input ----

ROWS = torch.ones(4, 2)
WRONG: list[tuple[Any, type[Exception], str]] = [
    (lambda: per_sample([1.0]), TypeError, "loss must be a tensor, got list"),  # type: ignore[arg-type]
    (lambda: per_sample(torch.ones(3, dtype=torch.int64)), TypeError, "loss must be of a floating dtype, got torch.int64"),
    (lambda: per_sample(torch.tensor(1.0)), ValueError, "loss must be of shape [B, ...], got []"),
    (lambda: per_sample(ROWS, reduction="max"), ValueError, "reduction must be one of 'mean', 'sum', got 'max'"),  # type: ignore[arg-type]
    (lambda: per_sample(ROWS, num_samples=4), ValueError, "num_samples=4 is the range of index, which was not given"),
    (lambda: per_sample(ROWS, [0, 1, 2, 3]), TypeError, "index must be a tensor, got list"),  # type: ignore[arg-type]
    (lambda: per_sample(ROWS, torch.ones(4)), TypeError, "index must be of an integer dtype, got torch.float32"),
    (lambda: per_sample(ROWS, torch.ones(4) > 0), TypeError, "index must be of an integer dtype, got torch.bool"),
    (
        lambda: per_sample(ROWS, torch.arange(3)),
        ValueError,
        "index must hold one number for each of the 4 rows of loss, got shape [3]",
    ),
    (lambda: per_sample(ROWS, torch.arange(4), num_samples=3), IndexError, "index must hold positions in [0, 3), got 0 to 3"),
    (lambda: per_sample(ROWS, torch.arange(4) - 1, num_samples=4), IndexError, "index must hold positions in [0, 4), got -1 to 2"),
    (lambda: per_sample(ROWS, torch.arange(4), num_samples=-1), ValueError, "num_samples must be at least 0, got -1"),
    (lambda: per_sample(ROWS, torch.arange(4), num_samples=4.0), TypeError, "num_samples must be an int, got 4.0"),  # type: ignore[arg-type]
    (lambda: per_sample(ROWS, mask=[True]), TypeError, "mask must be a tensor, got list"),  # type: ignore[arg-type]
    (
        lambda: per_sample(ROWS, mask=torch.ones(2) > 0),
        ValueError,
        "mask must have the shape [4, 2] of loss, or its first dimensions",
    ),
    (lambda: per_sample(ROWS, mask=torch.ones(4, 2, 1) > 0), ValueError, "got [4, 2, 1]"),
    (lambda: per_sample(ROWS, mask=torch.ones(4, dtype=torch.complex64)), TypeError, "mask must be of a bool or real dtype"),
    (lambda: token_losses(torch.ones(2, 3), torch.ones(2, 3).long()), ValueError, "logits must be [B, T, V] and labels [B, T]"),
    (lambda: token_losses(torch.ones(2, 3, 4), torch.ones(2, 4).long()), ValueError, "got [2, 3, 4] and [2, 4]"),
    (lambda: token_losses(torch.ones(2, 3, 4), torch.ones(2, 3)), TypeError, "labels must be int64, got torch.float32"),
    (
        lambda: pixel_losses(torch.ones(2, 3, 4), torch.ones(2, 3).long()),
        ValueError,
        "logits must be [B, C, ...] and labels [B, ...]",
    ),
    (lambda: pixel_losses(torch.ones(2).long(), torch.ones(2).long()), TypeError, "logits must be of a floating dtype"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[message for _, _, message in WRONG])
def test_wrong_input_is_named(call: Any, error: type[Exception], message: str) -> None:
    with raises(error, message):
        call()
