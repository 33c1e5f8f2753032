"""One training run, which can be interrupted at any point and goes on from its last checkpoint to the same result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
from clock import Clock
from config import Config, Optimizer, Run
from torch import nn
from workloads import Workload

from infobatch_fast import InfoBatch, Policy


class Bar(Protocol):
    """What a run asks of a progress bar; tqdm's are of this kind."""

    def update(self, n: float) -> Any: ...
    def set_postfix_str(self, s: str, refresh: bool) -> Any: ...


def make_optimizer(model: nn.Module, choice: Optimizer) -> torch.optim.Optimizer:
    arguments = {"lr": choice.rate, "weight_decay": choice.weight_decay}
    if choice.name == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=0.9, nesterov=True, **arguments)
    if choice.name == "adamw":
        return torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), **arguments)
    try:
        import pytorch_optimizer  # noqa: PLC0415  (only these two need it)
    except ImportError as error:
        raise SystemExit(f"optimizer {choice.name!r} needs: pip install 'pytorch_optimizer>=3.0'") from error
    return {"lars": pytorch_optimizer.LARS, "lamb": pytorch_optimizer.Lamb}[choice.name](model.parameters(), **arguments)


def set_rate(optimizer: torch.optim.Optimizer, peak: float, warmup: float, progress: float) -> None:
    """Warm-up and cosine by the fraction of the run that is done, since the steps of an epoch vary."""
    rate = peak * min(1.0, 0.01 + progress / warmup) * (1 + math.cos(math.pi * progress)) / 2
    for group in optimizer.param_groups:
        group["lr"] = rate


def batch_edges(kept: int, config: Config) -> list[int]:
    """Where the batches of an epoch begin and end, as positions in its order."""
    steps = math.ceil(kept / config.batch_size)
    if config.batching == "even":
        return [kept * step // steps for step in range(steps + 1)]
    return [*range(0, kept, config.batch_size), kept]


def describe_scores(pruner: InfoBatch) -> dict[str, float] | None:
    """The distribution of the known losses; None where there is none yet."""
    scores = pruner.scores()
    known = scores[scores.isfinite()].double()
    if known.numel() < 2:
        return None
    mean, deviation = known.mean(), known.std(correction=0)
    return {
        "seen": known.numel(),
        "mean": float(mean),
        "median": float(known.median()),
        "deviation": float(deviation),
        "skewness": float((((known - mean) / deviation) ** 3).mean()),
        "below_mean": float((known < mean).double().mean()),
    }


def train(
    run: Run,
    policy: Policy | None,
    choice: Optimizer,
    workload: Workload,
    config: Config,
    checkpoint: Path,
    bar: Bar,
    checkpoint_seconds: float = 10.0,
    look: Callable[[int, InfoBatch, nn.Module], None] | None = None,
) -> None:
    """Trains and fills in ``run``. ``policy`` None is the paper's mean threshold; ``look`` is called at the end of each epoch."""
    torch.manual_seed(run.seed)
    model = workload.make_model()
    optimizer = make_optimizer(model, choice)
    generator = torch.Generator().manual_seed(run.seed)
    pruner = InfoBatch(
        workload.size, run.epochs, delta=config.delta, policy=policy, seed=run.seed, device="cpu", rescale=config.rescale
    )
    clock, step = Clock(), 0
    if checkpoint.exists():
        clock, step = load(checkpoint, run, model, optimizer, pruner, generator)
        bar.update(len(run.metric))
    saved_at = time.monotonic()

    for epoch in range(len(run.metric), run.epochs):
        pruner.set_epoch(epoch)
        if len(run.scores) == epoch:  # otherwise the epoch was under way when it was interrupted
            run.scores.append(describe_scores(pruner))
        clock.start()
        with clock.in_sampler():
            order = pruner.sampler.indices()  # here the plan is made; after an interruption, what is left of it
            stats = pruner.stats
        steps = math.ceil(stats.kept / config.batch_size)
        edges = batch_edges(stats.kept, config)
        visited = stats.kept - len(order)
        for first, end in pairwise(edges[step:]):
            index = order[first - visited : end - visited]
            done = (epoch + step / steps) / run.epochs if config.by == "epochs" else pruner.visited_fraction
            set_rate(optimizer, choice.rate, config.warmup, done)
            losses = workload.losses(model, index, generator)
            with clock.in_sampler():
                loss = pruner.update(index, losses)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if time.monotonic() - saved_at >= checkpoint_seconds:
                clock.stop()
                save(checkpoint, run, model, optimizer, pruner, generator, clock, step)
                saved_at = time.monotonic()
                clock.start()
            bar.update(1 / steps)
        clock.stop()

        last = epoch == run.epochs - 1
        size = workload.test_size if last else min(config.curve_size or workload.test_size, workload.test_size)
        run.metric.append(workload.evaluate(model, size))
        run.visited.append(stats.kept)
        run.saved.append(stats.saved_fraction)
        run.thresholds.append([threshold for threshold in stats.thresholds if math.isfinite(threshold)])
        for name in ("wall", "cpu", "sampler"):
            getattr(run, name).append(getattr(clock, name))
        clock, step = Clock(), 0
        if look is not None:
            look(epoch, pruner, model)
        bar.set_postfix_str(f"{run.metric[-1]:.4f}, kept {stats.kept / workload.size:.0%}", refresh=False)
    checkpoint.unlink(missing_ok=True)


def save(
    path: Path,
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    pruner: InfoBatch,
    generator: torch.Generator,
    clock: Clock,
    step: int,
) -> None:
    """Between two steps, and in one piece: an interrupted write leaves the checkpoint before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "pruner": pruner.state_dict(),
        "generator": generator.get_state(),
        "clock": {"wall": clock.wall, "cpu": clock.cpu, "sampler": clock.sampler},
        "run": asdict(run),
        "step": step,
    }
    partial = path.with_suffix(".part")
    torch.save(state, partial)
    partial.replace(path)


def load(
    path: Path,
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    pruner: InfoBatch,
    generator: torch.Generator,
) -> tuple[Clock, int]:
    """Restores everything in place; returns the clock of the epoch in progress and the steps that it has done."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    pruner.load_state_dict(state["pruner"])
    generator.set_state(state["generator"])
    for entry in fields(Run):
        if entry.name != "session":
            setattr(run, entry.name, state["run"][entry.name])
    run.interruptions += 1
    return Clock(**state["clock"]), state["step"]
