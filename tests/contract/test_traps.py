"""The twelve traps that other implementations of InfoBatch fell into, each as a test that would catch it here."""

import io
import itertools
import math
import pickle
import random
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, Subset

from infobatch_fast import InfoBatch, MeanThreshold, with_index
from support.runs import ARBITRARY, kept_set, loss_of, order, record, record_all, train

pytestmark = ARBITRARY


class Squares(Dataset[torch.Tensor]):
    """Sample i is i * i; fetched in batches too."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.batches_fetched = 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index * index))

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        self.batches_fetched += 1
        return [self[index] for index in indices]


def learned(device: torch.device, size: int = 1000, **kwargs: Any) -> InfoBatch:
    """A pruner in epoch 1 of 10, that has seen everything."""
    pruner = InfoBatch(size, 10, device=device, **{"delta": 1.0, **kwargs})
    record_all(pruner)
    pruner.set_epoch(1)
    return pruner


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_trap_1_indices_above_2_to_24_are_not_rounded_by_the_dtype_of_the_losses(device: torch.device, dtype: torch.dtype) -> None:
    base = 1 << 24
    pruner = InfoBatch(base + 100, 10, device=device)
    index = torch.arange(base, base + 100)
    pruner.update(index, torch.arange(100, device=device).to(dtype))
    assert pruner.scores(index).tolist() == list(range(100))
    assert pruner.scores(index - 100).isnan().all()
    pruner.set_epoch(1)
    assert pruner.stats.seen == 100
    with pytest.raises(TypeError, match="floats cannot hold indices above 2\\^24"):
        pruner.update(index.to(dtype), torch.zeros(100, device=device))


def test_trap_2_losses_find_their_samples_though_the_loader_looks_ahead(device: torch.device) -> None:
    dataset = Squares(200)
    pruner = InfoBatch(dataset, 10, device=device)
    loader = DataLoader(with_index(dataset), batch_size=16, sampler=pruner.sampler)
    batches = list(loader)  # an endless look-ahead
    random.Random(0).shuffle(batches)
    for index, squares in batches:
        record(pruner, index, squares)
    assert pruner.scores().tolist() == [float(i * i) for i in range(200)]


def test_trap_3_iter_does_not_replan_and_an_epoch_ends_inside_torchs_batch_sampler(device: torch.device) -> None:
    pruner = learned(device)
    expected = order(pruner)
    for drop_last in (False, True):
        pruner.set_epoch(1)
        wrapped = BatchSampler(pruner.sampler, batch_size=8, drop_last=drop_last)
        batches = list(itertools.islice(wrapped, 1000))
        assert len(batches) == len(expected) // 8 + (len(expected) % 8 > 0 and not drop_last)
        assert sum(batches, []) == expected[: len(batches) * 8]  # noqa: RUF017


def test_trap_4_no_weight_stays_in_the_annealing_epochs_when_delta_times_epochs_is_not_whole(device: torch.device) -> None:
    for num_epochs, delta in ((10, 0.875), (3, 0.9), (7, 0.5), (8, 0.875)):
        pruner = InfoBatch(300, num_epochs, delta=delta, device=device)
        for epoch in range(num_epochs):
            pruner.set_epoch(epoch)
            train(pruner)
            if epoch >= math.floor(delta * num_epochs):
                assert pruner.stats.kept == 300
                assert (pruner.weights(torch.arange(300)) == 1).all()
                assert record(pruner, [0, 1], [1.0, 2.0]).item() == 1.5
            elif epoch > 0:
                assert pruner.stats.kept < 300


@pytest.mark.parametrize("size", [3, 10, 33, 1000, 60_000, 1_281_167])
def test_trap_5_a_constant_loss_prunes_nothing_whatever_the_size(device: torch.device, size: int) -> None:
    for constant in (0.1, 1.0, math.log(1000)):
        pruner = InfoBatch(size, 10, prune_ratio=0.9, delta=1.0, device=device)
        assert pruner.stats.kept == size, "before anything was seen"
        record_all(pruner, torch.full((size,), constant))
        pruner.set_epoch(1)
        assert pruner.stats.kept == size


def test_trap_6_the_dataset_wrapper_forwards_getitems_with_the_right_items_and_pickles() -> None:
    dataset = Squares(100)
    assert [(i, x.item()) for i, x in with_index(dataset).__getitems__([7, 3])] == [(7, 49.0), (3, 9.0)]
    assert dataset.batches_fetched == 1
    subset = Subset(dataset, range(50, 100))
    assert [(i, x.item()) for i, x in with_index(subset).__getitems__([7, 3])] == [(7, 57.0**2), (3, 53.0**2)]
    for wrapped in (with_index(dataset), with_index(subset), with_index([0, 1, 4, 9])):
        copy = pickle.loads(pickle.dumps(wrapped))
        assert (len(copy), copy[3][0], float(copy[3][1])) == (len(wrapped), 3, float(wrapped[3][1]))
        assert not hasattr(copy, "no_such_attribute")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_trap_7_weighting_is_not_in_place_and_takes_every_float_dtype(device: torch.device, dtype: torch.dtype) -> None:
    pruner = learned(device, policy=MeanThreshold(0.75))
    light = (pruner.weights(torch.arange(1000)) == 4).nonzero().flatten()[:2].cpu()
    losses = torch.tensor([1.0, 2.0], dtype=dtype, device=device, requires_grad=True)
    pruner.update(light, losses).backward()
    assert losses.tolist() == [1.0, 2.0]
    assert losses.grad is not None
    assert losses.grad.tolist() == [2.0, 2.0]


def test_trap_8_one_nan_does_not_disable_pruning_and_one_inf_does_not_prune_everything(device: torch.device) -> None:
    for spoiled, tier_sizes in ((math.nan, (500, 499)), (math.inf, (500, 499)), (-math.inf, (500, 499))):
        pruner = InfoBatch(1000, 10, delta=1.0, device=device)
        record_all(pruner, [spoiled, *([0.0] * 499), *([1.0] * 500)])
        assert pruner.stats.non_finite == 1
        pruner.set_epoch(1)
        stats = pruner.stats
        assert stats.tier_sizes == (tier_sizes[0] + 1, tier_sizes[1]), "the spoiled one is unseen"
        assert stats.thresholds[0] == pytest.approx(500 / 999)
        assert stats.kept < 1000


def test_trap_9_the_users_seed_decides_and_numpys_generator_is_left_alone(device: torch.device) -> None:
    np.random.seed(12345)  # noqa: NPY002
    expected = np.random.uniform(size=5).tolist()  # noqa: NPY002
    np.random.seed(12345)  # noqa: NPY002
    kept = {}
    for seed in (0, 1, 2**32, 2**64 - 1):
        pruner = learned(device, seed=seed)
        kept[seed] = (tuple(order(pruner)), tuple(kept_set(pruner)))
        assert kept[seed] == (tuple(order(again := learned(device, seed=seed))), tuple(kept_set(again)))
    assert len({order for order, _ in kept.values()}) == len({kept for _, kept in kept.values()}) == 4
    assert np.random.uniform(size=5).tolist() == expected  # noqa: NPY002


def test_trap_10_len_is_not_stale_peeking_advances_nothing_and_state_is_saved(device: torch.device) -> None:
    pruner = InfoBatch(300, 10, delta=1.0, device=device)
    loader = DataLoader(with_index(range(300)), batch_size=8, sampler=pruner.sampler)
    for epoch in range(5):
        pruner.set_epoch(epoch)
        length = len(loader)
        next(iter(loader))
        next(iter(loader))
        assert (pruner.epoch, len(loader)) == (epoch, length)
        steps = 0
        for index, x in loader:
            record(pruner, index, loss_of(x, epoch))
            steps += 1
        assert steps == length
    file = io.BytesIO()
    torch.save(pruner.state_dict(), file)
    file.seek(0)
    other = InfoBatch(300, 10, delta=1.0, device=device)
    other.load_state_dict(torch.load(file, weights_only=True))
    for each in (pruner, other):
        each.set_epoch(5)
    assert train(pruner) == train(other)


def test_trap_11_small_pools_are_weighted_by_the_probability_not_by_the_count(device: torch.device) -> None:
    # Three samples below the mean, r = 0.5: int(0.5 * 3) = 1 pruned and two kept at 1 / (1 - r) would weigh 4 instead of 3.
    totals = []
    for seed in range(800):
        pruner = InfoBatch(4, 10, delta=1.0, seed=seed, device="cpu")
        record_all(pruner, [0.0, 0.0, 0.0, 4.0])
        pruner.set_epoch(1)
        kept = list(pruner.sampler)
        totals.append(pruner.weights(kept).sum().item())
    deviation = math.sqrt(3 / 800)  # of the mean: each of three terms is 0 or 2
    assert abs(sum(totals) / 800 - 4.0) < 5 * deviation  # false alarms: 6e-7
    assert set(totals) == {1.0, 3.0, 5.0, 7.0}


def test_trap_12_no_python_list_of_all_indices_is_ever_built() -> None:
    size = 2_000_000
    pruner = InfoBatch(size, 10, delta=1.0)
    tracemalloc.start()
    try:
        record_all(pruner, torch.arange(size) % 97 / 97.0)
        pruner.set_epoch(1)
        length = len(pruner.sampler)
        for iterable, steps in ((pruner.sampler, 1000), (pruner.sampler.batches(256), 1000)):
            assert sum(1 for _ in itertools.islice(iterable, steps)) == steps
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size / 2 < length < size
    assert peak < 20 * 2**20  # some chunks of 65,536; all kept indices would take 60 MB


def test_trap_12_scores_and_plan_take_at_most_4_6_bytes_a_sample() -> None:
    size = 1_000_000
    pruner = learned(torch.device("cpu"), size)
    len(pruner.sampler)
    epochs = pruner.engine.epochs
    owners: list[Any] = [epochs.table, epochs, epochs.plan(), epochs.planner.directory]
    tensors = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
        for owner in owners
        for value in vars(owner).values()
        if isinstance(value, torch.Tensor)
    }
    assert 4.5 * size <= sum(tensors.values()) <= 4.6 * size
