"""A workload is data, a model, the losses of some samples, and a figure for how good the model is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from config import Config
from models import GPT, make_cnn
from sources import Bytes, Pictures, load_cifar, load_digits_pictures, load_text
from torch import Tensor, nn

EVALUATION_BATCH = 500
TAIL = 50.0  # how many times more samples the first class of a long tail has than the last


class Workload(ABC):
    """Data of one seed."""

    size: int  # training samples
    test_size: int

    @abstractmethod
    def make_model(self) -> nn.Module:
        """A new model, initialised from torch's global generator."""

    @abstractmethod
    def losses(self, model: nn.Module, index: Tensor, generator: torch.Generator) -> Tensor:
        """Per-sample losses [B] of the training samples ``index`` [B], augmented by draws from ``generator``."""

    @abstractmethod
    def predict(self, model: nn.Module, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Logits float32 [M, classes] and targets int64 [M] of the test samples [start, stop)."""

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> tuple[float, float]:
        """Accuracy and mean negative log-likelihood in nats, over all test samples."""
        model.eval()
        correct = nll = count = 0.0
        for start in range(0, self.test_size, EVALUATION_BATCH):
            logits, targets = self.predict(model, start, min(start + EVALUATION_BATCH, self.test_size))
            correct += float((logits.argmax(1) == targets).sum())
            nll += float(F.cross_entropy(logits, targets, reduction="sum"))
            count += len(targets)
        model.train()
        return correct / count, nll / count


def choose(order: Tensor, labels: Tensor, size: int, mix: str) -> Tensor:
    """Which samples are trained on, of those that ``order`` [M] names.

    Args:
        order: Samples in random order.
        labels: Of all samples, 0 to 9.
        size: How many to take.
        mix: That of ``Config``. In a "tail" each class has 50^(-1/9) times the samples of the one before; this form of long-tailed
            CIFAR is that of Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.
    """
    if mix == "redundant":
        return order[: size // 5].repeat(5)
    if mix == "tail":
        share = TAIL ** -(torch.arange(10) / 9)
        counts = (size * share / share.sum()).round().int().tolist()
        return torch.cat([order[labels[order] == label][:count] for label, count in enumerate(counts)])
    return order[:size]


class Images(Workload):
    """Images in random crops of the padded image, mirrored at random where that keeps the meaning."""

    def __init__(self, pictures: Pictures, config: Config, seed: int, padding: int, mirror: bool) -> None:
        order = torch.randperm(len(pictures.images), generator=torch.Generator().manual_seed(seed))
        if pictures.test_images is None or pictures.test_labels is None:
            cut = len(order) // 5
            test, order = order[:cut], order[cut:]
            test_images, test_labels = pictures.images[test], pictures.labels[test]
        else:
            test_images, test_labels = pictures.test_images, pictures.test_labels
        train = choose(order, pictures.labels, config.train_size or len(order), config.mix)
        images = pictures.images[train]
        self.config, self.mirror, self.side, self.classes = config, mirror, images.shape[1], 10
        self.size, self.test_size = len(images), len(test_images)
        self.mean = images.float().mean((0, 1, 2))
        self.scale = images.float().std((0, 1, 2))
        self.range, self.labels = 2 * padding + 1, pictures.labels[train]
        self.padded = F.pad(images, (0, 0, padding, padding, padding, padding))  # [N, H + 2p, W + 2p, C]
        self.test_images, self.test_labels = test_images, test_labels

    def make_model(self) -> nn.Module:
        channels, sizes = self.padded.shape[-1], self.config.sizes
        model = make_cnn(channels, self.side, self.classes, sizes["widths"])
        return model.to(memory_format=torch.channels_last)

    def losses(self, model: nn.Module, index: Tensor, generator: torch.Generator) -> Tensor:
        side = torch.arange(self.side)
        shape = (len(index), 1)
        corner = torch.randint(self.range, (2, *shape), generator=generator)
        columns = side.expand(len(index), -1)
        if self.mirror:
            flip = torch.rand(shape, generator=generator) < 0.5
            columns = torch.where(flip, self.side - 1 - columns, columns)
        rows, columns = corner[0] + side, corner[1] + columns
        images = self.padded[index[:, None, None], rows[:, :, None], columns[:, None, :]]
        return F.cross_entropy(self.logits(model, images), self.labels[index], reduction="none")

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """uint8 [B, H, W, C] to float32 [B, classes]. The permuted images are channels-last as they are."""
        planes = ((images.float() - self.mean) / self.scale).permute(0, 3, 1, 2)
        return model(planes)

    def predict(self, model: nn.Module, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return self.logits(model, self.test_images[start:stop]), self.test_labels[start:stop]


class Text(Workload):
    """Windows of the text that do not overlap are the samples; a sample's loss is the mean over its bytes.

    The last tenth of the text is for testing, and counts byte by byte.
    """

    def __init__(self, source: Bytes, config: Config) -> None:
        self.config, context = config, config.sizes["context"]
        cut = len(source.text) * 9 // 10
        train, test = (self._windows(part, context) for part in (source.text[:cut], source.text[cut:]))
        self.train, self.test = train[: config.train_size], test
        self.size, self.test_size = len(self.train), len(self.test)

    @staticmethod
    def _windows(text: Tensor, context: int) -> Tensor:
        """int64 [N, context + 1]: the last byte of a window is only a target, and the next window's first input."""
        return text.to(torch.int64).unfold(0, context + 1, context).contiguous()

    def make_model(self) -> nn.Module:
        return GPT(**self.config.sizes)

    def losses(self, model: nn.Module, index: Tensor, generator: torch.Generator) -> Tensor:
        windows = self.train[index]
        logits = model(windows[:, :-1])
        losses = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="none")
        return losses.view(len(windows), -1).mean(1)

    def predict(self, model: nn.Module, start: int, stop: int) -> tuple[Tensor, Tensor]:
        windows = self.test[start:stop]
        return model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten()


def open_workload(config: Config, data: Path | None, cache: Path) -> tuple[str, bool, Callable[[int], Workload]]:
    """The data's name, whether it is a stand-in, and what makes the workload of a seed."""
    if config.workload == "text":
        source = load_text(data)
        text = Text(source, config)  # the same for all seeds: they differ in initialisation and order
        return source.name, source.stand_in, lambda seed: text
    pictures = load_digits_pictures() if config.workload == "digits" else load_cifar(data, cache)
    padding, mirror = (1, False) if config.workload == "digits" else (4, not pictures.stand_in)
    return pictures.name, pictures.stand_in, lambda seed: Images(pictures, config, seed, padding, mirror)
