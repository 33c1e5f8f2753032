"""Where the data comes from: a path that the user gives, else something that every machine already has.

CIFAR-10: https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz, unpacked, or
``torchvision.datasets.CIFAR10(root, download=True)``; give the folder that holds ``cifar-10-batches-py``. Text: any file; that of
the study is https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm


@dataclass(frozen=True)
class Pictures:
    """uint8 images [N, H, W, C] with labels int64 [N]. Without test images of its own, a source is split anew for each seed."""

    name: str  # for the JSON file
    stand_in: bool  # not the data that the workload is named after
    images: Tensor
    labels: Tensor
    test_images: Tensor | None = None
    test_labels: Tensor | None = None


@dataclass(frozen=True)
class Bytes:
    """A text as uint8 [N]."""

    name: str
    stand_in: bool
    text: Tensor


def load_digits_pictures() -> Pictures:
    from sklearn.datasets import load_digits  # noqa: PLC0415  (only this workload needs it)

    digits = load_digits()
    images = torch.tensor(digits.images * (255 / 16)).round().to(torch.uint8)[..., None]
    return Pictures("scikit-learn's digits, 1,797 images of 8x8", False, images, torch.tensor(digits.target))


def load_cifar(path: Path | None, cache: Path) -> Pictures:
    """From the official archive's folder, or from an .npz of JPEGs; else the digits enlarged to the same shape."""
    if path is None:
        print("no --data: digits enlarged to 32x32 stand in for CIFAR-10, and say nothing about it", file=sys.stderr)
        digits = load_digits_pictures()
        planes = F.interpolate(digits.images.permute(0, 3, 1, 2).float(), size=(32, 32), mode="bilinear")
        images = planes.round().to(torch.uint8).permute(0, 2, 3, 1).expand(-1, -1, -1, 3).contiguous()
        return Pictures("STAND-IN for CIFAR-10: scikit-learn's digits enlarged to 32x32", True, images, digits.labels)
    if path.is_dir():
        return _read_batches(path / "cifar-10-batches-py")
    return _read_jpegs(path, cache)


def load_text(path: Path | None) -> Bytes:
    """From any file; else from the manual that comes with Python."""
    if path is not None:
        data, name = path.read_bytes(), path.name
    else:
        from pydoc_data.topics import topics  # noqa: PLC0415  (700 KB that only this needs)

        data, name = "\n".join(topics[key] for key in sorted(topics)).encode(), "STAND-IN: Python's manual (pydoc_data.topics)"
        print("no --data: the manual that comes with Python stands in for the text", file=sys.stderr)
    text = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
    return Bytes(f"{name}, {len(data):,} bytes, sha256 {hashlib.sha256(data).hexdigest()[:16]}", path is None, text)


def _read_batches(folder: Path) -> Pictures:
    def read(name: str) -> tuple[Tensor, Tensor]:
        with (folder / name).open("rb") as file:
            batch: dict[bytes, Any] = pickle.load(file, encoding="bytes")
        planes = torch.from_numpy(np.asarray(batch[b"data"], np.uint8)).view(-1, 3, 32, 32)
        return planes.permute(0, 2, 3, 1).contiguous(), torch.tensor(batch[b"labels"])

    if not folder.is_dir():
        raise SystemExit(f"--data {folder.parent}: it holds no folder {folder.name}; unpack cifar-10-python.tar.gz there")
    images, labels = zip(*(read(f"data_batch_{number}") for number in range(1, 6)), strict=True)
    return Pictures("CIFAR-10, official archive", False, torch.cat(images), torch.cat(labels), *read("test_batch"))


def _read_jpegs(path: Path, cache: Path) -> Pictures:
    """Arrays ``train_jpeg``, ``train_offsets``, ``train_labels`` and the same for test. Decoded once, into ``cache``."""
    with np.load(path) as archive:
        labels = {part: torch.from_numpy(archive[f"{part}_labels"].astype(np.int64)) for part in ("train", "test")}
        images = {}
        version = f"{path.stat().st_size}-{path.stat().st_mtime_ns}"  # another archive of the same name is decoded anew
        for part in labels:
            decoded = cache / f"{path.stem}-{version}-{part}.npy"
            if not decoded.exists():
                array = _decode(archive[f"{part}_jpeg"].tobytes(), archive[f"{part}_offsets"].tolist(), part)
                cache.mkdir(parents=True, exist_ok=True)
                partial = decoded.with_suffix(".part")
                with partial.open("wb") as file:
                    np.save(file, array)
                partial.replace(decoded)
            images[part] = torch.from_numpy(np.load(decoded))
    return Pictures("CIFAR-10, JPEG copy", False, images["train"], labels["train"], images["test"], labels["test"])


def _decode(data: bytes, offsets: list[int], part: str) -> Any:
    from PIL import Image  # noqa: PLC0415  (only JPEGs need it)

    array = np.empty((len(offsets) - 1, 32, 32, 3), np.uint8)
    for number in tqdm(range(len(array)), f"decoding the {part} images", mininterval=1.0):
        array[number] = Image.open(io.BytesIO(data[offsets[number] : offsets[number + 1]])).convert("RGB")
    return array
