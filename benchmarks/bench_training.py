"""What a training step pays for pruning: step times without it, with infobatch_fast, and with the algorithm as published.

python benchmarks/bench_training.py --device cpu --out benchmarks/results/training_cpu.json

Images of CIFAR's shape are synthetic and lie in memory, so that no loading hides anything. All variants train a model of their own
from the same weights, and take turns, a step each (on a GPU ten, as waiting for the device in each step would hide its queue).
"""

import argparse
import itertools
import json
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from infobatch_fast.bench import documents, suite
from infobatch_fast.bench.baselines import Published, TorchRandomSampler
from infobatch_fast.bench.contender import Contender, Ours, fill_all
from infobatch_fast.bench.operations import BATCH, orders, plans
from infobatch_fast.bench.timing import FULL, QUICK, Effort, Timed, alternate, spread
from infobatch_fast.engine.device import check_device
from infobatch_fast.machine import load, provenance

IMAGES, CLASSES = 50_000, 100
PLAIN, PUBLISHED, OURS = "no pruning (RandomSampler)", "published", "infobatch_fast"
VARIANTS: dict[str, type[Contender]] = {OURS: Ours, PLAIN: TorchRandomSampler, PUBLISHED: Published}
COSTS = {"plan, mean": "plan", f"order, batches of {BATCH}": "index"}
SHARES = (10**6, 10**7, 10**8, 10**9)


class SmallNet(nn.Sequential):
    """Three convolutions: a CPU trains it in some milliseconds a batch."""

    def __init__(self) -> None:
        layers = []
        for inputs, outputs in ((3, 32), (32, 64), (64, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
        super().__init__(*layers, nn.Flatten(), nn.Linear(64 * 16, CLASSES))


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.second, self.second_norm = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)))))
        return F.relu(out + self.shortcut(x))


class ResNet18(nn.Sequential):
    """ResNet-18 with the stem for images of 32 x 32 (He et al. 2016): four stages of two residual blocks."""

    def __init__(self) -> None:
        blocks, inputs = [], 64
        for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [Residual(inputs, outputs, stride), Residual(outputs, outputs, 1)]
            inputs = outputs
        stem = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        super().__init__(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES))


class Trainer:
    """One variant: its model, its sampler, and a step of training."""

    def __init__(self, sampler: Any, images: torch.Tensor, labels: torch.Tensor, batch: int) -> None:
        torch.manual_seed(0)
        self.device, self.batch, self.sampler = images.device, batch, sampler
        self.images, self.labels = images, labels
        self.model = (ResNet18() if self.device.type == "cuda" else SmallNet()).to(self.device, memory_format=torch.channels_last)
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.prunes = hasattr(sampler, "update")
        self.epochs, self.batches = itertools.count(1), iter(())

    def next_batch(self) -> torch.Tensor:
        for indices in itertools.chain(self.batches, ()):
            if len(indices) == self.batch:
                return torch.tensor(indices).to(self.device, non_blocking=True)
        self.sampler.plan(next(self.epochs))
        self.batches = iter(self.sampler.batches(self.batch))
        return self.next_batch()

    def loss(self, index: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        losses = F.cross_entropy(logits.float(), self.labels[index], reduction="none" if self.prunes else "mean")
        return self.sampler.update(index, losses) if self.prunes else losses

    def train(self, index: torch.Tensor) -> None:
        x = self.images[index].to(torch.float32).div_(127.5).sub_(1.0).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.model(x)
        loss = self.loss(index, logits)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()

    def step(self) -> None:
        self.train(self.next_batch())


def time_steps(trainers: dict[str, Trainer], steps: int, block: int) -> dict[str, np.ndarray]:
    """Seconds a step of each variant, by block."""

    def take(_: object, trainer: Trainer, steps: int = block) -> None:
        for _ in range(steps):
            trainer.step()

    for trainer in trainers.values():
        take(None, trainer, 10)
    timed = [Timed(name, partial(take, trainer=trainer), repeats=block) for name, trainer in trainers.items()]
    times = alternate(timed, Effort(steps // block, math.inf, math.inf), next(iter(trainers.values())).device)
    return {name: np.array(list(taken.seconds.values())) for name, taken in times.items()}


def overhead(taken: np.ndarray, plain: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Percent that a step takes longer, from the median of paired differences, with its 95 % bootstrap interval."""
    ratios = 100 * (taken - plain) / np.median(plain)
    draws = np.random.default_rng(seed).integers(0, len(ratios), (10_000, len(ratios)))
    low, high = np.quantile(np.median(ratios[draws], axis=1), (0.025, 0.975))
    return {"mean": float(np.median(ratios)), "low": float(low), "high": float(high)}


def sampling_costs(device: torch.device, sizes: list[int], quick: bool) -> dict[str, dict[str, dict[str, float]]]:
    """Of each variant and measured size: seconds of a plan, and of handing out one index in batches."""
    costs: dict[str, dict[str, dict[str, float]]] = {name: {} for name in VARIANTS}
    for size in sizes:
        variants = {which.name: name for name, which in VARIANTS.items() if which is Ours or size <= 10**7}
        now = suite.prepared(size, device, [VARIANTS[name](size, device) for name in variants.values()])
        for operation in itertools.chain(plans(now), orders(now)):
            if operation.name in COSTS:
                row = suite.row(operation, now, QUICK if quick else FULL)
                for name, figures in row["contenders"].items():
                    costs[variants[name]].setdefault(str(size), {})[COSTS[operation.name]] = figures["seconds"]["median"]
    return costs


def shares(costs: dict[str, dict[str, dict[str, float]]], step: float, batch: int) -> dict[str, dict[str, float]]:
    """Percent of an epoch that plan and sampling take: at each size by the costs of the largest measured size up to it."""
    percent: dict[str, dict[str, float]] = {}
    for name, by_size in costs.items():
        for size in SHARES:
            known = max(int(measured) for measured in by_size if int(measured) <= size)
            kept = 1.0 if name == PLAIN else 0.65  # of the samples: log-normal losses, r = 0.5
            training = kept * size * step / batch
            cost = by_size[str(known)]
            sampling = cost["plan"] / known * size + kept * size * cost["index"]
            percent.setdefault(name, {})[str(size)] = 100 * sampling / training
    return percent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=200, help="of each variant")
    parser.add_argument("--quick", action="store_true", help="sampling costs at 1e6 samples only, few rounds")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = check_device(arguments.device)
    batch, block = (512, 10) if device.type == "cuda" else (128, 1)
    document = provenance(sys.argv[1:], "python benchmarks/bench_training.py") | {"quick": arguments.quick}
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (IMAGES, 3, 32, 32), dtype=torch.uint8, generator=generator).to(device)
    labels = torch.randint(CLASSES, (IMAGES,), generator=generator).to(device)
    samplers = {name: VARIANTS[name](IMAGES, device) for name in (PLAIN, OURS, PUBLISHED)}
    fill_all(list(samplers.values()), IMAGES)
    trainers = {name: Trainer(sampler, images, labels, batch) for name, sampler in samplers.items()}
    taken = time_steps(trainers, arguments.steps, block)
    variants: dict[str, dict] = {name: {"seconds": spread(list(seconds))} for name, seconds in taken.items()}
    for name in (OURS, PUBLISHED):
        variants[name]["overhead_percent"] = overhead(taken[name], taken[PLAIN])
    del trainers, samplers

    sizes = [10**6] if arguments.quick else [10**6, 10**7, 10**8]
    costs = sampling_costs(device, sizes, arguments.quick)
    document["training"] = [
        {
            "device": device.type,
            "model": "ResNet-18, bfloat16, channels_last" if device.type == "cuda" else "small CNN, float32",
            "batch": batch,
            "steps": arguments.steps,
            "variants": variants,
            "sampling_costs": costs,
            "epoch_share_sizes": SHARES,
            "epoch_share_percent": shares(costs, float(np.median(taken[PLAIN])), batch),
            "epoch_share_basis": "extrapolated from this step time and from plans and batches of ids measured with up to "
            f"{max(sizes):.0e} samples (the others: {min(max(sizes), 10**7):.0e})",
        }
    ]
    document["load_after"] = load()
    if arguments.out:
        documents.write(arguments.out, document)
    print(json.dumps(document["training"], indent=1))


if __name__ == "__main__":
    main()
