"""One run of a method, epoch by epoch."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from fast_trainer import Trainer
from methods import DELTA, Method

from infobatch_fast import InfoBatch

MEASURE_EVERY = 4  # epochs; and at the end


def run(trainer: Trainer, method: Method, visits: float, seed: int) -> dict[str, Any]:
    """Trains once.

    Args:
        trainer: Whose network is trained, anew.
        method: What is visited, and how it counts.
        visits: The part of the visits of full training that the run is to take.
        seed: Decides initialisation, order and augmentation.

    Returns:
        What the run was asked for, and by epoch: test accuracy and negative log-likelihood, None where they were not measured;
        samples visited; seconds in training and, of those, in planning and drawing the order.
    """
    images, setup = trainer.images, trainer.setup
    epochs, batch = setup.epochs, setup.batch
    policy = method.policy(visits, epochs)
    pruner = InfoBatch(
        images.size, num_epochs=epochs, delta=DELTA, policy=policy, seed=seed, device=trainer.device, rescale=method.rescale
    )
    step = trainer.start(pruner, method, seed)
    # Full epochs alone can end in the middle, when as many samples were visited as were asked for.
    limit = round(visits * epochs * (images.size // batch)) if method.draw == "all" else None
    found: dict[str, list[float | None]] = {name: [] for name in ("accuracy", "nll", "visited", "seconds", "sampler_seconds")}
    done, total = 0, 0
    for epoch in range(epochs):
        begun = now(trainer)
        pruner.set_epoch(epoch)
        order = pruner.sampler.indices()
        drawn = now(trainer)
        steps = len(order) // batch
        total = limit or done + steps + steps_to_come(pruner, epoch, epochs, steps, images.size // batch)
        steps = min(steps, total - done)
        progress = [(done + i) / total if method.by == "visits" else (epoch + i / steps) / epochs for i in range(steps)]
        rates = torch.tensor([setup.rate_at(part) for part in progress], device=trainer.device)
        for i in range(steps):
            trainer.index.copy_(order[i * batch : (i + 1) * batch])
            trainer.rate.copy_(rates[i])
            step()
        done += steps
        ended = now(trainer)
        last = epoch == epochs - 1 or done == limit
        quality = trainer.evaluate() if last or (epoch + 1) % MEASURE_EVERY == 0 else (None, None)
        for name, value in zip(found, (*quality, steps * batch, ended - begun, drawn - begun), strict=True):
            found[name].append(value)
        if last:
            break
    return {"seed": seed, "visits": visits, "policy": repr(policy), **found}


def steps_to_come(pruner: InfoBatch, epoch: int, epochs: int, steps: int, full: int) -> int:
    """Steps in the epochs after this one, if those that are pruned are as long as this one is; after the first, as is expected."""
    pruned = max(0, math.floor(DELTA * epochs) - 1 - epoch)
    each = steps if epoch else steps * (1 - pruner.policy.expected_saved_fraction)
    return round(pruned * each + (epochs - 1 - epoch - pruned) * full)


def now(trainer: Trainer) -> float:
    """Seconds, when all that was issued is done."""
    if trainer.on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter()
