"""Bad input to methods: each error names the argument and the value, and a call that failed has changed nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import SequentialSampler

from infobatch_fast import InfoBatch, InfoBatchBatchSampler
from infobatch_fast.engine.checks import check_index
from support.refusals import INTS, in_mid_epoch, raises
from support.runs import snapshot


@pytest.fixture
def pruner(device: torch.device) -> InfoBatch:
    return in_mid_epoch(device)


# ---- update ----


INDICES = [
    (torch.tensor([1.0, 2.0]), TypeError, "index must be of an integer dtype, got torch.float32"),
    (torch.tensor([1.0, 2.0], dtype=torch.float16), TypeError, "index must be of an integer dtype, got torch.float16"),
    (torch.tensor([True, False]), TypeError, "index must be of an integer dtype, got torch.bool"),
    (torch.tensor([1j, 2j]), TypeError, "index must be of an integer dtype, got torch.complex64"),
    (torch.tensor([[1], [2]]), ValueError, "index must be of shape [B], got [2, 1]"),
    (torch.tensor(1), ValueError, "index must be of shape [B], got []"),
    ([[1, 2]], ValueError, "index must be of shape [B], got [1, 2]"),
    ([1.0, 2.0], TypeError, "index must be of an integer dtype, got torch.float"),
    ([True, False], TypeError, "index must be of an integer dtype, got torch.bool"),
    (True, TypeError, "index must be of an integer dtype, got torch.bool"),
    (1.0, TypeError, "index must be of an integer dtype, got torch.float"),
    (np.array([1.0, 2.0]), TypeError, "index must be of an integer dtype, got torch.float64"),
    (["a", "b"], TypeError, "index must be a tensor or a sequence of ints below 2^63, got ['a', 'b']"),
    ("ab", TypeError, "index must be a tensor or a sequence of ints below 2^63, got 'ab'"),
    (None, TypeError, "index must be a tensor or a sequence of ints below 2^63, got None"),
    ({1, 2}, TypeError, "index must be a tensor or a sequence of ints below 2^63, got {1, 2}"),
    (np.array(1), ValueError, "index must be of shape [B], got []: pass one index for each sample"),
    (np.array([True, False]), TypeError, "index must be of an integer dtype, got torch.bool"),
    (np.bool_(True), TypeError, "index must be of an integer dtype, got torch.bool"),
    (np.array(["1", "2"]), TypeError, "index must be a tensor or a sequence of ints below 2^63, got array"),
    (np.array([1, 2**63 + 5], np.uint64), ValueError, "index must be below 2^63, got 9223372036854775813: pass int64"),
    (torch.tensor([2**63, 1], dtype=torch.uint64), ValueError, "index must be below 2^63, got 9223372036854775808"),
    (np.uint64(2**63), ValueError, "index must be below 2^63, got 9223372036854775808"),
    (2**70, TypeError, "index must be a tensor or a sequence of ints below 2^63, got 1180591620717411303424"),
    ([2**63, 1], TypeError, "index must be a tensor or a sequence of ints below 2^63, got [9223372036854775808, 1]"),
]


@pytest.mark.parametrize(("index", "error", "message"), INDICES)
def test_index(pruner: InfoBatch, index: Any, error: type[Exception], message: str) -> None:
    before = snapshot(pruner)
    losses = torch.ones(2, device=pruner.device)
    calls: list[Callable[[], object]] = [
        lambda: pruner.update(index, losses),
        lambda: pruner.weights(index),
        lambda: pruner.is_kept(index),
    ]
    for call in calls:
        with raises(error, message):
            call()
    assert snapshot(pruner) == before


def test_an_index_of_the_cpu_is_refused_while_a_cuda_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    for index in (torch.arange(4), [1, 2], 3):
        with pytest.raises(RuntimeError, match=r"index is on the CPU .* put it on cuda:1 before capturing"):
            check_index(index, torch.device("cuda:1"))
    assert check_index(torch.arange(4), torch.device("cpu")).tolist() == [0, 1, 2, 3]


def test_indices_of_every_integer_type_are_taken(pruner: InfoBatch) -> None:
    expected = pruner.weights(torch.tensor([1, 2])).tolist()
    dtypes = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint32, torch.uint64]
    indices: list[Any] = [torch.tensor([1, 2]).to(dtype) for dtype in dtypes]
    backwards, sealed = np.arange(4)[2:0:-1], np.array([1, 2])
    sealed.flags.writeable = False
    arrays = [
        np.array([1, 2]),
        np.array([1, 2], np.int32),
        backwards[::-1],
        np.array([1, 2], ">i8"),
        sealed,
        list(np.array([1, 2])),
        list(np.array([1, 2], np.uint64)),
    ]
    for index in [*indices, [1, 2], (1, 2), range(1, 3), *arrays]:
        assert pruner.weights(index).tolist() == expected
    assert pruner.weights(backwards).tolist() == expected[::-1]
    assert pruner.weights(np.int64(1)).tolist() == pruner.weights(np.uint64(1)).tolist() == expected[:1]  # type: ignore[arg-type]
    for nothing in ([], (), range(0), np.array([]), np.array([], np.int32)):
        assert pruner.weights(nothing).tolist() == []  # type: ignore[arg-type]
    assert pruner.weights(1).tolist() == expected[:1]
    assert type(pruner.is_kept(1)) is bool


LOSSES = [
    (
        torch.tensor(1.0),
        ValueError,
        "must hold one number for each of the 2 indices, got shape []: compute the loss with reduction='none'",
    ),
    (torch.ones(3), ValueError, "must hold one number for each of the 2 indices, got shape [3]"),
    (torch.ones(1), ValueError, "must hold one number for each of the 2 indices, got shape [1]"),
    (
        torch.ones(2, 5),
        ValueError,
        "must hold one number for each of the 2 indices, got shape [2, 5]: reduce to one number a sample",
    ),
    (torch.ones(2, 1), ValueError, "must hold one number for each of the 2 indices, got shape [2, 1]"),
    (torch.tensor([1, 2]), TypeError, "must be float16, bfloat16, float32 or float64, got torch.int64"),
    (torch.tensor([True, True]), TypeError, "must be float16, bfloat16, float32 or float64, got torch.bool"),
    (torch.tensor([1j, 1j]), TypeError, "must be float16, bfloat16, float32 or float64, got torch.complex64"),
    ([1.0, 2.0], TypeError, "must be a tensor, got list"),
    (1.0, TypeError, "must be a tensor, got float"),
    (np.ones(2), TypeError, "must be a tensor, got ndarray"),
]


@pytest.mark.parametrize(("values", "error", "message"), LOSSES)
def test_losses_and_scores(pruner: InfoBatch, values: Any, error: type[Exception], message: str) -> None:
    before = snapshot(pruner)
    good = torch.ones(2, device=pruner.device)
    values = values.to(pruner.device) if isinstance(values, torch.Tensor) else values
    with raises(error, "losses", message):
        pruner.update(torch.tensor([1, 2]), values)
    with raises(error, "scores", message):
        pruner.update(torch.tensor([1, 2]), good, scores=values)
    assert snapshot(pruner) == before


def test_the_number_of_a_batch_is_no_index(pruner: InfoBatch) -> None:
    with raises(ValueError, "each of the 1 indices, got shape [3]: pass the indices that the batch came with"):
        pruner.update(torch.tensor([1]), torch.ones(3, device=pruner.device))


def test_losses_must_be_there(pruner: InfoBatch) -> None:
    with raises(TypeError, "losses must be a tensor, got NoneType"):
        pruner.update(torch.tensor([1]), None)  # type: ignore[arg-type]


def test_an_index_of_another_length_than_the_losses(pruner: InfoBatch) -> None:
    before = snapshot(pruner)
    with raises(ValueError, "losses must hold one number for each of the 3 indices, got shape [2]"):
        pruner.update(torch.tensor([1, 2, 3]), torch.ones(2, device=pruner.device))
    assert snapshot(pruner) == before


@pytest.mark.parametrize("value", ["avg", None, True, "MEAN"])
def test_reduction(pruner: InfoBatch, value: Any) -> None:
    before = snapshot(pruner)
    with raises(ValueError, "reduction must be", "'mean'", "'sum'", "'none'", f"got {value!r}"):
        pruner.update(torch.tensor([1]), torch.ones(1, device=pruner.device), reduction=value)
    assert snapshot(pruner) == before


# ---- epochs and samplers ----


@pytest.mark.parametrize(("value", "error"), [*INTS, (-1, ValueError), (2**32, ValueError)])
def test_set_epoch(pruner: InfoBatch, value: Any, error: type[Exception]) -> None:
    before = snapshot(pruner)
    for call in (pruner.set_epoch, pruner.sampler.set_epoch, pruner.sampler.batches(2).set_epoch):
        with raises(error, "epoch must be", f"got {value!r}"):
            call(value)
    assert snapshot(pruner) == before


@pytest.mark.parametrize(("value", "error"), [*INTS, (0, ValueError), (-8, ValueError)])
def test_batch_size(pruner: InfoBatch, value: Any, error: type[Exception]) -> None:
    with raises(error, "batch_size must be", f"got {value!r}"):
        pruner.sampler.batches(value)


def test_a_batch_sampler_around_another_sampler_would_undo_the_pruning() -> None:
    with raises(TypeError, "sampler must be an InfoBatchSampler, got SequentialSampler"):
        InfoBatchBatchSampler(SequentialSampler(range(10)), 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("start", "stop", "error", "message"),
    [
        (-1, 2, ValueError, "got -1"),
        (0, 11, ValueError, "got 11"),
        (11, None, ValueError, "got 11"),
        (3, 2, ValueError, "got 2"),
        (0.5, 2, TypeError, "start must be an int, got 0.5"),
        (0, 2.5, TypeError, "stop must be an int, got 2.5"),
        ("a", 2, TypeError, "start must be an int, got 'a'"),
    ],
)
def test_indices(device: torch.device, start: Any, stop: Any, error: type[Exception], message: str) -> None:
    with raises(error, message):
        InfoBatch(10, 10, device=device).sampler.indices(start, stop)


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ({}, ValueError, "with epoch and position, got {}"),
        (None, ValueError, "with epoch and position, got None"),
        ("x", ValueError, "with epoch and position, got 'x'"),
        ([0, 1], ValueError, "with epoch and position, got [0, 1]"),
        ({"epoch": 2}, ValueError, "with epoch and position, got {'epoch': 2}"),
        ({"epoch": 2, "position": -1}, ValueError, "state['position'] must be at least 0, got -1"),
        ({"epoch": 2, "position": 1.5}, TypeError, "state['position'] must be an int, got 1.5"),
        ({"epoch": -1, "position": 0}, ValueError, "state['epoch'] must be in [0, 4294967295], got -1"),
        ({"epoch": "a", "position": 0}, TypeError, "state['epoch'] must be an int, got 'a'"),
    ],
)
def test_sampler_load_state_dict(pruner: InfoBatch, state: Any, error: type[Exception], message: str) -> None:
    before, position = snapshot(pruner), pruner.sampler.state_dict()
    for sampler in (pruner.sampler, pruner.sampler.batches(2)):
        with raises(error, message):
            sampler.load_state_dict(state)
    assert (snapshot(pruner), pruner.sampler.state_dict()) == (before, position)
