"""The published package's training script, with the import changed and one line more: each loss is its own sample's."""

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset, Subset

from infobatch_fast.compat import DataLoader, InfoBatch
from support.items import Items
from support.loaders import KINDS, WORKER_WARNINGS

SIZE, BATCH, CLASSES = 90, 8, 3
pytestmark = WORKER_WARNINGS
LOADERS = {name: kind for name, kind in KINDS.items() if name not in ("prefetch", "out of order")}


class Images(Dataset[tuple[torch.Tensor, int]]):
    """Image i is made of i + 1; labels go round."""

    classes = ("a", "b", "c")

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((3, 2, 2), index + 1.0), index % CLASSES


def identity_of(inputs: torch.Tensor) -> torch.Tensor:
    return inputs[:, 0, 0, 0].long() - 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOADERS)
def test_the_published_script_runs_and_every_score_is_its_samples_own_loss(kind: str) -> None:
    num_epoch, expected = 8, torch.full((SIZE,), torch.nan)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, CLASSES))
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1, reduction="none")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    trainset = InfoBatch(Images(), num_epoch, 0.5, 0.75)
    trainloader = DataLoader(trainset, batch_size=BATCH, shuffle=False, sampler=trainset.sampler, **LOADERS[kind])
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, steps_per_epoch=len(trainloader), epochs=num_epoch)

    visited = []
    for epoch in range(num_epoch):
        steps = len(trainloader)
        if epoch:
            scheduler = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, 0.01, steps_per_epoch=steps, epochs=num_epoch, last_epoch=epoch * steps - 1
            )
        seen: list[int] = []
        for batch_idx, blobs in enumerate(trainloader):  # noqa: B007 - as published
            inputs, targets = blobs
            optimizer.zero_grad()
            outputs = net(inputs)
            loss = criterion(outputs, targets)
            index, plain = identity_of(inputs), loss.detach().clone()
            weights = trainset.get_weights(index)
            loss_of_batch = trainset.update(loss)
            assert torch.equal(loss.detach(), plain)
            assert torch.allclose(loss_of_batch, (weights * plain).mean())
            expected[index] = plain
            gradient = torch.autograd.grad((weights * criterion(net(inputs), targets)).mean(), net[1].weight)[0]
            loss_of_batch.backward()
            assert torch.allclose(net[1].weight.grad, gradient)
            optimizer.step()
            scheduler.step()
            seen += index.tolist()
        assert batch_idx + 1 == steps
        assert len(seen) == len(set(seen))
        assert torch.equal(trainset.scores, expected)
        visited.append(len(seen))
    assert visited[0] == visited[6] == visited[7] == SIZE
    assert all(0.4 * SIZE < count < SIZE for count in visited[1:6])
    assert trainset.get_pruned_count() == num_epoch * SIZE - sum(visited)
    assert trainset.stop_prune == 6
    assert trainset.mean_score() == expected.mean()


def test_the_run_goes_on_after_a_restart() -> None:
    def epoch_of(trainset: InfoBatch, steps: int | None = None) -> list[int]:
        seen = []
        for inputs, _ in itertools.islice(DataLoader(trainset, BATCH, sampler=trainset.sampler, num_workers=2), steps):
            trainset.update(inputs[:, 0, 0, 0])
            seen += identity_of(inputs).tolist()
        return seen

    trainset, again = InfoBatch(Images(), 4, delta=1.0), InfoBatch(Images(), 4, delta=1.0)
    epoch_of(trainset)
    whole = trainset.sampler
    first = epoch_of(trainset, steps=3)
    again.load_state_dict(copy.deepcopy(trainset.state_dict()))
    rest = epoch_of(again)
    assert first + rest == whole.indices().tolist()
    assert len(first + rest) == again.pruner.stats.kept < SIZE
    assert again.get_pruned_count() == trainset.get_pruned_count() == SIZE - len(first + rest)


# ---- whose losses are they ----


def loader_of() -> tuple[InfoBatch, DataLoader]:
    trainset = InfoBatch(Images(), 4)
    return trainset, DataLoader(trainset, BATCH, sampler=trainset.sampler)


def test_losses_of_a_loader_that_fetches_ahead_are_refused() -> None:
    trainset, loader = loader_of()
    batches = iter(loader)
    first, _ = next(batches)
    next(batches)
    with pytest.raises(RuntimeError, match=r"2 batches wait.*with_index"):
        trainset.update(first[:, 0, 0, 0])
    assert trainset.scores.isnan().all()


def test_a_batch_may_be_left_out_by_saying_so() -> None:
    trainset, loader = loader_of()
    expected = torch.full((SIZE,), torch.nan)
    for step, (inputs, _) in enumerate(loader):
        if step == 2:
            trainset.set_active_indices([])
            continue
        trainset.update(inputs[:, 0, 0, 0])
        expected[identity_of(inputs)] = inputs[:, 0, 0, 0]
    assert torch.equal(trainset.scores.nan_to_num(-1), expected.nan_to_num(-1))
    assert int(expected.isnan().sum()) == BATCH


def test_a_glance_at_a_batch_changes_nothing_even_within_a_step() -> None:
    trainset, loader = loader_of()
    next(iter(loader))
    for inputs, _ in loader:
        next(iter(loader))
        trainset.update(inputs[:, 0, 0, 0])
    assert torch.equal(trainset.scores, torch.arange(SIZE) + 1.0)


def test_losses_without_a_batch_are_refused() -> None:
    trainset, loader = loader_of()
    with pytest.raises(RuntimeError, match=r"no batch waits.*compat\.DataLoader"):
        trainset.update(torch.ones(BATCH))
    for inputs, _ in loader:
        trainset.update(inputs[:, 0, 0, 0])
        with pytest.raises(RuntimeError, match="no batch waits"):
            trainset.update(inputs[:, 0, 0, 0])
    inputs, _ = next(iter(TorchDataLoader(trainset, BATCH, sampler=trainset.sampler)))
    assert inputs.shape == (BATCH, 3, 2, 2)
    with pytest.raises(RuntimeError, match=r"no batch waits.*compat\.DataLoader"):
        trainset.update(inputs[:, 0, 0, 0])


def test_wrong_losses_are_refused_and_the_batch_still_waits() -> None:
    trainset, loader = loader_of()
    for inputs, _ in loader:
        losses = inputs[:, 0, 0, 0]
        with pytest.raises(ValueError, match="reduction='none'"):
            trainset.update(losses.mean())
        with pytest.raises(TypeError, match="losses must be a tensor"):
            trainset.update(losses.tolist())  # type: ignore[arg-type]
        trainset.update(losses)
    assert torch.equal(trainset.scores, torch.arange(SIZE) + 1.0)


def test_indices_may_be_given_by_hand() -> None:
    trainset, _ = loader_of()
    trainset.set_active_indices(torch.tensor([5, 7]))
    assert trainset.update(torch.tensor([1.0, 3.0], dtype=torch.float64)) == 2.0
    assert trainset.scores[[5, 7]].tolist() == [1.0, 3.0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("table", "losses"), [("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")])
def test_losses_may_be_on_another_device(table: str, losses: str) -> None:
    trainset = InfoBatch(Images(), 4, device=table)
    for inputs, _ in DataLoader(trainset, BATCH, sampler=trainset.sampler):
        assert trainset.update(inputs[:, 0, 0, 0].to(losses)).device.type == losses
    assert torch.equal(trainset.scores.cpu(), torch.arange(SIZE) + 1.0)


# ---- the loader and the data set ----


def test_a_loader_that_would_not_prune_is_refused() -> None:
    trainset, _ = loader_of()
    for wrong in ({"shuffle": True}, {}, {"sampler": InfoBatch(Images(), 4).sampler}):
        with pytest.raises(ValueError, match=r"pass sampler=dataset\.sampler"):
            DataLoader(trainset, BATCH, **wrong)
    batches = DataLoader(trainset, batch_sampler=trainset.sampler.batches(BATCH))
    assert len(batches) == -(-SIZE // BATCH)


def test_other_data_sets_are_loaded_as_ever() -> None:
    loader = DataLoader(Images(), BATCH, shuffle=True)
    assert sorted(identity_of(torch.cat([inputs for inputs, _ in loader])).tolist()) == list(range(SIZE))


def test_a_collate_function_gets_pairs_and_returns_a_pair() -> None:
    trainset = InfoBatch(Subset(Items(), range(SIZE)), 4)

    def collate(pairs: list[tuple[int, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor([index for index, _ in pairs]), torch.stack([item for _, item in pairs])

    for items in DataLoader(trainset, BATCH, sampler=trainset.sampler, collate_fn=collate):
        trainset.update(items[:, 0])
    assert torch.equal(trainset.scores, 100.0 + torch.arange(SIZE))
    with pytest.raises(ValueError, match="collate_fn must return"):
        next(iter(DataLoader(trainset, BATCH, sampler=trainset.sampler, collate_fn=dict)))


def test_attributes_of_the_data_set_are_passed_on_and_private_ones_are_not() -> None:
    trainset, _ = loader_of()
    assert trainset.classes == ("a", "b", "c")
    assert (len(trainset), trainset[4][1], trainset.keep_ratio, trainset.delta) == (SIZE, 1, 0.5, 0.875)
    assert not hasattr(trainset, "__getitems__")
    for name, remedy in (
        ("prune", "sampler"),
        ("total_save", "get_pruned_count"),
        ("weights", "get_weights"),
        ("__setscore__", "update"),
    ):
        with pytest.raises(AttributeError, match=remedy):
            getattr(trainset, name)
    assert "90 samples" in repr(trainset)
    with pytest.raises(TypeError, match="state_dict"):
        pickle.dumps(trainset)


def test_torchs_loader_is_as_it_was() -> None:
    import torch.utils.data.dataloader as module

    assert module._BaseDataLoaderIter.__next__.__module__ == "torch.utils.data.dataloader"
    assert TorchDataLoader.__iter__.__module__ == "torch.utils.data.dataloader"
