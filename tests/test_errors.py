"""Bad input: each error names the argument and the value, and a call that failed has changed nothing."""

import math
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from runs import decisions, record_all, snapshot, train
from torch.utils.data import IterableDataset, SequentialSampler

from infobatch_fast import InfoBatch, InfoBatchBatchSampler, MeanThreshold, QuantileTiers, RandomPruning, ops, with_index


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(10))


class Lengthless:
    def __getitem__(self, index: int) -> int:
        return index


class TooFew(Lengthless):
    def __len__(self) -> int:
        return 10

    def __getitems__(self, indices: list[int]) -> list[int]:
        return indices[:-1]


def raises(kind: type[Exception], *parts: object) -> Any:
    """An error whose message holds all ``parts``, in this order."""
    return pytest.raises(kind, match="(?s)" + ".*".join(re.escape(str(part)) for part in parts))


# ---- the constructor ----

INTS = [(1.5, TypeError), ("a", TypeError), (True, TypeError), (None, TypeError)]
RATIOS = [
    (1.0, ValueError),
    (1.5, ValueError),
    (-0.1, ValueError),
    (math.nan, ValueError),
    (math.inf, ValueError),
    ("a", TypeError),
    ("0.5", TypeError),
    (True, TypeError),
    (None, TypeError),
    ([0.5], TypeError),
]


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (2**40 + 1, ValueError)])
def test_a_number_of_samples_is_in_1_to_2_to_40(value: int, error: type[Exception]) -> None:
    with raises(error, "data_source must be in [1, 1099511627776], got", value):
        InfoBatch(value, 10)


def test_an_empty_data_source_is_refused() -> None:
    with raises(ValueError, "len(data_source) must be in [1, 1099511627776], got 0"):
        InfoBatch([], 10)


@pytest.mark.parametrize(
    ("value", "name"), [(True, "bool"), (10.0, "float"), (None, "NoneType"), (Stream(), "Stream"), (Lengthless(), "Lengthless")]
)
def test_a_data_source_without_length_is_refused(value: Any, name: str) -> None:
    with raises(TypeError, "data_source must be a data set with a length, or the number of its samples, got", name, "is_kept"):
        InfoBatch(value, 10)


def test_a_number_of_samples_may_be_numpys() -> None:
    assert InfoBatch(np.int64(10), 10).num_samples == 10  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "error"), [*INTS, (0, ValueError), (-3, ValueError)])
def test_num_epochs(value: Any, error: type[Exception]) -> None:
    with raises(error, "num_epochs must be", f"got {value!r}"):
        InfoBatch(10, value)


@pytest.mark.parametrize(("value", "error"), [*INTS, (-1, ValueError)])
def test_warmup_epochs(value: Any, error: type[Exception]) -> None:
    with raises(error, "warmup_epochs must be", f"got {value!r}"):
        InfoBatch(10, 10, warmup_epochs=value)


@pytest.mark.parametrize(("value", "error"), [*INTS, (-1, ValueError), (2**64, ValueError)])
def test_seed(value: Any, error: type[Exception]) -> None:
    with raises(error, "seed must be", f"got {value!r}"):
        InfoBatch(10, 10, seed=value)


@pytest.mark.parametrize(("value", "error"), RATIOS)
def test_prune_ratio(value: Any, error: type[Exception]) -> None:
    for make in (lambda r: InfoBatch(10, 10, prune_ratio=r), MeanThreshold, RandomPruning):
        with raises(error, "prune_ratio must be", "in [0, 1)", f"got {value!r}"):
            make(value)


@pytest.mark.parametrize(("value", "error"), RATIOS[1:])
def test_delta(value: Any, error: type[Exception]) -> None:
    with raises(error, "delta must be", "in [0, 1]", f"got {value!r}"):
        InfoBatch(10, 10, delta=value)


@pytest.mark.parametrize("value", [0.5, "mean", MeanThreshold])
def test_policy(value: Any) -> None:
    with raises(TypeError, "policy must be a policy such as QuantileTiers()", f"got {value!r}"):
        InfoBatch(10, 10, policy=value)


def test_policy_together_with_prune_ratio_is_refused() -> None:
    with raises(ValueError, "prune_ratio=0.3 and policy=QuantileTiers(", "were both given", "leave prune_ratio out"):
        InfoBatch(10, 10, prune_ratio=0.3, policy=QuantileTiers())


@pytest.mark.parametrize(
    ("quantiles", "ratios", "error", "message"),
    [
        ((), (), ValueError, "quantiles and prune_ratios must be of one length from 1 to 3, got () and ()"),
        ((0.2,), (0.5, 0.4), ValueError, "quantiles and prune_ratios must be of one length from 1 to 3, got (0.2,) and (0.5, 0.4)"),
        ((0.1, 0.2, 0.3, 0.4), (0.5,) * 4, ValueError, "quantiles and prune_ratios must be of one length from 1 to 3"),
        ((0.8, 0.2), (0.5, 0.5), ValueError, "quantiles must ascend strictly inside (0, 1), got (0.8, 0.2)"),
        ((0.2, 0.2), (0.5, 0.5), ValueError, "quantiles must ascend strictly inside (0, 1), got (0.2, 0.2)"),
        ((0.0,), (0.5,), ValueError, "quantiles must ascend strictly inside (0, 1), got (0.0,)"),
        ((1.0,), (0.5,), ValueError, "got (1.0,)"),
        ((1.5,), (0.5,), ValueError, "quantiles must be in [0, 1], got 1.5"),
        ((math.nan,), (0.5,), ValueError, "quantiles must be in [0, 1], got nan"),
        (("0.5",), (0.5,), TypeError, "quantiles must be a number in [0, 1], got '0.5'"),
        ((0.5,), (1.0,), ValueError, "prune_ratios must be in [0, 1), got 1.0"),
        ((0.5,), ("a",), TypeError, "prune_ratios must be a number in [0, 1), got 'a'"),
        (0.5, (0.5,), TypeError, "quantiles must be a sequence of numbers, got 0.5"),
        ((0.5,), 0.25, TypeError, "prune_ratios must be a sequence of numbers, got 0.25"),
    ],
)
def test_quantile_tiers(quantiles: Any, ratios: Any, error: type[Exception], message: str) -> None:
    with raises(error, message):
        QuantileTiers(quantiles, ratios)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_replicas": 0}, ValueError, "num_replicas must be at least 1, got 0"),
        ({"num_replicas": 1.5}, TypeError, "num_replicas must be an int, got 1.5"),
        ({"num_replicas": True}, TypeError, "num_replicas must be an int, got True"),
        ({"num_replicas": 2}, ValueError, "num_replicas=2 needs a process group"),
        ({"num_replicas": 2, "rank": 1}, ValueError, "num_replicas=2 needs a process group"),
        ({"num_replicas": 2, "rank": 2}, ValueError, "rank must be in [0, 1], got 2"),
        ({"rank": 1}, ValueError, "rank must be in [0, 0], got 1"),
        ({"rank": -1}, ValueError, "rank must be in [0, 0], got -1"),
        ({"rank": "a"}, TypeError, "rank must be an int, got 'a'"),
    ],
)
def test_num_replicas_and_rank_without_a_process_group(arguments: Any, error: type[Exception], message: str) -> None:
    with raises(error, message):
        InfoBatch(10, 10, **arguments)


@pytest.mark.parametrize("value", ["mps", "meta", "nonsense", "cuda:x", -1, 1.5, ["cpu"]])
def test_device(value: Any) -> None:
    with raises(ValueError, "device must be 'cpu' or 'cuda'", f"got {value!r}"):
        InfoBatch(10, 10, device=value)


def test_cuda_without_cuda_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for built, parts in (
        (None, ("built without CUDA", "INFOBATCH_CUDA=ON pip install")),
        ("90", ("torch sees no CUDA", "nvidia-smi")),
    ):
        monkeypatch.setattr(ops, "CUDA_ARCHITECTURES", built)
        for device in ("cuda", "cuda:1", 0):
            with raises(RuntimeError, "device='cuda", *parts):
                InfoBatch(10, 10, device=device)


def test_a_cuda_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "CUDA_ARCHITECTURES", "90")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with raises(ValueError, "device='cuda:2': torch sees 2 CUDA devices, counted from 0"):
        InfoBatch(10, 10, device="cuda:2")


@pytest.mark.parametrize("value", ["later", None, True])
def test_check(value: Any) -> None:
    with raises(ValueError, "check must be", "'deferred'", "'sync'", f"got {value!r}"):
        InfoBatch(10, 10, check=value)


def test_a_pruner_is_not_pickled_into_workers() -> None:
    with raises(TypeError, "InfoBatch cannot be pickled or copied", "state_dict()"):
        pickle.dumps(InfoBatch(10, 10))


# ---- update ----


def in_mid_epoch(device: torch.device) -> InfoBatch:
    """In epoch 1, with a plan of which two samples were visited; sample 3 has not been seen."""
    pruner = InfoBatch(10, 10, delta=1.0, device=device)
    record_all(pruner, [0.1, 0.2, 0.3, math.nan, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    pruner.set_epoch(1)
    train(pruner, batch_size=2, steps=1)
    return pruner


@pytest.fixture
def pruner(device: torch.device) -> InfoBatch:
    return in_mid_epoch(device)


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
    (["a", "b"], TypeError, "index must be a tensor or a sequence of ints, got ['a', 'b']"),
    ("ab", TypeError, "index must be a tensor or a sequence of ints, got 'ab'"),
    (None, TypeError, "index must be a tensor or a sequence of ints, got None"),
    ({1, 2}, TypeError, "index must be a tensor or a sequence of ints, got {1, 2}"),
    ([2**63, 1], TypeError, "index must be a tensor or a sequence of ints, got [9223372036854775808, 1]"),
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


def test_indices_of_every_integer_type_are_taken(pruner: InfoBatch) -> None:
    expected = pruner.weights(torch.tensor([1, 2])).tolist()
    dtypes = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint32, torch.uint64]
    indices: list[Any] = [torch.tensor([1, 2]).to(dtype) for dtype in dtypes]
    for index in [*indices, [1, 2], (1, 2), range(1, 3), np.array([1, 2]), np.array([1, 2], np.int32)]:
        assert pruner.weights(index).tolist() == expected
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
    (torch.tensor([1, 2]), TypeError, "must be of a floating dtype, got torch.int64"),
    (torch.tensor([True, True]), TypeError, "must be of a floating dtype, got torch.bool"),
    (torch.tensor([1j, 1j]), TypeError, "must be of a floating dtype, got torch.complex64"),
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


@pytest.mark.gpu
def test_tensors_on_the_wrong_device(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("needs a second device")
    on_gpu, on_cpu = InfoBatch(10, 10, device=device), InfoBatch(10, 10)
    with raises(ValueError, "losses is on cpu and the pruner on cuda"):
        on_gpu.update([1], torch.ones(1))
    with raises(ValueError, "index is on cuda", "and the pruner on cpu"):
        on_cpu.update(torch.tensor([1], device=device), torch.ones(1))
    with raises(ValueError, "losses is on cuda", "and the pruner on cpu"):
        on_cpu.update([1], torch.ones(1, device=device))


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
        ({"epoch": -1, "position": 0}, ValueError, "epoch must be in [0, 4294967295], got -1"),
        ({"epoch": "a", "position": 0}, TypeError, "epoch must be an int, got 'a'"),
    ],
)
def test_sampler_load_state_dict(pruner: InfoBatch, state: Any, error: type[Exception], message: str) -> None:
    before, position = snapshot(pruner), pruner.sampler.state_dict()
    for sampler in (pruner.sampler, pruner.sampler.batches(2)):
        with raises(error, message):
            sampler.load_state_dict(state)
    assert (snapshot(pruner), pruner.sampler.state_dict()) == (before, position)


# ---- data sets ----


@pytest.mark.parametrize(
    ("dataset", "name"), [(Stream(), "Stream"), (Lengthless(), "Lengthless"), (5, "int"), (iter([1]), "list_iterator")]
)
def test_with_index_of_a_stream(dataset: Any, name: str) -> None:
    with raises(TypeError, "dataset must be map-style", f"got {name}", "is_kept"):
        with_index(dataset)


def test_getitems_that_returns_too_few() -> None:
    with raises(ValueError, "TooFew.__getitems__ returned 2 items for 3 indices"):
        with_index(TooFew()).__getitems__([1, 2, 3])


# ---- load_state_dict ----

WRONG: dict[str, list[Any]] = {
    "format": [0, 2, "1", None, True],
    "algorithm": [0, 99, "1", None],
    "num_samples": [9, 11, 10.0, None],
    "seed": [1, "0", None, torch.zeros(3)],
    "shuffle": [False, 1, None],
    "epoch": [-1, 1.0, "1", None, 2**32],
    "scored": [-1, 1.0, None],
    "planned_samples": [-1, 1.0, None],
    "planned_kept": [-1, 1.0, None],
    "planned": [1, None, "yes"],
    "pruned": [1, None],
    "seen": [-1, 1.0, None],
    "cutoffs": [None, [65536] * 4, torch.ones(3, dtype=torch.int64), torch.ones(4), torch.zeros(4, dtype=torch.int64)],
    "thresholds": [None, [0.5], torch.zeros(2), torch.zeros(3, dtype=torch.float64), torch.full((3,), math.nan)],
    "scores": [
        None,
        [0.0] * 10,
        torch.zeros(9),
        torch.zeros(11),
        torch.zeros(10, 1),
        torch.zeros(10).double(),
        torch.full((10,), math.inf),
    ],
    "marks": [
        None,
        torch.zeros(7, dtype=torch.uint8),
        torch.zeros(9, dtype=torch.uint8),
        torch.zeros(8),
        torch.full((8,), 255, dtype=torch.uint8),
    ],
}
CHANGES = [(name, value) for name, values in WRONG.items() for value in values]


def copied(pruner: InfoBatch) -> dict[str, Any]:
    return {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in pruner.state_dict().items()}


def assert_refused(pruner: InfoBatch, state: Any, *parts: str) -> None:
    """``state`` is refused whole: the pruner, which has a plan, goes on as its twin that never saw it does."""
    before, expected = snapshot(pruner), decisions(pruner)
    position = pruner.sampler.state_dict()
    with raises(ValueError, *parts):
        pruner.load_state_dict(state)
    assert snapshot(pruner) == before
    assert decisions(pruner) == expected
    assert pruner.sampler.state_dict() == position
    twin = in_mid_epoch(pruner.device)
    for _ in range(2):
        assert train(pruner) == train(twin)
    pruner.set_epoch(1)  # not ignored: nothing was loaded
    assert pruner.epoch == 1


def test_the_state_that_the_refused_ones_are_made_from_is_taken(device: torch.device, pruner: InfoBatch) -> None:
    fresh = InfoBatch(10, 10, delta=1.0, device=device)
    fresh.load_state_dict(copied(pruner))
    assert snapshot(fresh) == snapshot(pruner)
    assert set(WRONG) <= set(pruner.state_dict())


@pytest.mark.parametrize(("name", "value"), CHANGES, ids=lambda x: str(x).replace("\n", "")[:40])
def test_a_state_with_a_wrong_value_is_refused_whole(pruner: InfoBatch, name: str, value: Any) -> None:
    assert_refused(pruner, copied(pruner) | {name: value}, "state", name)


@pytest.mark.parametrize("name", WRONG)
def test_a_state_that_lacks_a_field_is_refused_whole(pruner: InfoBatch, name: str) -> None:
    state = copied(pruner)
    del state[name]
    assert_refused(pruner, state, "state must be what InfoBatch.state_dict() returned; missing:", name)


@pytest.mark.parametrize("state", [None, [], "x", {}], ids=repr)
def test_what_is_no_state_is_refused(pruner: InfoBatch, state: Any) -> None:
    assert_refused(pruner, state, "state must be what InfoBatch.state_dict() returned")


@pytest.mark.parametrize(
    ("difference", "other"),
    [("num_samples=11", {"data_source": 11}), ("seed=7", {"seed": 7}), ("shuffle=False", {"shuffle": False})],
)
def test_the_state_of_another_run_is_refused(pruner: InfoBatch, difference: str, other: dict[str, Any]) -> None:
    state = InfoBatch(**{"data_source": 10, "num_epochs": 10, **other}).state_dict()
    assert_refused(pruner, state, "state has", difference, "this pruner")
