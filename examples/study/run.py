"""Is it lossless? Trains with all methods and seeds, and writes every run to a JSON file.

    python examples/study/run.py --workload digits --seeds 10 --out build/study/lossless-digits.json
    python examples/study/run.py --workload cifar --seeds 5 --data PATH --out build/study/lossless-cifar.json
    python examples/study/run.py --workload text --seeds 5 --data PATH --out build/study/lossless-text.json
    python examples/study/run.py --workload optimizers --seeds 5 --out build/study/lossless-optimizers.json

PATH for cifar is the folder that holds the official ``cifar-10-batches-py`` (https://www.cs.toronto.edu/~kriz/cifar.html, or
``torchvision.datasets.CIFAR10(root=PATH, download=True)``) or an .npz of JPEGs; for text any file, here
https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt. Without --data something that needs no
download stands in, and the file says so. A command that was interrupted goes on where it was; runs that are done are skipped.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from config import METHODS, PRESETS, Config, Optimizer, Run
from tqdm import tqdm
from train import train
from workloads import Workload, open_workload

from infobatch_fast import NoPruning, Policy, QuantileTiers, RandomPruning
from infobatch_fast.machine import load, provenance

Key = tuple[str, str, int]


def saved_fraction(run: dict[str, Any]) -> float:
    return sum(run["saved"]) / len(run["saved"])


def choose(method: str, saved: float, config: Config) -> tuple[Policy | None, int, float | None]:
    """Policy, epochs and prune ratio of a method; ``saved`` is the fraction that "infobatch" saved with the same seed."""
    if method == "infobatch":
        return None, config.epochs, None
    if method == "tiers":
        return QuantileTiers(config.quantiles, config.tier_ratios), config.epochs, None
    if method == "random":
        pruned_epochs = math.floor(config.delta * config.epochs) - 1  # in the first one no sample has a score, so none is pruned
        ratio = saved * config.epochs / pruned_epochs
        return RandomPruning(ratio), config.epochs, ratio
    if method == "fewer":
        return NoPruning(), max(1, round((1 - saved) * config.epochs)), None
    return NoPruning(), config.epochs, None


def schedule(config: Config, seeds: int) -> Iterator[tuple[Optimizer, str, int]]:
    """Seed by seed, so that what is there after an interruption can be compared."""
    for seed in range(seeds):
        for optimizer in config.optimizers:
            for method in METHODS:
                if method in config.methods:
                    yield optimizer, method, seed


def open_results(path: Path, head: dict[str, Any]) -> dict[str, Any]:
    """The file as it is, if it belongs to the same study; else a new one."""
    if not path.exists():
        return {**head, "sessions": [], "runs": []}
    results: dict[str, Any] = json.loads(path.read_text())
    for name, value in head.items():
        if results.get(name) != value:
            raise SystemExit(f"--out {path}: its {name} is {results.get(name)!r}, not {value!r}: give another file, or remove it")
    return results


def shorten(value: Any) -> Any:
    """All floats to six digits: what a file holds is also what a later run of the same process goes by."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, list):
        return [shorten(item) for item in value]
    return {name: shorten(item) for name, item in value.items()} if isinstance(value, dict) else value


def write_results(path: Path, results: dict[str, Any], first: str = "optimizer") -> None:
    """In one piece, a run a line; ``first`` is the first entry of a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(results, separators=(",", ":")).replace(f'{{"{first}":', f'\n{{"{first}":') + "\n")
    partial.replace(path)


def open_study(config: Config, args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any], Callable[[int], Workload]]:
    """What a study's file begins with, the file's contents so far, and the workload of a seed."""
    name, stand_in, workload_of = open_workload(config, args.data, args.cache)
    settings = json.loads(json.dumps(config.to_json()))
    head = {"workload": config.workload, "data": name, "stand_in": stand_in, "config": settings, "threads": torch.get_num_threads()}
    results = open_results(args.out, head)
    return head, results, workload_of


def mark_of(head: dict[str, Any]) -> str:
    """Goes into the names of checkpoints, so that one of other settings is not taken up."""
    return f"{zlib.crc32(json.dumps(head, sort_keys=True).encode()):08x}"


def begin_session(results: dict[str, Any], script: str) -> None:
    """Notes what runs where. Where files lie is nobody's business."""
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    results["sessions"].append(provenance(words, f"python examples/study/{script}"))


def study(config: Config, args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    head, results, workload_of = open_study(config, args)
    done: dict[Key, dict[str, Any]] = {(run["optimizer"], run["method"], run["seed"]): run for run in results["runs"]}
    todo = [job for job in schedule(config, args.seeds) if (job[0].name, *job[1:]) not in done]
    print(f"{args.out}: {len(done)} runs are done, {len(todo)} to do", file=sys.stderr)
    if not todo:
        return
    mark = mark_of(head)
    begin_session(results, "run.py")

    for optimizer, method, seed in todo:
        ours = done.get((optimizer.name, "infobatch", seed))
        policy, epochs, ratio = choose(method, saved_fraction(ours) if ours else 0.0, config)
        run = Run(optimizer.name, method, seed, epochs, ratio)
        run.session = len(results["sessions"]) - 1
        workload = workload_of(seed)
        results.update(train_size=workload.size, test_size=workload.test_size)
        checkpoint = args.cache / f"{args.out.stem}-{mark}-{optimizer.name}-{method}-{seed}.pt"
        title = f"{METHODS[method]}, {optimizer.name}, seed {seed}"
        form = "{l_bar}{bar}| {n:.1f}/{total:.0f} epochs [{elapsed}<{remaining}{postfix}]"
        with tqdm(
            total=epochs + 1e-6, desc=title, mininterval=1.0, bar_format=form
        ) as bar:  # the steps' parts add up to a rounding error more
            train(run, policy, optimizer, workload, config, checkpoint, bar)
        done[optimizer.name, method, seed] = entry = shorten(asdict(run))
        results["runs"].append(entry)
        results["sessions"][-1]["load_after"] = load()
        write_results(args.out, results)


def main() -> None:
    parser = argparse.ArgumentParser(description="Full data, InfoBatch, random pruning and fewer epochs, with several seeds.")
    parser.add_argument("--workload", choices=sorted(PRESETS), required=True)
    parser.add_argument("--data", type=Path, help="see above; digits need none")
    parser.add_argument("--out", type=Path, required=True, help="JSON file, written after each run")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each method (default: 3)")
    parser.add_argument("--epochs", type=int, help="instead of those of config.py; at least 3")
    parser.add_argument("--train-size", type=int, help="training samples, instead of those of config.py")
    parser.add_argument("--rescale", choices=("epoch", "step"), help="that of InfoBatch (default: epoch)")
    parser.add_argument("--by", choices=("epochs", "visits"), help="how the learning rate falls (default: epochs)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1, so that processor seconds mean something)")
    parser.add_argument("--cache", type=Path, default=Path("build/study"), help="folder for checkpoints and decoded images")
    args = parser.parse_args()

    changes = {"epochs": args.epochs, "train_size": args.train_size, "rescale": args.rescale, "by": args.by}
    config = replace(PRESETS[args.workload], **{name: value for name, value in changes.items() if value is not None})
    if config.epochs < 3 or args.seeds < 1 or args.threads < 1 or (config.train_size or 2) < 2:
        parser.error("needs --epochs of at least 3, --train-size of at least 2, and --seeds and --threads of at least 1")
    if args.data and config.workload == "digits":
        parser.error(f"--data {args.data}: digits come with scikit-learn, leave it out")
    if args.data and not args.data.exists():
        parser.error(f"--data {args.data}: there is no such file or folder")
    study(config, args)


if __name__ == "__main__":
    main()
