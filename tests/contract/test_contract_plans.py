"""The contract, sentence by sentence: when a plan is made, and what it never touches."""

import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from infobatch_fast import InfoBatch
from infobatch_fast import sampler as sampler_module
from support.runs import ARBITRARY, order, pruner_of, record, record_all, snapshot, train

pytestmark = ARBITRARY

# ---- when a plan is made ----

FIRST_CALLS: dict[str, Callable[[InfoBatch], object]] = {
    "next": lambda pruner: next(iter(pruner.sampler)),
    "len": lambda pruner: len(pruner.sampler),
    "update": lambda pruner: record(pruner, [1], [1.0]),
    "weights": lambda pruner: pruner.weights([1]),
    "is_kept": lambda pruner: pruner.is_kept(1),
    "stats": lambda pruner: pruner.stats,
}


@pytest.mark.parametrize("first", FIRST_CALLS)
def test_a_plan_is_made_once_an_epoch_at_the_first_call_that_needs_it(device: torch.device, made: list[int], first: str) -> None:
    pruner = pruner_of(device)
    for epoch in (0, 1, 4):
        made.clear()
        pruner.set_epoch(epoch)
        FIRST_CALLS[first](pruner)
        assert made == [epoch]
        for call in FIRST_CALLS.values():
            call(pruner)
            pruner.set_epoch(epoch)
        train(pruner)
        assert made == [epoch]


def test_a_plan_is_never_made_in_iter_nor_in_set_epoch(device: torch.device, made: list[int]) -> None:
    pruner = pruner_of(device)
    iterators = []
    for epoch in range(3):
        pruner.set_epoch(epoch)
        iterators += [iter(pruner.sampler), iter(pruner.sampler), iter(pruner.sampler.batches(8))]
        pruner.state_dict()
        pruner.sampler.state_dict()
        repr(pruner)
    assert made == []
    next(iterators[-1])
    assert made == [2]


def test_peeking_at_a_batch_a_second_iter_and_a_broken_off_epoch_change_nothing(device: torch.device, made: list[int]) -> None:
    pruner, reference = pruner_of(device), pruner_of(device)
    for epoch in range(3):
        expected = order(reference)
        next(iter(pruner.sampler))
        iterator = iter(pruner.sampler)
        assert [next(iterator) for _ in range(100)] == expected[:100]
        batches = iter(pruner.sampler.batches(8))
        next(batches)
        iter(pruner.sampler)
        assert (pruner.epoch, len(pruner.sampler)) == (epoch, len(expected))
        assert train(pruner) == expected == train(reference)
        assert snapshot(pruner) == snapshot(reference)
    assert made == [0, 0, 1, 1, 2, 2]


def test_a_broken_off_epoch_starts_again_with_the_same_plan_though_losses_were_recorded(device: torch.device) -> None:
    pruner = pruner_of(device)
    record_all(pruner)
    pruner.set_epoch(1)
    expected = order(pruner)
    assert train(pruner, steps=5) == expected[:40]
    assert (pruner.epoch, len(pruner.sampler)) == (1, len(expected))
    assert train(pruner) == expected


def test_a_plan_may_be_made_while_the_last_batches_are_unscored(device: torch.device) -> None:
    pruner = pruner_of(device)
    train(pruner)
    pruner.set_epoch(1)
    before = pruner.scores()
    batches = list(pruner.sampler.batches(8))
    for batch in batches[:-2]:
        record(pruner, batch, [0.5] * len(batch))
    late = torch.tensor([*batches[-2], *batches[-1]])
    pruner.set_epoch(2)
    assert next(iter(pruner.sampler)) >= 0
    assert torch.equal(pruner.scores(late), before[late.to(before.device)]), "they keep their previous scores"
    record(pruner, late, [0.25] * len(late))  # under the new plan
    assert (pruner.scores(late) == 0.25).all()
    pruner.set_epoch(3)
    assert pruner.stats.seen == 300


def test_an_iterator_of_a_past_epoch_says_so_instead_of_yielding_other_samples(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler_module, "CHUNK", 64)
    pruner = pruner_of(device)
    iterator = iter(pruner.sampler)
    next(iterator)
    pruner.set_epoch(1)
    len(pruner.sampler)
    with pytest.raises(RuntimeError, match="this iterator belongs to epoch 0, but the sampler has moved on to epoch 1"):
        list(iterator)


def test_the_order_does_not_depend_on_the_pieces_in_which_it_is_computed(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruner = pruner_of(device)
    expected = order(pruner)
    for chunk in (1, 5, 8, 299, 300, 301):
        monkeypatch.setattr(sampler_module, "CHUNK", chunk)
        for iterable in (pruner.sampler, pruner.sampler.batches(1), pruner.sampler.batches(7), pruner.sampler.batches(400)):
            pruner.set_epoch(0)
            ids: list[int] = []
            for element in iterable:
                assert type(element) in (int, list)
                ids += [element] if isinstance(element, int) else element
            assert ids == expected
    assert pruner.sampler.indices(17, 42).tolist() == expected[17:42]
    assert pruner.sampler.indices(stop=3).tolist() == expected[:3]
    assert pruner.sampler.indices(300).tolist() == []


# ---- nobody else's state ----


def test_the_users_random_generators_are_never_touched(device: torch.device) -> None:
    def states() -> list[Any]:
        legacy = [str(part.tolist() if isinstance(part, np.ndarray) else part) for part in np.random.get_state()]  # noqa: NPY002
        of_cuda = torch.cuda.get_rng_state(device).tolist() if device.type == "cuda" else None
        return [torch.get_rng_state().tolist(), of_cuda, random.getstate(), legacy]

    for draw in (torch.rand, random.uniform, np.random.uniform):
        draw(1, 2)
    before = states()
    pruner = pruner_of(device)
    for _ in range(3):
        train(pruner)
    pruner.load_state_dict(pruner.state_dict())
    assert pruner.stats.epoch == 3
    assert states() == before


WATCH = """
import torch
import torch.utils.data as data
from torch.utils.data._utils import collate, fetch, worker

modules = [torch, torch.nn.functional, data, data.dataloader, data.sampler, data.distributed, collate, fetch, worker]
classes = [torch.Tensor, *(c for m in modules[2:] for c in vars(m).values() if isinstance(c, type))]
owners = [*modules, *classes]
watched = lambda: [{k: id(v) for k, v in vars(owner).items() if not k.startswith("__")} for owner in owners]
before = watched()
import infobatch_fast
pruner = infobatch_fast.InfoBatch(range(10), 3)
loader = data.DataLoader(infobatch_fast.with_index(range(10)), 4, sampler=pruner.sampler)
for index, x in loader:
    pruner.update(index, x.float())
assert pruner.stats.scored == 10
changed = [str(owner) for owner, old, new in zip(owners, before, watched()) if old != new]
assert not changed, changed
"""


def test_nothing_is_monkeypatched() -> None:
    subprocess.run([sys.executable, "-c", WATCH], check=True)
