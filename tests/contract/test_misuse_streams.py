"""Streams that bring a sample twice are noticed, and what looks like it but is right is not."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from infobatch_fast import KeptOnly
from support.loaders import WORKER_WARNINGS
from support.runs import ARBITRARY, kept_set
from support.streams import SIZE, Pairs, stream_of, train

BATCH = 8
pytestmark = WORKER_WARNINGS


class Unsplit(Pairs):
    """Each worker reads everything."""

    def __iter__(self) -> Iterator[Any]:
        return (self.make(sample) for sample in self.samples)


class Doubled(Pairs):
    """Ids 0, 0, 1, 1 and so on: as many samples as there should be, and half of the ids."""

    def make(self, sample: int) -> Any:
        return super().make(sample // 2)


def half_scored(dataset: Any) -> tuple[Any, KeptOnly, int]:
    """In an epoch that keeps fewer samples than there are."""
    pruner, kept = stream_of(dataset)
    kept.set_epoch(0)
    pruner.update(range(SIZE), torch.arange(SIZE, dtype=torch.float32))
    kept.set_epoch(1)
    assert pruner.stats.kept < SIZE
    return pruner, kept, pruner.stats.kept


@ARBITRARY  # that more losses came than samples is told as well
@pytest.mark.parametrize("persistent", [False, True])
def test_workers_that_read_the_same_samples_are_named_once_with_both_numbers_and_the_remedy(persistent: bool) -> None:
    pruner, kept, count = half_scored(Unsplit())
    loader = DataLoader(kept, BATCH, num_workers=2, persistent_workers=persistent)
    assert len(train(pruner, loader)) == 2 * count
    with pytest.warns(RuntimeWarning, match="epoch 1 of this KeptOnly") as caught:
        kept.set_epoch(2)
    assert len(caught) == 1
    assert f": 2 workers brought {2 * count} samples, but {count} were expected: they read the same" in str(caught[0].message)
    assert "torch.utils.data.get_worker_info()" in str(caught[0].message)
    train(pruner, loader)
    kept.set_epoch(3)  # a warning that is not expected fails the test


@pytest.mark.parametrize("workers", [0, 1])
def test_samples_that_come_twice_from_one_worker_are_named(workers: int) -> None:
    pruner, kept = stream_of(Doubled())
    kept.set_epoch(0)

    def go_on() -> None:
        train(pruner, DataLoader(kept, BATCH, num_workers=workers))
        kept.set_epoch(1)

    with pytest.warns(RuntimeWarning, match=f"epoch 0 of this KeptOnly: at least {SIZE // 2} samples came twice from one worker"):
        go_on()


def test_the_main_process_says_it_at_the_end_of_the_iteration() -> None:
    _, kept = stream_of(Doubled())
    kept.set_epoch(0)
    with pytest.warns(RuntimeWarning, match="came twice from one worker"):
        assert len(list(kept)) == SIZE


def test_of_a_large_stream_a_part_of_the_ids_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infobatch_fast.visits.LOOKED_AT", 68)  # every third of 203
    _, kept = stream_of(Doubled())
    kept.set_epoch(0)
    with pytest.warns(RuntimeWarning, match=f"at least {len(range(0, SIZE // 2, 3))} samples came twice"):
        list(kept)


def test_an_epoch_that_was_broken_off_and_begun_anew_by_other_workers_is_no_misuse() -> None:
    pruner, kept = stream_of(Pairs(range(2000)), size=2000)
    for epoch in range(2):
        kept.set_epoch(epoch)
        for workers in (3, 2, 0):
            train(pruner, DataLoader(kept, BATCH, num_workers=workers), steps=2)
        assert sorted(train(pruner, DataLoader(kept, BATCH))) == kept_set(pruner)
        kept.set_epoch(epoch)
        assert sorted(train(pruner, DataLoader(kept, BATCH, num_workers=2))) == kept_set(pruner)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept.set_epoch(2)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_that_goes_on_after_a_restart_is_no_misuse(workers: int) -> None:
    pruner, kept, count = half_scored(Pairs())
    before = train(pruner, DataLoader(kept, BATCH, num_workers=workers), steps=3)
    again, stream = stream_of(Pairs())
    again.load_state_dict(pruner.state_dict())
    for _ in range(2):  # also where it is selected again
        stream.set_epoch(1)
        after = train(again, DataLoader(stream, BATCH, num_workers=workers))
        assert len(before + after) == count
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream.set_epoch(2)


@ARBITRARY
def test_after_a_restart_workers_that_read_the_same_samples_are_named_by_what_was_left() -> None:
    pruner, kept, count = half_scored(Unsplit())
    before = train(pruner, DataLoader(kept, BATCH), steps=3)
    again, stream = stream_of(Unsplit())
    again.load_state_dict(pruner.state_dict())
    stream.set_epoch(1)
    train(again, DataLoader(stream, BATCH, num_workers=2))
    left = count - len(before)
    with pytest.warns(RuntimeWarning, match=f"2 workers brought {2 * left} samples, but {left} were expected"):
        stream.set_epoch(2)
