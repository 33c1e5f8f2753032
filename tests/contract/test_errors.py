"""Bad input to constructors: each error names the argument and the value."""

import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset

from infobatch_fast import InfoBatch, MeanThreshold, QuantileTiers, RandomPruning, with_index
from infobatch_fast.engine import ops
from support.refusals import INTS, raises


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
    with raises(TypeError, "data_source must be a data set with a length, or the number of its samples, got", name, "KeptOnly"):
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
    with raises(TypeError, "policy must be an object such as RandomPruning(0.5)", f"got {value!r}"):
        InfoBatch(10, 10, policy=value)


class Nameless(MeanThreshold):
    """Its repr tells no settings but an address."""

    __repr__ = object.__repr__


@dataclass(frozen=True)
class WithFunction(MeanThreshold):
    rule: Callable[[float], float] = math.exp


@pytest.mark.parametrize("value", [Nameless(), WithFunction(rule=lambda score: score)], ids=["no dataclass", "a function in it"])
def test_a_policy_whose_repr_differs_between_processes_is_refused(value: MeanThreshold) -> None:
    with raises(TypeError, "policy must have a repr that shows its settings", f"got {value!r}", "a dataclass(frozen=True)"):
        InfoBatch(10, 10, policy=value)
    assert InfoBatch(10, 10, policy=WithFunction()).policy == WithFunction()


def test_policy_together_with_prune_ratio_is_refused() -> None:
    with raises(ValueError, "prune_ratio=0.3 and policy=QuantileTiers(", "were both given", "leave prune_ratio out"):
        InfoBatch(10, 10, prune_ratio=0.3, policy=QuantileTiers())


@pytest.mark.parametrize(
    ("quantiles", "ratios", "error", "message"),
    [
        ((), (), ValueError, "quantiles and prune_ratios must have the same length, from 1 to 3, got () and ()"),
        (
            (0.2,),
            (0.5, 0.4),
            ValueError,
            "quantiles and prune_ratios must have the same length, from 1 to 3, got (0.2,) and (0.5, 0.4)",
        ),
        ((0.1, 0.2, 0.3, 0.4), (0.5,) * 4, ValueError, "quantiles and prune_ratios must have the same length, from 1 to 3"),
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
    with raises(TypeError, "InfoBatch cannot be pickled", "state_dict()", "save_hyperparameters"):
        pickle.dumps(InfoBatch(10, 10))


# ---- data sets ----


@pytest.mark.parametrize(
    ("dataset", "name"), [(Stream(), "Stream"), (Lengthless(), "Lengthless"), (5, "int"), (iter([1]), "list_iterator")]
)
def test_with_index_of_a_stream(dataset: Any, name: str) -> None:
    with raises(TypeError, "dataset must be map-style", f"got {name}", "KeptOnly"):
        with_index(dataset)


def test_getitems_that_returns_too_few() -> None:
    with raises(ValueError, "TooFew.__getitems__ returned 2 items for 3 indices"):
        with_index(TooFew()).__getitems__([1, 2, 3])
