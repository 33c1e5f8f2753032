"""Trains a small network on halves of scikit-learn's digits that were chosen beforehand, and with InfoBatch on all of them.

    python examples/selection.py                    # 7 methods x 10 seeds, about a minute on two cores
    python examples/selection.py --from-json FILE   # the table and the picture once more, from the numbers of a former run

All methods but "full data" take the same number of steps of 64 images, by the same schedule: a half has half as many steps an
epoch, and InfoBatch gets ``steps_per_epoch`` of a half. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from digits import add_files, measure_accuracy, set_rate, show
from selection_report import draw, make_table
from sklearn.cluster import kmeans_plusplus
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from infobatch_fast import InfoBatch
from infobatch_fast.machine import provenance
from infobatch_fast.selection import ForgettingEvents, error_norms, select

BATCH_SIZE, TRAIN_IMAGES, KEEP = 64, 1024, 0.5  # halves are whole batches too
Batches = Iterable[list[int]]
Split = tuple[Tensor, Tensor]


def make_model() -> nn.Module:
    """Small, so that many seeds take a minute."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


class Training:
    """One run: a model of its own, and what came of it epoch by epoch."""

    def __init__(self, train: Split, test: Split, epochs: int, rate: float, seed: int) -> None:
        torch.manual_seed(seed)
        self.images, self.labels = train
        self.test, self.epochs, self.rate = test, epochs, rate
        self.model = make_model()
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True
        )
        self.accuracy: list[float] = []
        self.visited: list[int] = []

    def epoch(self, batches: Batches, steps: int, loss_of: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        """``loss_of(index, losses, logits)`` is what the step descends."""
        epoch, visited = len(self.visited), 0
        for step, batch in enumerate(batches):
            set_rate(self.optimizer, self.rate, (epoch + step / steps) / self.epochs)
            index = torch.as_tensor(batch)
            logits = self.model(self.images[index])
            losses = F.cross_entropy(logits, self.labels[index], reduction="none")
            self.optimizer.zero_grad()
            loss_of(index, losses, logits).backward()
            self.optimizer.step()
            visited += len(index)
        self.visited.append(visited)
        self.accuracy.append(measure_accuracy(self.model, *self.test))


def shuffled(ids: Tensor) -> Iterator[list[int]]:
    """The batches of an epoch, in an order that torch's generator decides."""
    for batch in ids[torch.randperm(len(ids))].split(BATCH_SIZE):
        yield batch.tolist()


def train_on(run: Training, ids: Tensor) -> None:
    for _ in range(run.epochs):
        run.epoch(shuffled(ids), len(ids) // BATCH_SIZE, lambda _, losses, __: losses.mean())


def train_and_score(run: Training, early: int) -> tuple[Tensor, Tensor]:
    """Full training, in which samples are scored: EL2N after ``early`` epochs, forgetting events along the way."""
    ids, events = torch.arange(len(run.labels)), ForgettingEvents(len(run.labels))

    def note(index: Tensor, losses: Tensor, logits: Tensor) -> Tensor:
        events.update(index, logits.argmax(1) == run.labels[index])
        return losses.mean()

    for epoch in range(run.epochs):
        run.epoch(shuffled(ids), len(ids) // BATCH_SIZE, note)
        if epoch + 1 == early:
            norms = score(run.model, run.images, run.labels)
    return norms, events.scores()


@torch.no_grad()
def score(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    norms = error_norms(model.eval()(images), labels)
    model.train()
    return norms


def train_with_infobatch(run: Training, steps: int, seed: int) -> None:
    pruner = InfoBatch(len(run.labels), num_epochs=run.epochs, batch_size=BATCH_SIZE, steps_per_epoch=steps, seed=seed)
    for epoch in range(run.epochs):
        pruner.set_epoch(epoch)
        run.epoch(pruner.sampler.batches(BATCH_SIZE), steps, lambda index, losses, _: pruner.update(index, losses))


def spread_out(images: Tensor, labels: Tensor, quotas: Tensor, seed: int) -> Tensor:
    """A coreset: in each class the images that k-means++ would begin with, each one far from those before it."""
    chosen = []
    for label, quota in enumerate(quotas.tolist()):
        ids = (labels == label).nonzero().flatten()
        _, places = kmeans_plusplus(images[ids].flatten(1).numpy(), quota, random_state=seed)
        chosen.append(ids[torch.as_tensor(places)])
    return torch.cat(chosen).sort().values


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """All methods with all seeds, as what the JSON file holds."""
    made_by = provenance(sys.argv[1:], "python examples/selection.py")
    torch.set_num_threads(1)  # for steps this small more threads are slower
    digits = load_digits()
    images, labels = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None], torch.tensor(digits.target)
    x, test_x, y, test_y = train_test_split(images, labels, train_size=TRAIN_IMAGES, stratify=labels, random_state=0)
    early = max(1, args.epochs // 8)

    def start(seed: int) -> Training:
        return Training((x, y), (test_x, test_y), args.epochs, args.rate, seed)

    full = [start(seed) for seed in range(args.seeds)]
    scored = [train_and_score(run, early) for run in full]
    norms, forgotten = (torch.stack(scores).mean(0) for scores in zip(*scored, strict=True))  # over the seeds, as the papers do
    runs = [("full data", seed, run) for seed, run in enumerate(full)]
    for seed in range(args.seeds):
        random = select(TRAIN_IMAGES, KEEP, "random", y, seed)
        halves = {
            "random half": random,
            "hardest half by EL2N": select(norms, KEEP, labels=y),
            "hardest half by forgetting": select(forgotten, KEEP, labels=y),
            "k-means++ coreset": spread_out(x, y, y[random].bincount(), seed),
        }
        for method, ids in halves.items():
            train_on(run := start(seed), ids)
            runs.append((method, seed, run))
        shorter = start(seed)
        shorter.epochs = round(KEEP * args.epochs)
        train_on(shorter, torch.arange(TRAIN_IMAGES))
        runs.append(("full data, half the epochs", seed, shorter))
        train_with_infobatch(run := start(seed), round(KEEP * TRAIN_IMAGES) // BATCH_SIZE, seed)
        runs.append(("InfoBatch", seed, run))
        print(f"seed {seed}: done", file=sys.stderr)
    to_score = {  # images visited before the half is known, by all models together
        "hardest half by EL2N": args.seeds * early * TRAIN_IMAGES,
        "hardest half by forgetting": args.seeds * args.epochs * TRAIN_IMAGES,
    }
    settings = {"epochs": args.epochs, "seeds": args.seeds, "rate": args.rate, "early": early}
    sizes = {"train_images": TRAIN_IMAGES, "test_images": len(test_y), "to_score": to_score}
    of_run = [{"method": name, "seed": seed, "accuracy": run.accuracy, "visited": run.visited} for name, seed, run in runs]
    return {"made_by": made_by, **settings, **sizes, "runs": of_run}


def main() -> None:
    parser = argparse.ArgumentParser(description="Halves of scikit-learn's digits against InfoBatch at as many visits.")
    parser.add_argument("--epochs", type=int, default=32, help="of full data, an even number (default: 32)")
    parser.add_argument("--seeds", type=int, default=10, help="runs of each method, at least 2 (default: 10)")
    parser.add_argument("--rate", type=float, default=0.2, help="peak of the learning rate (default: 0.2, best for full data)")
    add_files(parser, "docs/selection.png", "benchmarks/results/selection.json")
    args = parser.parse_args()
    if args.epochs < 2 or args.epochs % 2 or args.seeds < 2:
        parser.error("needs --epochs that is even and at least 2, and --seeds of at least 2")

    show(args, compare, draw, make_table)


if __name__ == "__main__":
    main()
