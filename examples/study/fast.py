"""CIFAR-10 in seconds on one GPU: what does each way to visit half of the samples cost? Runs are appended to a JSON file.

    python examples/study/fast.py --data PATH --setup short --seeds 16 --out build/study/fast.json

Each seed trains with each method, and the file is written after each run: a command that is repeated does what is missing. PATH is
as for run.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from fast_images import Images
from fast_run import run
from fast_trainer import Setup, Trainer
from methods import MEASURED_BY, METHODS, orphans, visits_of
from run import alone, begin_session, open_results, shorten, write_results
from sources import load_cifar
from tqdm import tqdm

from infobatch_fast.machine import load

SETUPS = {
    "short": Setup((64, 256, 256), depth=2, epochs=16),
    "long": Setup((128, 384, 512), depth=3, epochs=24, rate=0.75),
    "tiny": Setup((8, 16, 16), depth=3, epochs=8, batch=32, rate=0.2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="see run.py; without it enlarged digits stand in")
    parser.add_argument("--setup", choices=SETUPS, default="short", help="tiny is for a CPU, to try the program")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--seeds", type=int, default=16, help="runs of each method")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after this time")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--cache", type=Path, default=Path("build/study"), help="folder for decoded images")
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f"--seeds {args.seeds}: at least 1")
    if args.data and not args.data.exists():
        parser.error(f"--data {args.data}: there is no such file or folder")
    if takers := orphans(args.methods):
        parser.error(f"--methods: {takers} make as many visits as {MEASURED_BY} does: name it too")
    with alone(args.out):
        study(args, time.monotonic() + args.seconds)


def study(args: argparse.Namespace, deadline: float) -> None:
    """All runs that are not in the file yet, seed by seed, until the deadline."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pictures = load_cifar(args.data, args.cache)
    results = open_results(args.out, {"data": pictures.name, "stand_in": pictures.stand_in}, "setup_name")
    setup = SETUPS[args.setup]
    done: dict[tuple[str, int], dict[str, Any]] = {}
    for entry in results["runs"]:
        if entry["setup_name"] == args.setup:
            if entry["setup"] != json.loads(json.dumps(asdict(setup))):
                raise SystemExit(f"--out {args.out}: its runs of --setup {args.setup} had other settings: give another file")
            done[entry["method"], entry["seed"]] = entry
    order = [name for name in METHODS if name in args.methods]
    todo = [(seed, name) for seed in range(args.seeds) for name in order if (name, seed) not in done]
    print(f"{args.out}: {len(done)} runs are done, {len(todo)} to do", file=sys.stderr)
    if not todo:
        return
    begin_session(results, "fast.py")
    trainer = Trainer(Images(pictures, device), setup)
    full = setup.epochs * (trainer.images.size // setup.batch) * setup.batch
    with tqdm(total=len(todo), unit="run") as bar:
        for seed, name in todo:
            if time.monotonic() > deadline:
                print(f"--seconds {args.seconds:g} are over", file=sys.stderr)
                break
            bar.set_description(f"{name}, seed {seed}")
            method = METHODS[name]
            entry = run(trainer, method, visits_of(method, done.get((MEASURED_BY, seed)), full), seed)
            entry |= {"method": name, "setup_name": args.setup, "setup": asdict(setup), "session": len(results["sessions"]) - 1}
            done[name, seed] = entry = shorten(entry)
            results["runs"].append(entry)
            results["sessions"][-1]["load_after"] = load()
            write_results(args.out, results, first="seed")
            bar.set_postfix_str(f"{entry['accuracy'][-1]:.4f} in {sum(entry['seconds']):.1f} s")
            bar.update()


if __name__ == "__main__":
    main()
