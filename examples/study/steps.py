"""What do ``rescale`` and ``by`` do? Trains with all four pairs of them, and writes every run to a JSON file.

    python examples/study/steps.py --data PATH --seeds 4 --out build/study/steps.json
    python examples/study/steps.py --data PATH --seeds 2 --optimizer adamw --out build/study/steps.json

PATH is as for run.py. A command that is repeated does what is missing, so several of them may fill one file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from config import PRESETS, Config, Optimizer, Run
from run import begin_session, mark_of, open_results, shorten, write_results
from tqdm import tqdm
from train import train
from workloads import Workload, open_workload

from infobatch_fast import ImportanceSampling, MeanThreshold, NoPruning, Policy, RandomPruning
from infobatch_fast.machine import load

SAVED = 0.6  # of the seen samples of a pruned epoch: with the full epochs about half of a run's visits
OPTIMIZERS = {"sgd": PRESETS["cifar"].optimizers[0], "adamw": Optimizer("adamw", 3e-3, 0.05)}
CONFIG = replace(PRESETS["cifar"], optimizers=tuple(OPTIMIZERS.values()), curve_size=500)
DRAWS: dict[str, Policy] = {  # which samples an epoch visits
    "uniform": RandomPruning(SAVED),
    "importance": ImportanceSampling(SAVED),
    "mean": MeanThreshold(0.5),
    "full": NoPruning(),
    "fewer": NoPruning(),
}


@dataclass(frozen=True)
class Method:
    """Which samples a run visits, how large its steps are, and what its learning rate follows."""

    draw: str  # a name in DRAWS
    rescale: Literal["epoch", "step"] = "epoch"
    by: Literal["epochs", "visits"] = "epochs"

    def epochs(self, config: Config) -> int:
        """Those of full training, or as many full ones as have the visits of a run that skips SAVED."""
        pruned = int(config.delta * config.epochs) - 1  # in the first one no sample has a score, so none is pruned
        return round(config.epochs - SAVED * pruned) if self.draw == "fewer" else config.epochs


METHODS = {
    f"{draw}-{rescale}-{by}": Method(draw, rescale, by)
    for draw in ("uniform", "importance", "mean")
    for rescale in ("epoch", "step")
    for by in ("epochs", "visits")
} | {"fewer": Method("fewer"), "full": Method("full")}


def schedule(seeds: int, names: list[str]) -> Iterator[tuple[str, int]]:
    """Seed by seed, so that what is there after an interruption can be compared."""
    return ((name, seed) for seed in range(seeds) for name in METHODS if name in names)


def study(args: argparse.Namespace) -> None:
    """All runs that are not in the file yet."""
    torch.set_num_threads(args.threads)
    data, stand_in, workload_of = open_workload(CONFIG, args.data, args.cache)
    settings = json.loads(json.dumps(CONFIG.to_json()))
    head = {"data": data, "stand_in": stand_in, "config": settings, "saved": SAVED, "threads": args.threads}
    results = open_results(args.out, head)
    done = {(run["optimizer"], run["method"], run["seed"]) for run in results["runs"]}
    todo = [job for job in schedule(args.seeds, args.methods) if (args.optimizer, *job) not in done]
    print(f"{args.out}: {len(done)} runs are done, {len(todo)} to do", file=sys.stderr)
    if not todo:
        return
    mark = mark_of(head)
    begin_session(results, "steps.py")
    for name, seed in todo:
        workload = workload_of(seed)
        results.update(train_size=workload.size, test_size=workload.test_size)
        results["runs"].append(run_one(name, seed, args, mark, len(results["sessions"]) - 1, workload))
        results["sessions"][-1]["load_after"] = load()
        write_results(args.out, results)


def run_one(name: str, seed: int, args: argparse.Namespace, mark: str, session: int, workload: Workload) -> dict[str, Any]:
    """One run, as the file holds it."""
    method = METHODS[name]
    config = replace(CONFIG, rescale=method.rescale, by=method.by)
    run = Run(args.optimizer, name, seed, method.epochs(config), session=session)
    checkpoint = args.cache / f"{args.out.stem}-{mark}-{args.optimizer}-{name}-{seed}.pt"
    with tqdm(total=run.epochs + 1e-6, desc=f"{name}, {args.optimizer}, seed {seed}", mininterval=5.0) as bar:
        train(run, DRAWS[method.draw], OPTIMIZERS[args.optimizer], workload, config, checkpoint, bar)
    entry: dict[str, Any] = shorten(asdict(run))
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="see run.py; without it enlarged digits stand in")
    parser.add_argument("--out", type=Path, required=True, help="JSON file, written after each run")
    parser.add_argument("--seeds", type=int, default=4, help="runs of each method")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--cache", type=Path, default=Path("build/study"), help="folder for checkpoints and decoded images")
    args = parser.parse_args()
    if args.seeds < 1 or args.threads < 1:
        parser.error("needs --seeds and --threads of at least 1")
    if args.data and not args.data.exists():
        parser.error(f"--data {args.data}: there is no such file or folder")
    study(args)


if __name__ == "__main__":
    main()
