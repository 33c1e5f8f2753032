"""torch's defaults and modes, which the user's program sets: nothing here may depend on them."""

import ast
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset

import infobatch_fast
from infobatch_fast import InfoBatch, KeptOnly, QuantileTiers, collate_with_index
from support.runs import snapshot


class Numbers(IterableDataset[tuple[int, int]]):
    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((number, number) for number in range(30))


@contextmanager
def default_device(name: str) -> Iterator[None]:
    before = torch.get_default_device()
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None if before.type == "cpu" else before)


@contextmanager
def default_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def losses_of(batch: list[int], device: torch.device) -> torch.Tensor:
    return torch.tensor([number * 7 % 31 / 4 for number in batch], dtype=torch.float32, device=device)


def build(device: torch.device) -> tuple[InfoBatch, InfoBatch, KeptOnly]:
    """A pruner of dynamic epochs, one of constant ones, and a stream."""
    pruner = InfoBatch(24, 5, delta=1.0, policy=QuantileTiers(), protect=[3, 4], device=device)
    flow = InfoBatch(24, 5, delta=1.0, batch_size=5, steps_per_epoch=4, device=device)
    return pruner, flow, KeptOnly(Numbers(), InfoBatch(30, 3, delta=1.0, device=device))


def live(pruner: InfoBatch, flow: InfoBatch, stream: KeptOnly) -> list[Any]:
    """What came of a short life."""
    device, seen = pruner.device, list[Any]()
    for epoch in range(3):
        pruner.set_epoch(epoch)
        stream.set_epoch(epoch)
        seen.append(list(stream))
        for batch in pruner.sampler.batches(5):
            seen.append(pruner.update(batch, losses_of(batch, device)).item())
        seen += [list(pruner.sampler), pruner.weights([1, 2]).tolist(), pruner.is_kept(3), pruner.sampler.indices(0, 2).tolist()]
        seen += [pruner.scores().nan_to_num(-1).tolist(), *(part.tolist() for part in pruner.histogram(4))]
        seen.append(replace(pruner.stats, plan_seconds=0.0))
    pruner.grow(40, protect=[1])
    for batch in islice(pruner.sampler.batches(5), 2):
        pruner.update(batch, losses_of(batch, device), scores=losses_of(batch, device).double())
    for _ in range(2):
        for batch in list(flow.sampler.batches(5)):  # drawn ahead of the losses, beyond the end of a plan
            seen.append(flow.update(batch, losses_of(batch, device), reduction="sum").item())
    for old in (pruner, flow):
        arguments: dict[str, Any] = {} if old is pruner else {"batch_size": 5, "steps_per_epoch": 4}
        new = InfoBatch(old.num_samples, 5, delta=1.0, device=device, **arguments)
        new.load_state_dict(old.state_dict())
        seen.append(list(new.sampler))
        seen.append({name: value for name, value in snapshot(new).items() if name != "late_ids"})
    index, _ = collate_with_index(list)([(3, "a"), (1, "b")])
    return [*seen, pruner.update(index, losses_of([3, 1], device)).item()]


@contextmanager
def within(mode: AbstractContextManager[Any]) -> Iterator[None]:
    """A mode in which updates are meant all the same."""
    with mode, torch.enable_grad():
        yield


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "meta as the default device": lambda: default_device("meta"),
    "float64 as the default dtype": default_float64,
    "inference mode": lambda: within(torch.inference_mode()),
    "no_grad": lambda: within(torch.no_grad()),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_whole_life_is_the_same_whatever_torchs_defaults_are(device: torch.device, mode: str) -> None:
    expected = live(*build(device))
    with MODES[mode]():
        assert live(*build(device)) == expected


@pytest.mark.parametrize("built_in", ["inference mode", "no_grad", "meta as the default device"])
def test_a_pruner_built_in_a_mode_lives_outside_of_it_and_the_other_way_round(device: torch.device, built_in: str) -> None:
    expected = live(*build(device))
    with MODES[built_in]():
        built = build(device)
    assert live(*built) == expected
    built = build(device)
    with MODES[built_in]():
        assert live(*built) == expected


def test_a_pruner_that_grew_loaded_and_drew_ahead_in_inference_mode_goes_on_outside_of_it(device: torch.device) -> None:
    results = []
    for mode in (nullcontext, torch.inference_mode):
        pruner, flow, _ = build(device)
        with mode():
            list(pruner.sampler)
            pruner.grow(40, protect=[7])
            pruner.load_state_dict(pruner.state_dict())
            drawn = list(flow.sampler.batches(5)) + list(flow.sampler.batches(5))  # into the second plan
        seen = [flow.update(batch, losses_of(batch, device)).item() for batch in drawn]
        seen += [pruner.update(batch, losses_of(batch, device)).item() for batch in pruner.sampler.batches(5)]
        pruner.set_epoch(2)
        pruner.grow(48, protect=[9])
        results.append((seen, list(pruner.sampler), list(flow.sampler), pruner.protected))
    assert results[0] == results[1]


FACTORIES = {
    "tensor",
    "as_tensor",
    "asarray",
    "arange",
    "zeros",
    "ones",
    "empty",
    "full",
    "linspace",
    "rand",
    "randint",
    "randperm",
    "eye",
}


def test_every_tensor_that_the_package_makes_names_its_device() -> None:
    root, nameless = Path(infobatch_fast.__file__).parent, list[str]()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FACTORIES:
                of_torch = isinstance(node.func.value, ast.Name) and node.func.value.id == "torch"
                if of_torch and not any(keyword.arg in ("device", "out") for keyword in node.keywords):
                    nameless.append(f"{path.relative_to(root)}:{node.lineno}")
    assert nameless == []
