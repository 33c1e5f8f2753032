"""KeptOnly in DataLoaders: the plan's samples come and no others, each loss finds its sample, and stale plans are named."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from infobatch_fast import InfoBatch, KeptOnly
from support.loaders import KINDS, WORKER_WARNINGS
from support.refusals import raises
from support.runs import ARBITRARY, kept_set
from support.streams import SIZE, Dicts, Pairs, Places, Positioned, assert_recorded, id_in_name, item, stream_of, train

BATCH = 8
pytestmark = WORKER_WARNINGS
LOADERS = {name: kind for name, kind in KINDS.items() if name != "prefetch"}


@pytest.mark.parametrize("kind", LOADERS)
def test_an_epoch_brings_what_the_plan_keeps_and_every_loss_finds_its_sample(device: torch.device, kind: str) -> None:
    pruner, kept = stream_of(Pairs(), device=device)
    loader = DataLoader(kept, BATCH, **LOADERS[kind])
    lengths = []
    for epoch in range(3):
        kept.set_epoch(epoch)
        expected = kept_set(pruner)
        visited = train(pruner, loader)
        assert sorted(visited) == expected
        assert_recorded(pruner, visited, epoch)
        assert pruner.stats.scored == pruner.stats.kept == len(visited)
        lengths.append(len(visited))
    assert lengths[0] == SIZE
    assert max(lengths[1:]) < 0.9 * SIZE
    assert 2.0 in pruner.weights(visited).tolist()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("dataset", "key"),
    [(Dicts(), "id"), (Dicts(), id_in_name), (Places(), 1), (Places(), -1)],
    ids=["name", "function", "place", "end"],
)
def test_the_id_is_where_key_says(dataset: Any, key: Any, workers: int) -> None:
    pruner, kept = stream_of(dataset, key)
    for epoch in range(2):
        kept.set_epoch(epoch)
        visited = train(pruner, DataLoader(kept, BATCH, num_workers=workers))
        assert_recorded(pruner, visited, epoch)
        assert sorted(visited) == kept_set(pruner)
    assert len(visited) < SIZE


def test_samples_come_unchanged_beside_their_id() -> None:
    _, kept = stream_of(Dicts(), "id")
    kept.set_epoch(0)
    index, sample = next(iter(kept))
    assert index == SIZE - 1
    assert sample.keys() == {"x", "id", "name"}
    assert torch.equal(sample["x"], item(SIZE - 1))


@pytest.mark.parametrize("chunk", [8, 64, 1 << 20])
@pytest.mark.parametrize("size", [1, 7, 8, 9, 64, 65, 203])
def test_the_bits_are_right_at_every_size_whatever_the_chunk(monkeypatch: pytest.MonkeyPatch, size: int, chunk: int) -> None:
    monkeypatch.setattr("infobatch_fast.streams.CHUNK", chunk)
    pruner, kept = stream_of(Pairs(range(size)), size=size)
    for epoch in range(3):
        kept.set_epoch(epoch)
        assert sorted(train(pruner, DataLoader(kept, 1))) == kept_set(pruner)


def test_a_sample_that_was_never_seen_is_kept() -> None:
    pruner, kept = stream_of(Pairs())
    kept.set_epoch(0)
    pruner.update(range(100), torch.ones(100).index_fill(0, torch.arange(50), 0.5))
    kept.set_epoch(1)
    came = [index for index, _ in kept]
    assert set(range(50, SIZE)) <= set(came)
    assert len(came) < SIZE


def test_shared_memory_is_a_bit_a_sample() -> None:
    _, kept = stream_of(Pairs(), size=1_000_000)
    assert kept._bits.numel() == 125_000
    assert kept._bits.is_shared()


@ARBITRARY
def test_the_wrapped_data_sets_set_epoch_is_called_with_the_epoch_in_force() -> None:
    dataset = Positioned()
    pruner, kept = stream_of(dataset)
    kept.set_epoch(4)
    assert (pruner.epoch, dataset.epoch) == (4, 4)
    later, again = stream_of(dataset)
    later.load_state_dict(pruner.state_dict())
    again.set_epoch(0)  # a trainer that counts from 0 after a restart
    assert (later.epoch, dataset.epoch) == (4, 4)


# ---- plans that are not in force ----


@pytest.mark.parametrize("kind", ["no workers", "two workers", "persistent"])
def test_a_forgotten_set_epoch_is_an_error_and_not_a_stale_plan(kind: str) -> None:
    pruner, kept = stream_of(Pairs())
    loader = DataLoader(kept, BATCH, **LOADERS[kind])
    with raises(RuntimeError, "no epoch is selected: call set_epoch(epoch) of this KeptOnly"):
        train(pruner, loader)
    kept.set_epoch(0)
    train(pruner, loader)
    with raises(RuntimeError, "epoch 0 was iterated to its end: call set_epoch(epoch) of this KeptOnly"):
        train(pruner, loader)
    pruner.set_epoch(1)  # of the pruner alone
    with raises(RuntimeError, "epoch 0 was iterated to its end"):
        train(pruner, loader)
    kept.set_epoch(1)
    assert sorted(train(pruner, loader)) == kept_set(pruner)


@pytest.mark.parametrize("kind", ["no workers", "two workers", "persistent"])
def test_set_epoch_of_the_pruner_alone_is_an_error_after_an_epoch_that_was_broken_off(kind: str) -> None:
    pruner, kept = stream_of(Pairs())
    loader = DataLoader(kept, BATCH, **LOADERS[kind])
    kept.set_epoch(0)
    train(pruner, loader, steps=1)
    pruner.set_epoch(1)
    with raises(RuntimeError, "the pruner has moved on: call set_epoch(epoch) of this KeptOnly instead of InfoBatch.set_epoch"):
        train(pruner, loader)


def test_load_state_dict_after_set_epoch_is_an_error() -> None:
    pruner, kept = stream_of(Pairs())
    kept.set_epoch(0)
    pruner.load_state_dict({name: copy.deepcopy(value) for name, value in pruner.state_dict().items()})
    with raises(RuntimeError, "the pruner has moved on", "after load_state_dict"):
        list(kept)


def test_an_iteration_that_was_begun_before_set_epoch_ends_with_an_error() -> None:
    _, kept = stream_of(Pairs())
    kept.set_epoch(0)
    old = iter(kept)
    next(old)
    kept.set_epoch(1)
    with raises(RuntimeError, "this iteration's epoch is over"):
        next(old)


@pytest.mark.parametrize("kind", ["no workers", "persistent"])
def test_an_epoch_may_be_broken_off_and_iterated_again(kind: str) -> None:
    pruner, kept = stream_of(Pairs(range(2000)), size=2000)  # workers do not come to the end ahead of training
    loader = DataLoader(kept, BATCH, **LOADERS[kind])
    kept.set_epoch(0)
    train(pruner, loader, steps=2)
    assert sorted(train(pruner, loader)) == list(range(2000))
    kept.set_epoch(0)
    assert sorted(train(pruner, loader)) == list(range(2000))
    kept.set_epoch(1)
    expected = kept_set(pruner)
    assert sorted(train(pruner, loader)) == expected
    assert len(expected) < 2000


# ---- bad input ----


def test_copies_say_that_they_do_not_share_the_plan() -> None:
    _, kept = stream_of(Pairs())
    kept.set_epoch(0)
    for other in (pickle.loads(pickle.dumps(kept)), copy.deepcopy(kept)):
        with raises(RuntimeError, "this KeptOnly is a copy that does not share its pruner's plan"):
            list(other)
        with raises(RuntimeError, "set_epoch must be called in the main process, on the KeptOnly that was constructed there"):
            other.set_epoch(1)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("samples", [range(-1, 5), range(SIZE, SIZE + 1)], ids=["below 0", "beyond N"])
def test_ids_of_another_data_set_are_named(samples: range, workers: int) -> None:
    _, kept = stream_of(Pairs(samples))
    kept.set_epoch(0)
    bad = -1 if -1 in samples else SIZE
    with raises(IndexError, f"sample {bad} is out of range for {SIZE} samples: ids must be 0 to {SIZE - 1}"):
        list(DataLoader(kept, BATCH, num_workers=workers))


@pytest.mark.parametrize(
    ("dataset", "key", "kind", "message"),
    [
        (Dicts(), None, TypeError, "samples must be (id, sample) pairs, got dict: pass key="),
        (Dicts(), "index", KeyError, "key='index' is not in this sample, ['x', 'id', 'name']"),
        (Pairs(), "index", KeyError, "key='index' is not in this sample, tuple"),
        (Dicts(), "name", TypeError, "the id of a sample must be an int, got 'sample 000202' of type str: pass a function as key="),
        (Places(), None, TypeError, "the id of a sample must be an int, got tensor("),
        (Pairs(), lambda sample: sample[0] > 5, TypeError, "the id of a sample must be an int, got True of type bool"),
    ],
)
def test_a_sample_without_an_id_is_named(dataset: Any, key: Any, kind: type[Exception], message: str) -> None:
    _, kept = stream_of(dataset, key)
    kept.set_epoch(0)
    with pytest.raises(kind) as caught:
        next(iter(kept))
    assert message in str(caught.value.args[0])


def test_wrong_arguments_are_named() -> None:
    pruner = InfoBatch(SIZE, 10)
    with raises(TypeError, "dataset must be iterable-style, got list", "with_index(dataset)"):
        KeptOnly([1, 2], pruner)
    with raises(TypeError, "dataset must be iterable-style, got int"):
        KeptOnly(3, pruner)
    with raises(TypeError, "dataset must be an object whose __iter__ starts from the beginning in each epoch, got a generator"):
        KeptOnly((x for x in [1]), pruner)
    with raises(TypeError, "pruner must be an InfoBatch, got int"):
        KeptOnly(Pairs(), SIZE)  # type: ignore[arg-type]
    with raises(ValueError, "pruner has steps_per_epoch", "construct InfoBatch without steps_per_epoch"):
        KeptOnly(Pairs(), InfoBatch(SIZE, 10, steps_per_epoch=3, batch_size=BATCH))
    for key in (1.5, True, ("id",)):
        with raises(TypeError, "key must be the name or position of the id in a sample, or a function of the sample, got", key):
            KeptOnly(Pairs(), pruner, key=key)  # type: ignore[arg-type]
    with raises(ValueError, "epoch must be"):
        KeptOnly(Pairs(), pruner).set_epoch(-1)
