"""The recipes of docs/loops.md and docs/streams.md, with the packages that they name."""

from __future__ import annotations

import gc
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from infobatch_fast import InfoBatch, KeptOnly, with_index
from support.loaders import WORKER_WARNINGS
from support.runs import kept_set

SIZE, BATCH = 60, 8
pytestmark = WORKER_WARNINGS


def train(pruner: InfoBatch, loader: Any, epoch: int) -> list[int]:
    """Trains one factor on values of 100 + id; each score must be the sample's own loss, and weights reach the gradient."""
    factor = nn.Parameter(torch.tensor(1.0 + epoch))
    visited: list[int] = []
    for index, values in loader:
        factor.grad = None
        weights = pruner.weights(index)
        pruner.update(index, values.float() * factor).backward()
        assert factor.grad is not None
        assert factor.grad.item() == pytest.approx((weights * (100.0 + index)).mean().item())
        visited += index.tolist()
    assert sorted(visited) == kept_set(pruner)
    assert pruner.scores(visited).tolist() == [(100.0 + sample) * (1 + epoch) for sample in visited]
    return visited


def assert_pruned(visited: list[list[int]]) -> None:
    assert len(visited[0]) == SIZE
    assert max(map(len, visited[1:])) < SIZE


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("formatted", [False, True], ids=["plain", "set_format"])
def test_hugging_face_datasets_are_read_in_batches_under_with_index(formatted: bool, workers: int) -> None:
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_dict({"value": [100.0 + sample for sample in range(SIZE)], "text": ["a"] * SIZE})
    if formatted:
        dataset.set_format("torch", columns=["value"])

    pruner = InfoBatch(dataset, 10, delta=1.0)
    loader = DataLoader(with_index(dataset), BATCH, sampler=pruner.sampler, num_workers=workers)
    visited = []
    for epoch in range(3):
        pruner.set_epoch(epoch)
        visited.append(train(pruner, ((index, batch["value"]) for index, batch in loader), epoch))
    assert_pruned(visited)


@pytest.mark.parametrize("workers", [0, 2])
def test_hugging_face_streams_are_filtered_and_shuffled_anew_in_each_epoch(workers: int) -> None:
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_dict({"id": list(range(SIZE)), "value": [100.0 + sample for sample in range(SIZE)]})
    stream = dataset.to_iterable_dataset(num_shards=4).shuffle(seed=1, buffer_size=16)

    pruner = InfoBatch(SIZE, 10, delta=1.0)
    kept = KeptOnly(stream, pruner, key="id")
    loader = DataLoader(kept, BATCH, num_workers=workers, persistent_workers=workers > 0)
    visited = []
    for epoch in range(3):
        kept.set_epoch(epoch)
        visited.append(train(pruner, ((index, batch["value"]) for index, batch in loader), epoch))
    assert_pruned(visited)
    both = set(visited[0]) & set(visited[1])
    assert [sample for sample in visited[0] if sample in both] != [sample for sample in visited[1] if sample in both]


def write_shards(folder: Path, shards: int = 4) -> list[str]:
    """Tar files of SIZE samples in all: 000017.json is {"id": 17, "value": 117}."""
    for shard in range(shards):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for sample in range(shard * SIZE // shards, (shard + 1) * SIZE // shards):
                content = json.dumps({"id": sample, "value": 100 + sample}).encode()
                info = tarfile.TarInfo(f"{sample:06d}.json")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return [str(folder / f"{shard}.tar") for shard in range(shards)]


def id_of(sample: dict[str, Any]) -> int:
    return int(sample["__key__"])


def decode(pair: tuple[int, dict[str, Any]]) -> tuple[int, torch.Tensor]:
    return pair[0], torch.tensor(json.loads(pair[1]["json"])["value"])


@pytest.mark.filterwarnings(r"ignore:unclosed file .*\.tar:ResourceWarning")  # webdataset leaves them to the collector
@pytest.mark.parametrize("workers", [0, 2])
def test_webdataset_is_filtered_before_it_is_decoded(tmp_path: Path, workers: int) -> None:
    wds = pytest.importorskip("webdataset")
    urls = write_shards(tmp_path)

    pruner = InfoBatch(SIZE, 10, delta=1.0)
    kept = KeptOnly(wds.WebDataset(urls, shardshuffle=False), pruner, key=id_of)
    loader = DataLoader(wds.DataPipeline(kept, wds.map(decode)), BATCH, num_workers=workers)
    visited = []
    for epoch in range(3):
        kept.set_epoch(epoch)
        visited.append(train(pruner, loader, epoch))
    assert_pruned(visited)
    gc.collect()


def test_timm_transforms_are_taken_into_a_loader_with_the_sampler() -> None:
    try:
        from timm import data as timm_data
    except (ImportError, RuntimeError) as error:  # also where torchvision does not fit torch
        pytest.skip(f"timm does not import: {error}")
    image = pytest.importorskip("PIL.Image")

    class Images(torch.utils.data.Dataset[Any]):
        transform: Any = None

        def __len__(self) -> int:
            return SIZE

        def __getitem__(self, index: int) -> Any:
            return self.transform(image.new("RGB", (8, 8), (index, index, index))), 100 + index

    dataset = Images()
    created = timm_data.create_loader(
        dataset, 4, BATCH, is_training=True, no_aug=True, num_workers=0, use_prefetcher=False, persistent_workers=False,
        mean=(0, 0, 0), std=(1, 1, 1),
    )  # fmt: skip
    pruner = InfoBatch(created.dataset, 10, delta=1.0)
    loader = DataLoader(with_index(created.dataset), BATCH, sampler=pruner.sampler, collate_fn=created.collate_fn)
    visited = []
    for epoch in range(3):
        pruner.set_epoch(epoch)
        batches = []
        for index, (images, labels) in loader:
            assert images.shape == (len(index), 3, 4, 4)
            torch.testing.assert_close((images.mean((1, 2, 3)) * 255).round().long(), index)
            batches.append((index, labels))
        visited.append(train(pruner, batches, epoch))
    assert_pruned(visited)
