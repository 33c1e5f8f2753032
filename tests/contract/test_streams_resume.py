"""Streams after a restart, and on several ranks: nothing comes twice, nothing is lost, and ranks see their own samples alone."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from infobatch_fast import InfoBatch, KeptOnly
from support.own_loops import hand_gradient, linear, losses_of, problem
from support.ranks import error_of, flat, needs_gloo, run_ranks
from support.refusals import raises
from support.runs import kept_set
from support.streams import SIZE, Pairs, Positioned, assert_recorded, stream_of, train

BATCH = 8
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning",
    "ignore:This DataLoader will create:UserWarning",
    "ignore:'set_vital' is deprecated:UserWarning",  # called by torchdata
)


def reload(pruner: InfoBatch, again: InfoBatch) -> None:
    file = io.BytesIO()
    torch.save(pruner.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_stream_that_begins_anew_after_a_restart_brings_only_what_was_not_visited(epoch: int, steps: int, workers: int) -> None:
    pruner, kept = stream_of(Pairs())
    loader = DataLoader(kept, BATCH, num_workers=workers)
    for past in range(epoch):
        kept.set_epoch(past)
        train(pruner, loader)
    kept.set_epoch(epoch)
    expected = kept_set(pruner)
    before = train(pruner, loader, steps)  # workers have prefetched more
    again, stream = stream_of(Pairs())
    reload(pruner, again)
    stream.set_epoch(epoch)
    after = train(again, DataLoader(stream, BATCH, num_workers=workers))
    assert sorted(before + after) == expected
    assert_recorded(again, before + after, epoch)
    stream.set_epoch(epoch + 1)
    assert sorted(train(again, DataLoader(stream, BATCH, num_workers=workers))) == kept_set(again)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("dataset", [Pairs, Positioned])
def test_a_stateful_loader_goes_on_and_skips_nothing_a_second_time(dataset: Any, workers: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    if dataset is Positioned and workers == 2:
        pytest.skip("its position is that of one process")
    pruner, kept = stream_of(dataset())
    kept.set_epoch(0)
    train(pruner, stateful.StatefulDataLoader(kept, BATCH, num_workers=workers))
    kept.set_epoch(1)
    expected, before = kept_set(pruner), []
    loader = stateful.StatefulDataLoader(kept, BATCH, num_workers=workers)
    for step, batch in enumerate(loader):
        before += train(pruner, [batch])
        if step == 3:
            break
    state = loader.state_dict()
    again, stream = stream_of(dataset())
    reload(pruner, again)
    stream.set_epoch(1)
    loader = stateful.StatefulDataLoader(stream, BATCH, num_workers=workers)
    loader.load_state_dict(state)
    after = train(again, loader)
    assert sorted(before + after) == expected
    assert_recorded(again, before + after, 1)
    if dataset is Positioned:
        assert stream.dataset.began_at > 0


# ---- ranks ----


def train_ranges() -> dict[str, Any]:
    """Each rank reads the range of samples that it owns; the threshold is that of all ranks."""
    pruner = InfoBatch(SIZE, 10, delta=1.0, shard="contiguous")
    kept = KeptOnly(Pairs(), pruner)
    kept.dataset.samples = kept.ids
    loader = DataLoader(kept, BATCH)
    came = []
    for epoch in range(3):
        kept.set_epoch(epoch)
        came.append(train(pruner, loader))
        assert_recorded(pruner, came[-1], epoch)
    return {"came": came, "kept": pruner.stats.kept, "thresholds": pruner.stats.thresholds, "ids": list(kept.ids)}


@pytest.mark.slow
@needs_gloo
def test_ranks_that_read_their_ranges_see_each_kept_sample_once() -> None:
    ranks = run_ranks(2, train_ranges)
    assert flat(rank["ids"] for rank in ranks) == list(range(SIZE))
    alone, kept = stream_of(Pairs(), shard="contiguous")
    for epoch in range(3):
        kept.set_epoch(epoch)
        expected = sorted(train(alone, DataLoader(kept, BATCH)))
        assert sorted(flat(rank["came"][epoch] for rank in ranks)) == expected
    assert {rank["kept"] for rank in ranks} == {len(expected)}
    assert {rank["thresholds"] for rank in ranks} == {alone.stats.thresholds}


def misread() -> list[str]:
    pruner = InfoBatch(SIZE, 10, shard="contiguous")
    kept = KeptOnly(Pairs(), pruner)
    kept.set_epoch(0)
    return [error_of(lambda: list(kept)), error_of(lambda: KeptOnly(Pairs(), InfoBatch(SIZE, 10)))]


@pytest.mark.slow
@needs_gloo
def test_a_stream_that_brings_samples_of_other_ranks_is_named() -> None:
    first, second = run_ranks(2, misread)
    assert first[0].startswith(
        f"IndexError: sample {SIZE - 1} belongs to another rank: this rank's stream must bring the samples 0"
    )
    assert second[0].startswith("IndexError: sample ")
    for message in (first[1], second[1]):
        assert message.startswith(
            "ValueError: pruner has 2 ranks and shard='scattered', so a rank's samples are all over the stream."
        )
        assert "InfoBatch(..., num_replicas=1, rank=0)" in message


class Strided(IterableDataset[Any]):
    """Every W-th sample, as most splitters by rank deal them."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world
        self.data = problem(size=SIZE)

    def __iter__(self) -> Any:
        return ((sample, (self.data[0][sample], self.data[1][sample])) for sample in range(self.rank, SIZE, self.world))


def train_own_pruners() -> list[list[int]]:
    """Ranks with a pruner each, and different numbers of batches: DDP's join lets them end one by one."""
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    data, net = problem(size=SIZE), linear()
    model = DistributedDataParallel(net)
    pruner = InfoBatch(SIZE, 10, delta=1.0, num_replicas=1, rank=0)
    kept = KeptOnly(Strided(dist.get_rank(), dist.get_world_size()), pruner)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002)
    came: list[list[int]] = []
    for epoch in range(3):
        kept.set_epoch(epoch)
        came.append([])
        with model.join():
            for index, (x, y) in DataLoader(kept, 1):
                expected = 0.5 * (data[0][index] @ net.weight.detach().flatten() - data[1][index]) ** 2
                optimizer.zero_grad()
                pruner.update(index, losses_of(model, x, y)).backward()
                assert torch.isfinite(hand_gradient(net.weight, index, pruner.weights(index), data)).all()
                torch.testing.assert_close(pruner.scores(index), expected.float(), rtol=1e-6, atol=1e-9)
                optimizer.step()
                came[-1] += index.tolist()
    return came


@needs_gloo
def test_ranks_with_pruners_of_their_own_read_any_split_and_end_at_their_own_time() -> None:
    first, second = run_ranks(2, train_own_pruners)
    assert sorted(first[0] + second[0]) == list(range(SIZE))
    for epoch in (1, 2):
        assert set(first[epoch]) <= set(range(0, SIZE, 2))
        assert set(second[epoch]) <= set(range(1, SIZE, 2))
        assert len(first[epoch]) + len(second[epoch]) < SIZE
    assert len(first[1]) != len(second[1]), "or join was not needed"


def test_a_pruner_that_has_grown_needs_a_new_stream() -> None:
    pruner, kept = stream_of(Pairs())
    pruner.grow(pruner.num_samples + 1)
    with raises(ValueError, f"pruner has grown from {SIZE} to {SIZE + 1} samples: construct a new KeptOnly and a new loader"):
        kept.set_epoch(0)
