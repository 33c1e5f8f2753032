"""What keeps a pruner's memory, and what does not: nobody waits for the garbage collector, which does not see tensors' memory."""

import copy
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from infobatch_fast import InfoBatch, with_index
from infobatch_fast.engine import ops
from support.runs import order, record_all

SIZE = 300


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def watch(pruner: InfoBatch) -> weakref.ref[torch.Tensor]:
    return weakref.ref(pruner.engine.table.scores)


def test_a_pruner_is_gone_with_its_last_name(device: torch.device) -> None:
    pruner = InfoBatch(SIZE, 5, delta=1.0, device=device)
    record_all(pruner)
    pruner.set_epoch(1)
    assert sum(1 for _ in pruner.sampler) == len(pruner.sampler)
    scores = watch(pruner)
    del pruner
    assert scores() is None


def test_a_pruner_is_gone_after_a_loop_that_failed(device: torch.device) -> None:
    pruner = InfoBatch(SIZE, 5, device=device)
    scores = watch(pruner)
    try:
        for _ in pruner.sampler.batches(64):
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    del pruner
    assert scores() is None


def test_scores_live_as_long_as_a_loader_has_the_sampler(device: torch.device) -> None:
    def loader() -> Any:
        return DataLoader(with_index(range(SIZE)), 64, sampler=InfoBatch(SIZE, 5, device=device).sampler)

    kept = loader()
    scores = watch(kept.sampler)
    assert sorted(sample for index, _ in kept for sample in index.tolist()) == list(range(SIZE))
    assert scores() is not None
    del kept
    assert scores() is None


def test_a_sampler_goes_on_where_a_dropped_iterator_was(device: torch.device) -> None:
    pruner, reference = (InfoBatch(SIZE, 5, device=device) for _ in range(2))
    expected = order(reference)
    iterator = iter(pruner.sampler)
    first = [next(iterator) for _ in range(100)]
    del iterator
    assert pruner.sampler.state_dict() == {"epoch": 0, "position": 100}
    pruner.sampler.load_state_dict(pruner.sampler.state_dict())
    assert first + list(pruner.sampler) == expected


def test_a_table_that_was_grown_out_of_is_gone(device: torch.device) -> None:
    pruner = InfoBatch(SIZE, 5, delta=0.0, device=device)
    scores = watch(pruner)
    assert sum(1 for _ in pruner.sampler) == SIZE
    record_all(pruner)
    pruner.grow(2 * SIZE)
    assert scores() is None
    assert len(pruner.sampler) == 2 * SIZE


def test_a_copy_of_a_sampler_goes_on_by_itself(device: torch.device) -> None:
    sampler = InfoBatch(SIZE, 5, device=device).sampler
    again, expected = copy.copy(sampler), sampler.indices().tolist()
    iterator = iter(again)
    first = [next(iterator) for _ in range(10)]
    assert (sampler.state_dict()["position"], again.state_dict()["position"]) == (0, 10)
    assert [*first, *iterator] == expected


def test_too_little_memory_is_told_in_bytes_on_a_cpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> torch.Tensor:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: can't allocate memory")

    pruner = InfoBatch(SIZE, 3)
    monkeypatch.setattr(ops, "empty_table", refuse)
    with pytest.raises(torch.OutOfMemoryError, match=r"the table of 1000 samples needs \d+ bytes on cpu.* Free memory there, or"):
        InfoBatch(1000, 3)
    with pytest.raises(torch.OutOfMemoryError, match=r"the table of 1000 samples needs 4620 bytes"):
        pruner.grow(1000)
    assert pruner.num_samples == SIZE == len(pruner.sampler)
