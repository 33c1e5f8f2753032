"""One training run, which can be interrupted at any point and goes on from its last checkpoint to the same result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
from checkpoint import Checkpoint
from config import Config, Optimizer, Run
from methods import DELTA, Method
from torch import nn
from workloads import Workload

from infobatch_fast import InfoBatch


class Bar(Protocol):
    """What a run asks of a progress bar; tqdm's are of this kind."""

    def update(self, n: float) -> Any: ...
    def set_postfix_str(self, s: str, refresh: bool) -> Any: ...


def make_optimizer(model: nn.Module, choice: Optimizer) -> torch.optim.Optimizer:
    arguments = {"lr": choice.rate, "weight_decay": choice.weight_decay}
    if choice.name == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=0.9, nesterov=True, **arguments)
    return torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), **arguments)


def set_rate(optimizer: torch.optim.Optimizer, peak: float, warmup: float, progress: float) -> None:
    """Warm-up and cosine by the fraction of the run that is done, since the steps of an epoch vary."""
    rate = peak * min(1.0, 0.01 + progress / warmup) * (1 + math.cos(math.pi * progress)) / 2
    for group in optimizer.param_groups:
        group["lr"] = rate


def batch_edges(kept: int, batch_size: int) -> list[int]:
    """Where the batches of an epoch begin and end, as positions in its order.

    They are of equal size, give or take one: a last batch of a few samples would be noise to batch normalisation.
    """
    steps = math.ceil(kept / batch_size)
    return [kept * step // steps for step in range(steps + 1)]


def train(
    run: Run,
    method: Method,
    workload: Workload,
    config: Config,
    checkpoint: Path,
    bar: Bar,
    checkpoint_seconds: float = 10.0,
    look: Callable[[int, InfoBatch, nn.Module], None] | None = None,
) -> None:
    """Trains and fills in ``run``, whose visits and rate count; ``look`` is called at the end of each epoch.

    Full epochs alone end in the middle of one, as soon as they have as many visits as were asked for. The checkpoint stays: who has
    written the run down removes it.
    """
    torch.manual_seed(run.seed)
    model, generator = workload.make_model(), torch.Generator().manual_seed(run.seed)
    optimizer, peak = make_optimizer(model, config.optimizer), run.rate * config.optimizer.rate
    policy, settings = method.policy(run.visits, config.epochs), {"delta": DELTA, "rescale": method.rescale, "seed": run.seed}
    pruner = InfoBatch(workload.size, config.epochs, policy=policy, device="cpu", **settings)
    run.policy = repr(policy)
    part = run.visits if method.draw == "all" else 1.0  # of the pruner's visits that this run makes
    limit = round(part * config.epochs * workload.size)
    state = Checkpoint(checkpoint, run, model, optimizer, pruner, generator)
    clock, step = state.load()
    bar.update(len(run.visited))
    saved_at = time.monotonic()

    for epoch in range(len(run.visited), config.epochs):
        pruner.set_epoch(epoch)
        clock.start()
        with clock.in_sampler():
            order = pruner.sampler.indices()  # here the plan is made; after an interruption, what is left of it
            stats = pruner.stats
        if len(run.noise) == epoch:  # otherwise the epoch was under way when it was interrupted
            run.noise.append(stats.added_noise)
        kept = min(stats.kept, limit - sum(run.visited))
        edges = batch_edges(kept, config.batch_size)
        visited, steps = stats.kept - len(order), len(edges) - 1
        for first, end in pairwise(edges[step:]):
            index = order[first - visited : end - visited]
            done = (epoch + step / steps) / config.epochs if method.by == "epochs" else pruner.visited_fraction / part
            set_rate(optimizer, peak, config.warmup, done)
            losses = workload.losses(model, index, generator)
            with clock.in_sampler():
                weighted = pruner.update(index, losses)
            optimizer.zero_grad()
            (weighted if method.weighted else losses.mean()).backward()
            optimizer.step()
            step += 1
            if time.monotonic() - saved_at >= checkpoint_seconds:
                clock.stop()
                state.save(clock, step)
                saved_at = time.monotonic()
                clock.start()
            bar.update(1 / steps)
        clock.stop()

        step = 0
        run.visited.append(kept)
        if look is not None:
            look(epoch, pruner, model)
        bar.set_postfix_str(f"kept {kept / workload.size:.0%}", refresh=False)
        if sum(run.visited) == limit:
            break
    (run.accuracy, run.nll), (run.wall, run.cpu, run.sampler) = workload.evaluate(model), clock.seconds
