"""A training step that never leaves the GPU: images, indices, losses, scores and weights stay there, and it is a captured graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from fast_images import CLASSES, Images
from fast_network import PATCH, Network
from methods import METHODS, Method

from infobatch_fast import InfoBatch

EVALUATION_BATCH = 2000


@dataclass(frozen=True)
class Setup:
    """A network, and how it trains on the full data.

    Attributes:
        widths, depth: Of the network.
        epochs: Of full training.
        rate: Peak of the learning rate, for losses that are averaged over a batch.
        bias_rate: That of the biases behind normalisations, as a multiple.
        warmup: Part of the run in which the rate rises; then it falls to 0, both in a straight line.
    """

    widths: tuple[int, int, int]
    depth: int
    epochs: int
    batch: int = 1024
    rate: float = 1.5
    momentum: float = 0.85
    weight_decay: float = 1.3e-3
    bias_rate: float = 64.0
    label_smoothing: float = 0.2
    warmup: float = 0.2

    def rate_at(self, progress: float) -> float:
        """The learning rate when this part of the run is done."""
        return self.rate * min(0.2 + 0.8 * progress / self.warmup, (1 - progress) / (1 - self.warmup))


class Trainer:
    """A network and its optimiser, which all runs share: each starts anew from its seed, in place.

    Args:
        images: Data on the device.
        setup: What is trained.

    Attributes:
        index: int64 [batch], the samples of the next step.
        rate: Its learning rate.
    """

    def __init__(self, images: Images, setup: Setup) -> None:
        self.images, self.setup, self.device = images, setup, images.train_labels.device
        self.on_gpu = self.device.type == "cuda"
        network = Network(setup.widths, setup.depth, images.patches(PATCH), CLASSES)
        self.network = network.to(self.device, memory_format=torch.channels_last)
        self.index = torch.arange(setup.batch, device=self.device)
        self.rate, self._bias_rate = (torch.ones((), device=self.device) for _ in range(2))
        biases = {"params": list(self.network.norm_biases()), "lr": self._bias_rate, "weight_decay": 0.0}
        others = [p for p in self.network.parameters() if p.requires_grad and all(p is not bias for bias in biases["params"])]
        weights = {"params": others, "lr": self.rate, "weight_decay": setup.weight_decay}
        self._optimiser = torch.optim.SGD([weights, biases], momentum=setup.momentum, nesterov=True, fused=True)
        if self.on_gpu:  # what compiles, allocates or tunes at its first call must not do so while a graph is captured
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    self._step(InfoBatch(images.size, num_epochs=1, device=self.device), METHODS["full"])
            torch.cuda.current_stream().wait_stream(side)

    def start(self, pruner: InfoBatch, method: Method, seed: int) -> Callable[[], Any]:
        """A new run: returns what trains on ``index``. On a GPU that replays a graph, and no Python runs in it."""
        step: Callable[[], Any] = lambda: self._step(pruner, method)  # noqa: E731
        if self.on_gpu:
            len(pruner.sampler)  # makes the plan, which a graph cannot
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            step = graph.replay
        torch.manual_seed(seed)
        self.network.restart()
        self.images.restart()
        for state in self._optimiser.state.values():
            state["momentum_buffer"].zero_()
        return step

    def _step(self, pruner: InfoBatch, method: Method) -> None:
        self._bias_rate.copy_(self.rate * self.setup.bias_rate)
        labels = self.images.train_labels[self.index]
        # Without a cache of weights in bfloat16: what a captured graph keeps would be those of its first step.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.on_gpu, cache_enabled=False):
            logits = self.network(self.images.batch(self.index)).float()
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=self.setup.label_smoothing)
        # Importance sampling needs the loss without smoothing, of which it calculates the probability of being wrong.
        scores = F.cross_entropy(logits.detach(), labels, reduction="none") if method.draw == "importance" else losses
        weighted = pruner.update(self.index, losses, scores=scores)
        (weighted if method.weighted else losses.mean()).backward()
        self._optimiser.step()
        self._optimiser.zero_grad()

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float]:
        """Accuracy and mean negative log-likelihood on the test images. Logits are averaged with those of the mirrored image."""
        self.network.eval()
        logits = []
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.on_gpu):
            for images in self.images.test.split(EVALUATION_BATCH):
                logits.append(self.network(images).float() + self.network(images.flip(3)).float())
        self.network.train()
        both, labels = torch.cat(logits) / 2, self.images.test_labels
        return float((both.argmax(1) == labels).float().mean()), float(F.cross_entropy(both, labels))
