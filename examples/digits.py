"""Trains a small CNN on scikit-learn's digits, with and without pruning, and shows what was saved and what it cost.

    python examples/digits.py                    # 4 methods x 5 seeds, about a minute on two cores
    python examples/digits.py --from-json FILE   # the table and the picture once more, from the numbers of a former run

The 1,797 images of 8x8 pixels are part of scikit-learn: nothing is downloaded. What a training loop of your own needs is marked
with (1), (2) and (3) in ``train``; everything else is an ordinary training script.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import Empty, Queue
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from digits_report import BINS_PER_DECADE, DECADES, FIRST_DECADE, draw, make_table, picture
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from infobatch_fast import ImportanceSampling, InfoBatch, NoPruning, Policy, with_index
from infobatch_fast.machine import provenance

BATCH_SIZE = 64
DELTA = 0.875  # InfoBatch's default: the last eighth of the epochs is full
METHODS = ("full data", "InfoBatch", "importance sampling", "full data, fewer epochs")


class Digits(Dataset[tuple[Tensor, int]]):
    """Images [N, 1, 8, 8] and labels; each image comes shifted by up to one pixel, another way each time."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.padded = F.pad(images, (1, 1, 1, 1))
        self.labels = labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        top, left = torch.randint(3, (2,)).tolist()
        return self.padded[index, :, top : top + 8, left : left + 8], self.labels[index]


class Timed:
    """A batch sampler that notes the seconds spent in it."""

    def __init__(self, batches: Any) -> None:
        self.batches, self.seconds = batches, 0.0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        batches = iter(self.batches)
        while True:
            start = perf_counter()
            batch = next(batches, None)
            self.seconds += perf_counter() - start
            if batch is None:
                return
            yield batch


@dataclass
class Run:
    """What one training run did, epoch by epoch."""

    method: str
    seed: int
    accuracy: list[float] = field(default_factory=list)  # on the test images
    visited: list[int] = field(default_factory=list)  # samples
    threshold: list[float | None] = field(default_factory=list)
    histogram: list[int] = field(default_factory=list)  # of the scores, half-way
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("training", "plan", "batches", "update"), 0.0))


def make_model() -> nn.Module:
    """A CNN of 21 thousand weights. Channels last: the faster layout on a CPU."""

    def convolution(inputs: int, outputs: int, stride: int) -> nn.Module:
        layer = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())

    layers = convolution(1, 32, 2), convolution(32, 64, 1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def set_rate(optimizer: torch.optim.Optimizer, peak: float, progress: float) -> None:
    """Warm-up and cosine by the part of the run's visits that is done, since the steps of an epoch vary."""
    optimizer.param_groups[0]["lr"] = peak * min(1.0, 0.01 + progress / 0.15) * (1 + math.cos(math.pi * progress)) / 2


@torch.no_grad()
def measure_accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    correct = model.eval()(images).argmax(1) == labels
    model.train()
    return float(correct.float().mean())


def train(run: Run, policy: Policy | None, epochs: int, args: argparse.Namespace, ended: Queue[str]) -> Run:
    """Trains and fills in ``run``; puts a line into ``ended`` after each epoch."""
    torch.set_num_threads(1)  # for steps this small more threads are slower
    data, test = load_data()
    torch.manual_seed(run.seed)
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.rate, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)

    # (1) The pruner, which owns a sampler. "Timed" is here only because this script reports the seconds.
    pruner = InfoBatch(data, num_epochs=epochs, delta=DELTA, policy=policy, seed=run.seed)
    batches = Timed(pruner.sampler.batches(BATCH_SIZE))
    # (2) Items come with their indices, in the order of the sampler.
    loader = DataLoader(with_index(data), batch_sampler=batches)

    for epoch in range(epochs):
        start = perf_counter()
        pruner.set_epoch(epoch)
        if epoch == epochs // 2:
            run.histogram = count_scores(pruner.scores())
        for index, (images, labels) in loader:
            set_rate(optimizer, args.rate, pruner.visited_fraction)
            losses = F.cross_entropy(model(images), labels, reduction="none")
            before = perf_counter()
            loss = pruner.update(index, losses)  # (3) The weighted mean, in place of losses.mean().
            run.seconds["update"] += perf_counter() - before
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        run.seconds["training"] += perf_counter() - start

        stats = pruner.stats
        run.seconds["plan"] += stats.plan_seconds
        run.visited.append(stats.scored)
        run.threshold.append(stats.thresholds[0] if stats.thresholds and math.isfinite(stats.thresholds[0]) else None)
        run.accuracy.append(measure_accuracy(model, *test))
        ended.put(f"{run.method}, seed {run.seed}: kept {stats.kept / len(data):.0%}, test {run.accuracy[-1]:.1%}")
    run.seconds["batches"] = batches.seconds
    return run


def count_scores(scores: Tensor) -> list[int]:
    exponents = scores.clamp(min=10.0**FIRST_DECADE).log10()
    counts = torch.histc(exponents, BINS_PER_DECADE * DECADES, FIRST_DECADE, FIRST_DECADE + DECADES)
    return [int(count) for count in counts]


def load_data() -> tuple[Digits, tuple[Tensor, Tensor]]:
    """Training data, and images and labels for testing: a fifth."""
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(digits.target)
    x, test_x, y, test_y = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)
    return Digits(x, y), (test_x, test_y)


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """All methods with all seeds, a process a core, as what the JSON file holds."""
    made_by = provenance(sys.argv[1:], "python examples/digits.py")
    data, (_, test_labels) = load_data()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([Path(__file__).stem])  # the processes share one import of torch
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(args.jobs or os.cpu_count(), context) as pool,
        ExitStack() as stopped,
        tqdm(total=len(METHODS) * args.seeds * args.epochs, desc="epochs of all runs", mininterval=0.5) as bar,
    ):
        ended = manager.Queue()

        def start(method: str, seed: int, policy: Policy | None, epochs: int) -> Future[Run]:
            return pool.submit(train, Run(method, seed), policy, epochs, args, ended)

        def finish(futures: list[Future[Run]]) -> list[Run]:
            while not all(future.done() for future in futures):
                with suppress(Empty):
                    bar.set_postfix_str(ended.get(timeout=0.5), refresh=False)
                    bar.update()
            return [future.result() for future in futures]

        stopped.callback(pool.shutdown, wait=False, cancel_futures=True)  # on Ctrl-C: no other run begins
        runs = finish([start("InfoBatch", seed, None, args.epochs) for seed in range(args.seeds)])
        others = [start("full data", run.seed, NoPruning(), args.epochs) for run in runs]
        for run in runs:  # these make as many visits as InfoBatch with the same seed
            kept = sum(run.visited) / (args.epochs * len(data))
            # In the first epoch no sample has a score, so none is pruned.
            skipped = (1 - kept) * args.epochs / (math.floor(DELTA * args.epochs) - 1)
            others.append(start("importance sampling", run.seed, ImportanceSampling(skipped), args.epochs))
            fewer = max(1, round(kept * args.epochs))
            others.append(start("full data, fewer epochs", run.seed, NoPruning(), fewer))
            bar.total -= args.epochs - fewer
        runs += finish(others)
    runs.sort(key=lambda run: (run.seed, METHODS.index(run.method)))
    settings = {name: getattr(args, name) for name in ("epochs", "seeds", "rate")}
    sizes = {"train_images": len(data), "test_images": len(test_labels)}
    return {"made_by": made_by, **settings, **sizes, "runs": [asdict(run) for run in runs]}


def show(
    args: argparse.Namespace,
    compare: Callable[[argparse.Namespace], dict[str, Any]],
    draw: Callable[[dict[str, Any], Path], None],
    make_table: Callable[[dict[str, Any]], str],
) -> None:
    """Trains and writes the numbers, or reads those of a former run; draws the picture and prints the table."""
    if args.from_json:
        try:
            results = json.loads(args.from_json.read_text())
        except (OSError, ValueError) as error:
            raise SystemExit(f"--from-json {args.from_json}: {error}") from None
    else:
        results = compare(args)
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=1) + "\n")
        print(f"numbers: {args.json}", file=sys.stderr)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw(results, args.out)
    print(f"picture: {args.out}", file=sys.stderr)
    print(make_table(results))


def add_files(parser: argparse.ArgumentParser, image: str, results: str) -> None:
    """The options that ``show`` goes by, with these files as defaults."""
    parser.add_argument("--out", type=picture, default=Path(image), help="the picture")
    parser.add_argument("--json", type=numbers, default=Path(results), help="the numbers")
    parser.add_argument("--from-json", type=numbers, help="train nothing, show the numbers in this file")


def numbers(text: str) -> Path:
    """A file of numbers, for argparse."""
    if not text.endswith(".json") or Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"must be a file whose name ends with .json, got {text!r}")
    return Path(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Full data, InfoBatch, importance sampling and fewer epochs on scikit-learn's digits."
    )
    parser.add_argument("--epochs", type=int, default=20, help="at least 3 (default: 20)")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each method (default: 5)")
    parser.add_argument("--jobs", type=int, default=0, help="seeds that train at a time (default: one a core)")
    parser.add_argument("--rate", type=float, default=0.04, help="peak of the learning rate (default: 0.04)")
    add_files(parser, "build/digits.png", "build/digits.json")
    args = parser.parse_args()
    if args.epochs < 3 or args.seeds < 1 or args.jobs < 0:
        parser.error("needs --epochs of at least 3, --seeds of at least 1 and --jobs of at least 0")

    show(args, compare, draw, make_table)


if __name__ == "__main__":
    main()
