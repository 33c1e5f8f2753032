"""EL2N and GraNd against slow computations beside them."""

import doctest
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from infobatch_fast import InfoBatch
from infobatch_fast.selection import error_norms, gradient_norms, norms
from support.refusals import raises
from support.syncs import no_host_sync


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_examples_of_the_docstrings_are_real() -> None:
    found = doctest.testmod(norms)
    assert found.failed == 0
    assert found.attempted >= 3


# ---- EL2N ----


def error_by_hand(logits: torch.Tensor, targets: np.ndarray) -> np.ndarray:
    values = logits.double().cpu().numpy()
    chances = np.exp(values - values.max(1, keepdims=True))
    return np.sqrt((((chances / chances.sum(1, keepdims=True)) - targets) ** 2).sum(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 2), (1, 5), (7, 2), (33, 10)])
def test_error_norms_are_those_of_numpy(device: torch.device, shape: tuple[int, int], dtype: torch.dtype) -> None:
    logits = (3 * random(*shape)).to(device, dtype).requires_grad_()
    labels = torch.arange(shape[0], device=device) % shape[1]
    soft = random(*shape, seed=1).softmax(1).to(device)
    for target, by_hand in ((labels, np.eye(shape[1])[labels.cpu()]), (soft, soft.double().cpu().numpy())):
        found = error_norms(logits, target)
        assert found.dtype == torch.float32
        assert found.device == logits.device
        assert not found.requires_grad
        np.testing.assert_allclose(found.cpu().numpy(), error_by_hand(logits.detach(), by_hand), rtol=2e-5, atol=1e-7)


def test_samples_that_are_learned_well_still_differ() -> None:
    margins = torch.tensor([20.0, 25.0, 30.0, 40.0])
    found = error_norms(torch.stack([margins, torch.zeros(4)], 1), torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(found, math.sqrt(2) * torch.exp(-margins), rtol=1e-5, atol=0.0)


def test_error_norms_are_scores_of_update_and_record() -> None:
    logits, labels = random(4, 3), torch.tensor([0, 2, 1, 0])
    losses = functional.cross_entropy(logits, labels, reduction="none")
    pruner = InfoBatch(10, 5)
    pruner.update(torch.arange(4), losses, scores=error_norms(logits, labels))
    pruner.record(torch.arange(4, 8), error_norms(logits, labels))
    assert pruner.scores([0, 1, 2, 3]).tolist() == pruner.scores([4, 5, 6, 7]).tolist() == error_norms(logits, labels).tolist()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_error_norms_wait_for_nothing() -> None:
    logits, labels = random(64, 10).cuda(), torch.zeros(64, dtype=torch.int64, device="cuda")
    with no_host_sync():
        error_norms(logits, labels)


# ---- GraNd ----


class Tied(nn.Module):
    """Two inputs, a weight used twice, a frozen layer, and a buffer that counts calls."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.frozen = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = self.first.weight
        self.frozen.requires_grad_(False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.frozen(torch.tanh(self.second(torch.tanh(self.first(x)) + shift)))


def gradients_by_hand(model: nn.Module, loss: Any, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> torch.Tensor:
    """A backward pass for each sample."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found = []
    for sample in range(len(labels)):
        one = slice(sample, sample + 1)
        gradients = torch.autograd.grad(loss(model(*(part[one] for part in inputs)), labels[one]).sum(), parameters)
        found.append(math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients)))
    return torch.tensor(found)


@pytest.mark.parametrize("chunk_size", [1, 4, 9, 100])
def test_gradient_norms_are_those_of_a_backward_pass_a_sample(device: torch.device, chunk_size: int) -> None:
    torch.manual_seed(0)
    model = Tied().to(device)
    inputs, labels = (random(9, 6).to(device), random(9, 6, seed=1).to(device)), torch.arange(9, device=device) % 3
    expected = gradients_by_hand(model, functional.cross_entropy, inputs, labels)
    found = gradient_norms(model, functional.cross_entropy, inputs, labels, chunk_size=chunk_size)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_convolution_with_batch_normalisation_in_eval_mode(reduction: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    model(random(16, 1, 6, 6))  # so that there are statistics
    model.eval()
    images, labels = random(5, 1, 6, 6, seed=2), torch.tensor([0, 1, 2, 0, 1])

    def loss(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits, label, reduction=reduction)

    found = gradient_norms(model, loss, images, labels)
    torch.testing.assert_close(found, gradients_by_hand(model, loss, (images,), labels), rtol=1e-4, atol=1e-6)


def test_the_model_is_as_it_was(device: torch.device) -> None:
    model = nn.ModuleDict({"tied": Tied(), "idle": nn.Dropout()}).to(device).train()
    model["idle"].eval()
    tied = model["tied"]
    tied.first.bias.grad = torch.ones(6, device=device)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for context in (torch.enable_grad(), torch.no_grad()):
        with context:
            gradient_norms(
                tied, functional.cross_entropy, (random(4, 6).to(device),) * 2, torch.zeros(4, dtype=torch.int64, device=device)
            )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert tied.training
    assert not model["idle"].training
    assert [name for name, value in tied.named_parameters() if value.grad is not None] == ["first.bias"]
    assert torch.equal(tied.first.bias.grad, torch.ones(6, device=device))


def test_dropout_draws_a_mask_for_each_sample_and_none_in_eval_mode() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(50, 1))
    inputs, labels = torch.ones(6, 50), torch.zeros(6, 1)

    def norms_now() -> list[float]:
        return gradient_norms(model, functional.l1_loss, inputs, labels).tolist()

    torch.manual_seed(0)
    assert len(set(norms_now())) > 1
    model.eval()
    assert norms_now() == pytest.approx([math.sqrt(51)] * 6)


def test_no_samples_have_no_norms() -> None:
    assert error_norms(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)).shape == (0,)
    assert gradient_norms(nn.Linear(3, 2), functional.cross_entropy, torch.zeros(0, 3), torch.zeros(0).long()).shape == (0,)


# ---- wrong input ----

ROWS, CLASSES = torch.ones(4, 2), torch.tensor([0, 1, 0, 1])
MODEL, CROSS_ENTROPY = nn.Linear(2, 2), functional.cross_entropy
NORMALISED = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
WITHOUT_STATISTICS = nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False)).eval()
WRONG: list[tuple[Any, type[Exception], str]] = [
    (lambda: error_norms([1.0], CLASSES), TypeError, "logits must be a tensor, got list"),  # type: ignore[arg-type]
    (lambda: error_norms(ROWS, [0]), TypeError, "labels must be a tensor, got list"),  # type: ignore[arg-type]
    (lambda: error_norms(ROWS.long(), CLASSES), TypeError, "logits must be of a floating dtype, got torch.int64"),
    (lambda: error_norms(ROWS[0], CLASSES), ValueError, "logits must be [B, C], got [2]"),
    (lambda: error_norms(torch.ones(4, 3, 2), CLASSES), ValueError, "logits must be [B, C], got [4, 3, 2]"),
    (
        lambda: error_norms(torch.ones(4, 1), CLASSES),
        ValueError,
        "logits must have at least two classes, got [4, 1], whose softmax is always 1",
    ),
    (lambda: error_norms(torch.ones(4, 0), CLASSES), ValueError, "logits must be [B, C], got [4, 0]"),
    (lambda: error_norms(ROWS, CLASSES.int()), TypeError, "labels must be int64 class indices or floating soft labels"),
    (lambda: error_norms(ROWS, CLASSES[:3]), ValueError, "labels of torch.int64 must be [4], as logits are [4, 2], got [3]"),
    (
        lambda: error_norms(ROWS, CLASSES.float()),
        ValueError,
        "labels of torch.float32 must be [4, 2], as logits are [4, 2], got [4]",
    ),
    (lambda: error_norms(ROWS, CLASSES + 1), IndexError, "labels must be in [0, 2), the classes of logits, got 1 to 2"),
    (lambda: error_norms(ROWS, CLASSES - 100), IndexError, "got -100 to -99: leave samples without a label out"),
    (lambda: error_norms(ROWS.to_sparse(), CLASSES), TypeError, "logits must be a plain tensor"),
    (lambda: gradient_norms(len, CROSS_ENTROPY, ROWS, CLASSES), TypeError, "model must be a torch.nn.Module, got builtin"),  # type: ignore[arg-type]
    (lambda: gradient_norms(MODEL, CROSS_ENTROPY, [ROWS], CLASSES), TypeError, "inputs must be a tensor, got list"),  # type: ignore[arg-type]
    (lambda: gradient_norms(MODEL, CROSS_ENTROPY, (), CLASSES), ValueError, "inputs is an empty tuple"),
    (
        lambda: gradient_norms(MODEL, CROSS_ENTROPY, ROWS, CLASSES[:3]),
        ValueError,
        "labels must have as many rows as inputs, 4, got 3",
    ),
    (
        lambda: gradient_norms(MODEL, CROSS_ENTROPY, (ROWS, ROWS[:2]), CLASSES),
        ValueError,
        "labels must have as many rows as inputs[1], 2, got 4",
    ),
    (lambda: gradient_norms(MODEL, CROSS_ENTROPY, ROWS, CLASSES[0]), ValueError, "labels must be of shape [B, ...], got []"),
    (lambda: gradient_norms(MODEL, CROSS_ENTROPY, ROWS, CLASSES, chunk_size=0), ValueError, "chunk_size must be at least 1, got 0"),
    (
        lambda: gradient_norms(nn.Flatten(), CROSS_ENTROPY, ROWS, CLASSES),
        ValueError,
        "model has no parameter with requires_grad=True",
    ),
    (lambda: gradient_norms(nn.LazyLinear(2), CROSS_ENTROPY, ROWS, CLASSES), TypeError, "materialize it first"),
    (lambda: gradient_norms(NORMALISED, CROSS_ENTROPY, ROWS, CLASSES), ValueError, "model has BatchNorm1d at '1', which takes its"),
    (
        lambda: gradient_norms(NORMALISED, CROSS_ENTROPY, ROWS, CLASSES),
        ValueError,
        "no gradient of its own: call model.eval() first",
    ),
    (lambda: gradient_norms(WITHOUT_STATISTICS, CROSS_ENTROPY, ROWS, CLASSES), ValueError, "track_running_stats=True"),
    (
        lambda: gradient_norms(MODEL, lambda out, _: out, ROWS, CLASSES),
        ValueError,
        "loss must return one number for a batch of one",
    ),
    (lambda: gradient_norms(MODEL, lambda out, _: 1.0, ROWS, CLASSES), ValueError, "got float"),  # type: ignore[arg-type, return-value]
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[message for _, _, message in WRONG])
def test_wrong_input_is_named(call: Any, error: type[Exception], message: str) -> None:
    with raises(error, message):
        call()
