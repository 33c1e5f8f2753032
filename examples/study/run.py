"""Trains with every method, learning rate and seed of a workload, and writes every run to a JSON file.

    python examples/study/run.py --workload digits --seeds 5 --out build/study/study-digits.json
    python examples/study/run.py --workload cifar --seeds 5 --data PATH --out build/study/study-cifar.json
    python examples/study/run.py --workload text --seeds 5 --data FILE --out build/study/study-text.json
    python examples/study/run.py --workload redundant --seeds 5 --data PATH --out build/study/study-redundant.json
    python examples/study/run.py --workload tail --seeds 5 --data PATH --out build/study/study-tail.json

PATH is the folder that holds the official ``cifar-10-batches-py`` (https://www.cs.toronto.edu/~kriz/cifar.html, or
``torchvision.datasets.CIFAR10(root=PATH, download=True)``) or an .npz of JPEGs; FILE is any text, here
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
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from config import PRESETS, Config, Run
from filelock import FileLock, Timeout
from methods import MEASURED_BY, METHODS, orphans, visits_of
from results import read_json
from tqdm import tqdm
from train import train
from workloads import Workload, open_workload

from infobatch_fast.machine import load, provenance

Key = tuple[str, float, int]  # method, rate and seed of a run
FORM = "{l_bar}{bar}| {n:.1f}/{total:.0f} epochs [{elapsed}<{remaining}{postfix}]"


def schedule(config: Config, seeds: int, methods: list[str], rates: list[float]) -> Iterator[Key]:
    """Seed by seed, so that what is there after an interruption can be compared."""
    for seed in range(seeds):
        for rate in config.rates:
            for name in METHODS:  # in this order: some need what another one visited
                if rate in rates and name in methods and name in config.methods_at(rate):
                    yield name, rate, seed


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Refuses a second process on one file: the two would write over each other's runs. A killed process holds nothing up."""
    lock = Path(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError as error:
        raise SystemExit(f"--out {path}: cannot write there: {error}") from None
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise SystemExit(f"--out {path}: another process writes to it: wait for it, or give another file") from None


def open_results(path: Path, head: dict[str, Any], field: str) -> dict[str, Any]:
    """The file as it is, if it belongs to the same study and each of its entries has the ``field``; else a new one."""
    if not path.exists():
        return {**head, "sessions": [], "runs": []}
    results = read_json(path)
    if not all(field in entry for entry in results["runs"]):
        raise SystemExit(f"--out {path}: another program of the study wrote it: give another file")
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


def write_results(path: Path, results: dict[str, Any], first: str = "method") -> None:
    """In one piece, a run a line; ``first`` is the first entry of a run."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(results, separators=(",", ":")).replace(f'{{"{first}":', f'\n{{"{first}":') + "\n")
    partial.replace(path)


def open_study(
    config: Config, args: argparse.Namespace, field: str
) -> tuple[dict[str, Any], dict[str, Any], Callable[[int], Workload]]:
    """What a study's file begins with, the file's contents so far, and the workload of a seed."""
    name, stand_in, workload_of = open_workload(config, args.data, args.cache)
    settings = json.loads(json.dumps(config.to_json()))
    head = {"workload": config.workload, "data": name, "stand_in": stand_in, "config": settings, "threads": torch.get_num_threads()}
    results = open_results(args.out, head, field)
    return head, results, workload_of


def begin_session(results: dict[str, Any], script: str) -> None:
    """Notes what runs where. Where files lie is nobody's business."""
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    results["sessions"].append(provenance(words, f"python examples/study/{script}"))


def study(config: Config, args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    head, results, workload_of = open_study(config, args, "rate")
    done: dict[Key, dict[str, Any]] = {(run["method"], run["rate"], run["seed"]): run for run in results["runs"]}
    todo = [job for job in schedule(config, args.seeds, args.methods, args.rates) if job not in done]
    print(f"{args.out}: {len(done)} runs are done, {len(todo)} to do", file=sys.stderr)
    if not todo:
        return
    begin_session(results, "run.py")

    for name, rate, seed in todo:
        workload = workload_of(seed)
        results.update(train_size=workload.size, test_size=workload.test_size)
        visits = visits_of(METHODS[name], done.get((MEASURED_BY, rate, seed)), config.epochs * workload.size)
        run = Run(name, seed, rate, visits, session=len(results["sessions"]) - 1)
        settings = json.dumps([head, repr(METHODS[name]), rate, visits, str(args.out.resolve())], sort_keys=True)
        mark = zlib.crc32(settings.encode())  # a checkpoint of other settings or another file is not taken up
        checkpoint = args.cache / f"{args.out.stem}-{name}-{seed}-{mark:08x}.pt"
        title = f"{name}, rate x{rate:g}, seed {seed}"
        epochs = math.ceil(config.epochs * (visits if METHODS[name].draw == "all" else 1))
        with tqdm(total=epochs + 1e-6, desc=title, mininterval=1.0, bar_format=FORM) as bar:  # parts of epochs add up to more
            train(run, METHODS[name], workload, config, checkpoint, bar)
        done[name, rate, seed] = entry = shorten(asdict(run))
        results["runs"].append(entry)
        results["sessions"][-1]["load_after"] = load()
        write_results(args.out, results)
        checkpoint.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=PRESETS, required=True)
    parser.add_argument("--data", type=Path, help="see above; digits need none")
    parser.add_argument("--out", type=Path, required=True, help="JSON file, written after each run")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each method and rate (default: 3)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--rates", nargs="+", type=float, help="multiples of the learning rate (default: those of config.py)")
    parser.add_argument("--epochs", type=int, help="instead of those of config.py; at least 5")
    parser.add_argument("--train-size", type=int, help="training samples, instead of those of config.py")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1, so that processor seconds mean something)")
    parser.add_argument("--cache", type=Path, default=Path("build/study"), help="folder for checkpoints and decoded images")
    args = parser.parse_args()

    changes = {"epochs": args.epochs, "train_size": args.train_size}
    config = replace(PRESETS[args.workload], **{name: value for name, value in changes.items() if value is not None})
    args.rates = list(config.rates) if args.rates is None else args.rates
    if config.epochs < 5 or args.seeds < 1 or args.threads < 1 or (config.train_size is not None and config.train_size < 2):
        parser.error("needs --epochs of at least 5, --train-size of at least 2, and --seeds and --threads of at least 1")
    if unknown := set(args.rates) - set(config.rates):
        parser.error(f"--rates {min(unknown):g}: {args.workload} has {', '.join(f'{rate:g}' for rate in config.rates)}")
    if takers := orphans([name for name in args.methods if name in config.methods]):
        parser.error(f"--methods: {takers} make as many visits as {MEASURED_BY} does: name it too")
    if args.data and config.workload == "digits":
        parser.error(f"--data {args.data}: digits come with scikit-learn, leave it out")
    if args.data and not args.data.exists():
        parser.error(f"--data {args.data}: there is no such file or folder")
    with alone(args.out):
        study(config, args)


if __name__ == "__main__":
    main()
