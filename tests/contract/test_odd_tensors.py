"""Tensors without numbers in memory of their own: refused by name before native code follows their address."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parameter import UninitializedParameter

from infobatch_fast import InfoBatch
from support.refusals import in_mid_epoch, raises
from support.runs import ARBITRARY, snapshot

pytestmark = ARBITRARY


@pytest.fixture
def pruner(device: torch.device) -> InfoBatch:
    return in_mid_epoch(device)


def fake(size: int, dtype: torch.dtype) -> torch.Tensor:
    with FakeTensorMode():
        return torch.ones(size, dtype=dtype)


ODD: dict[str, Callable[[torch.dtype], torch.Tensor]] = {
    "a FakeTensor": lambda dtype: fake(2, dtype),
    "meta": lambda dtype: torch.ones(2, dtype=dtype, device="meta"),
    "layout torch.sparse_coo": lambda dtype: torch.ones(2, dtype=dtype).to_sparse(),
    "a nested tensor": lambda dtype: torch.nested.nested_tensor([torch.ones(1, dtype=dtype), torch.ones(2, dtype=dtype)]),
    "zeros that torch keeps in no memory": lambda dtype: torch._efficientzerotensor(2, dtype=dtype),
    "an uninitialized": lambda dtype: UninitializedParameter(requires_grad=False, dtype=dtype),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_tensor_is_refused_by_name_at_every_call_and_changes_nothing(kind: str) -> None:
    pruner = in_mid_epoch(torch.device("cpu"))
    before, good, odd = snapshot(pruner), torch.tensor([1, 2]), ODD[kind]
    calls: dict[str, list[Callable[[], object]]] = {
        "index": [
            lambda: pruner.update(odd(torch.int64), torch.ones(2)),
            lambda: pruner.weights(odd(torch.int64)),
            lambda: pruner.is_kept(odd(torch.int64)),
            lambda: pruner.scores(odd(torch.int64)),
        ],
        "losses": [lambda: pruner.update(good, odd(torch.float32))],
        "scores": [lambda: pruner.update(good, torch.ones(2), scores=odd(torch.float32))],
        "protect": [
            lambda: InfoBatch(10, 3, protect=odd(torch.int64)),
            lambda: InfoBatch(10, 3).grow(12, protect=odd(torch.int64)),
        ],
    }
    for name, of_name in calls.items():
        for call in of_name:
            with raises(TypeError, f"{name} must be a plain tensor, got", kind.removeprefix("an uninitialized")):
                call()
    for name in ("scores", "marks", "thresholds"):
        with raises(ValueError, f"state['{name}'] must be a plain tensor, got"):
            pruner.load_state_dict(copy.deepcopy(pruner.state_dict()) | {name: odd(torch.float32)})
    assert snapshot(pruner) == before


@pytest.mark.parametrize("values", [torch.ones(2).to_sparse(), UninitializedParameter()], ids=["sparse", "uninitialized"])
def test_odd_losses_beside_good_scores_record_nothing(values: torch.Tensor) -> None:
    pruner = in_mid_epoch(torch.device("cpu"))
    before = snapshot(pruner)
    with raises(TypeError, "losses must be a plain tensor"):
        pruner.update([1, 2], values, scores=torch.ones(2))
    assert snapshot(pruner) == before


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions")
def test_quantised_losses_are_refused() -> None:
    with raises(TypeError, "losses must be a plain tensor, got a quantised one"):
        InfoBatch(10, 3).update([1, 2], torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.quint8))


TRANSFORMS: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "functionalize": lambda f, x: torch.func.functionalize(f)(x),
    "grad": lambda f, x: torch.func.grad(f)(x),
    "vmap": lambda f, x: torch.vmap(f)(x.expand(3, 2)),
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (x,)),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_torch_func_around_a_pruner_is_refused_and_changes_nothing(pruner: InfoBatch, transform: str) -> None:
    before, index, run = snapshot(pruner), torch.tensor([1, 2], device=pruner.device), TRANSFORMS[transform]
    losses = torch.ones(2, device=pruner.device)
    with raises(TypeError, "losses must be a plain tensor, got one without memory", "outside of torch.func", "docs/loops.md"):
        run(lambda x: pruner.update(index, x), losses)
    with raises(TypeError, "scores must be a plain tensor, got one without memory"):
        run(lambda x: pruner.update(index, losses, scores=x), losses)
    with raises(TypeError, "index must be a plain tensor, got one without memory"):
        run(lambda x: pruner.weights(x.long()), losses)
    assert snapshot(pruner) == before


def test_a_mode_whose_new_tensors_have_no_memory_is_refused_though_the_arguments_do(device: torch.device) -> None:
    pruner, losses = in_mid_epoch(device), torch.ones(2, device=device)
    before, index = snapshot(pruner), torch.tensor([1, 2], device=device)
    new = InfoBatch(10, 3, device=device)

    def in_mode(call: Callable[[], object]) -> None:
        with raises(TypeError, "torch makes tensors without memory here", "outside of torch.func"), FakeTensorMode():
            call()

    for call in (
        lambda: pruner.update(index, losses),
        lambda: pruner.weights(index),
        lambda: pruner.is_kept([1, 2]),
        pruner.scores,
        lambda: len(new.sampler),
        lambda: InfoBatch(10, 3, device=device),
        lambda: new.grow(20),
    ):
        in_mode(call)
    with raises(TypeError, "torch makes tensors without memory here"):
        torch.func.functionalize(lambda x: (len(new.sampler), x)[1])(losses)
    assert snapshot(pruner) == before
    assert len(new.sampler) == 10


class Named(torch.Tensor):
    """A subclass that keeps its numbers as torch does."""


def test_subclasses_that_keep_numbers_as_torch_does_are_taken(device: torch.device) -> None:
    for kind in (Named, torch.nn.Parameter):
        pruner = in_mid_epoch(device)
        losses = torch.tensor([1.5, 2.5], device=device).as_subclass(kind)
        assert pruner.update(torch.tensor([1, 2]).as_subclass(kind if kind is Named else torch.Tensor), losses).isfinite()
        assert pruner.scores([1, 2]).tolist() == [1.5, 2.5]


def test_a_view_whose_sign_is_set_apart_is_recorded_with_its_sign(device: torch.device) -> None:
    for count in (1, 2):
        pruner, index = InfoBatch(10, 3, device=device), list(range(count))
        numbers = torch.tensor([1 + 2j, 3 - 4j], device=device)[:count]
        for view in (numbers.conj().imag, numbers.conj().imag[:count].contiguous(), torch._neg_view(numbers.imag.contiguous())):
            expected = view.tolist()
            assert pruner.update(index, view, reduction="none").tolist() == expected
            assert pruner.scores(index).tolist() == expected
            pruner.update(index, torch.ones(count, device=device), scores=view)
            assert pruner.scores(index).tolist() == expected
        pruner.update(index, numbers.conj().real)
        assert pruner.scores(index).tolist() == numbers.real.tolist()


def test_the_ways_around_torch_func_that_the_page_on_loops_shows(device: torch.device) -> None:
    x, index = torch.arange(4.0, device=device), torch.tensor([5, 1, 2, 7], device=device)

    def loss_of_one(factor: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
        return (factor * one - 1) ** 2

    factor, pruner = torch.tensor(2.0, device=device, requires_grad=True), in_mid_epoch(device)
    pruner.update(index, torch.vmap(loss_of_one, in_dims=(None, 0))(factor, x)).backward()

    def weighted(factor: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        losses = loss_of_one(factor, x)
        return torch.dot(losses, weights) / len(losses), losses

    other = in_mid_epoch(device)
    gradient, losses = torch.func.grad(weighted, has_aux=True)(factor.detach(), other.weights(index))
    other.update(index, losses)
    assert factor.grad is not None
    assert gradient.item() == pytest.approx(factor.grad.item(), rel=1e-6)
    assert snapshot(other) == snapshot(pruner)
