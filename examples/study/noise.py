"""How noisy is a policy's gradient? Trains on full data, and plans by the losses of three moments of the run.

    python examples/study/noise.py --workload digits --seeds 3 --out build/study/noise-digits.json
    python examples/study/noise.py --workload cifar --seeds 2 --data PATH --out build/study/noise-cifar.json
    python examples/study/noise.py --workload text --seeds 2 --data PATH --out build/study/noise-text.json

PATH is that of run.py. The moments are the ends of the first epoch, of half of the epochs, and of the last one. Each plan's noise
is calculated twice: by the losses that it was made from, where 1 - exp(-loss) stands for the norm of a gradient, and by the
gradients themselves. These are taken sample by sample at the end of the epoch, where batch normalisation takes its running
statistics. So that one sees what the age of the losses does, there are also plans by the losses of that moment.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from config import PRESETS, Config, Run
from methods import METHODS
from noise_plans import SKIPPED, added_noise, best, norms_of, plans
from run import alone, begin_session, open_study, shorten, write_results
from torch import Tensor, nn
from tqdm import tqdm
from train import train
from workloads import Workload

from infobatch_fast import InfoBatch
from infobatch_fast.machine import load


def moments(epochs: int) -> list[int]:
    """Numbers of trained epochs after which plans are made."""
    return sorted({1, math.ceil(epochs / 2), epochs})


def look_closely(workload: Workload, model: nn.Module, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Of each training sample the loss, float32 [N], and the norm of its gradient, of all parameters together, float64 [N]."""
    parameters = list(model.parameters())
    losses, norms = torch.empty(workload.size), torch.empty(workload.size, dtype=torch.float64)
    model.eval()
    for sample in tqdm(range(workload.size), "gradients", mininterval=1.0, leave=False):
        loss = workload.losses(model, torch.tensor([sample]), generator).sum()
        gradients = torch.autograd.grad(loss, parameters)
        losses[sample] = loss.detach()
        norms[sample] = sum(float(gradient.square().sum()) for gradient in gradients) ** 0.5
    model.train()
    return losses, norms


def describe(scores: Tensor) -> dict[str, float]:
    """The distribution of the recorded losses."""
    known = scores[scores.isfinite()].double()
    mean, deviation = known.mean(), known.std(correction=0)
    return {
        "seen": known.numel(),
        "mean": float(mean),
        "median": float(known.median()),
        "deviation": float(deviation),
        "skewness": float((((known - mean) / deviation) ** 3).mean()),
        "below_mean": float((known < mean).double().mean()),
    }


def measure(scores: Tensor, fresh: Tensor, gradients: Tensor) -> list[dict[str, Any]]:
    """Of each plan what it keeps in expectation, and its noise by losses and by gradients.

    Args:
        scores: Losses as training has recorded them in the epoch that is over, each before its own step.
        fresh: Losses at the end of it.
        gradients: Their norms.
    """
    found = []
    for skipped in SKIPPED:
        for losses, kind in ((scores, "recorded"), (fresh, "fresh")):
            for key, policy, keep in plans(losses, skipped):
                noise = {"by_losses": added_noise(norms_of(losses), keep), "by_gradients": added_noise(gradients, keep)}
                found.append(
                    {"losses": kind, "policy": key, "written": policy, "skipped": skipped, "kept": float(keep.mean()), **noise}
                )
        found.append(
            {
                "losses": "none",
                "policy": "known",
                "skipped": skipped,
                "by_gradients": added_noise(gradients, best(gradients, skipped)),
            }
        )
    return found


def trained(config: Config, workload: Workload, seed: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """What was measured at each moment of one run."""
    found: list[dict[str, Any]] = []
    generator = torch.Generator().manual_seed(seed)  # not the run's own, which must not notice

    def look(epoch: int, pruner: InfoBatch, model: nn.Module) -> None:
        if epoch + 1 in moments(config.epochs):
            scores = pruner.scores()
            measured = measure(scores, *look_closely(workload, model, generator))
            found.append({"seed": seed, "epochs": epoch + 1, "scores": describe(scores), "plans": measured})

    with tqdm(total=config.epochs + 1e-6, desc=f"seed {seed}", mininterval=1.0) as bar:
        checkpoint = args.cache / f"{args.out.stem}-{seed}.pt"  # never written: a run that was interrupted begins again
        train(Run("full", seed), METHODS["full"], workload, config, checkpoint, bar, math.inf, look)
    return found


def study(config: Config, args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    _, results, workload_of = open_study(config, args, "plans")
    done = {entry["seed"] for entry in results["runs"]}
    todo = [seed for seed in range(args.seeds) if seed not in done]
    print(f"{args.out}: {len(done)} seeds are done, {len(todo)} to do", file=sys.stderr)
    if not todo:
        return
    begin_session(results, "noise.py")
    for seed in todo:
        workload = workload_of(seed)
        results["train_size"] = workload.size
        results["runs"] += [shorten(entry) for entry in trained(config, workload, seed, args)]
        results["sessions"][-1]["load_after"] = load()
        write_results(args.out, results, first="seed")


def main() -> None:
    parser = argparse.ArgumentParser(description="The noise that policies add to the gradient, beside that of uniform pruning.")
    parser.add_argument("--workload", choices=("digits", "cifar", "text"), required=True)
    parser.add_argument("--data", type=Path, help="that of run.py; digits need none")
    parser.add_argument("--out", type=Path, required=True, help="JSON file, written after each seed")
    parser.add_argument("--seeds", type=int, default=2, help="runs (default: 2)")
    parser.add_argument("--epochs", type=int, help="instead of those of config.py; at least 1")
    parser.add_argument("--train-size", type=int, help="training samples, instead of those of config.py")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--cache", type=Path, default=Path("build/study"), help="folder for decoded images")
    args = parser.parse_args()
    changes = {"epochs": args.epochs, "train_size": args.train_size}
    config = replace(PRESETS[args.workload], **{name: value for name, value in changes.items() if value is not None})
    if config.epochs < 1 or args.seeds < 1 or args.threads < 1 or (config.train_size is not None and config.train_size < 100):
        parser.error("needs --train-size of at least 100, and --epochs, --seeds and --threads of at least 1")
    if args.data and not args.data.exists():
        parser.error(f"--data {args.data}: there is no such file or folder")
    with alone(args.out):
        study(config, args)


if __name__ == "__main__":
    main()
