"""Checks answers before they are timed: a fast wrong answer is of no use. A check that fails raises RuntimeError.

The statistical checks allow six standard deviations. With fixed seeds they either always pass or never, and a right contender fails
one with probability 2e-9.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import numpy as np
import torch

from .contender import PRUNE_RATIO, Contender, Ours

EXACT_SIZE = 1_000_000  # up to here the mean is added up exactly, and all ids are looked at
LISTED = 1_000_000  # ids that are looked at where they come one by one
ALL = 100_000_000  # and where they come as a tensor
SIGMAS = 6.0
FIRST_EPOCH = 1  # scores are filled in under the plan of epoch 0


def _require(holds: bool, contender: Contender, what: str) -> None:
    if not holds:
        raise RuntimeError(f"{contender.name} gives a wrong answer with {contender.size} samples on {contender.device}: {what}")


def _mean_threshold(scores: torch.Tensor) -> float:
    """The smallest float32 that is not below the mean of float32 scores [n]; rounded above a million of them."""
    total = math.fsum(scores.tolist()) if scores.numel() <= EXACT_SIZE else float(scores.sum(dtype=torch.float64))
    mean = total / scores.numel()
    nearest = np.float32(mean)
    return float(nearest if float(nearest) >= mean else np.nextafter(nearest, np.float32(np.inf)))


def _first_ids(contender: Any) -> torch.Tensor:
    """The first ids of the planned epoch, or all ids if that is quick: int64 on the CPU."""
    if hasattr(contender, "tensor"):
        ids: torch.Tensor = contender.tensor(ALL).cpu()
        return ids
    return torch.tensor(list(islice(contender.ids(), LISTED)), dtype=torch.int64, device="cpu")


def check_plan(contender: Any, scores: torch.Tensor) -> None:
    """Plans one epoch, and checks kept set and weights against their statistics.

    Args:
        contender: What is checked.
        scores: What it was filled with: float32 [N] on the CPU.

    Raises:
        RuntimeError: The answer is wrong.
    """
    contender.plan(FIRST_EPOCH)
    ids = _first_ids(contender)
    size, taken = scores.numel(), ids.numel()
    _require(taken > 0 and int(ids.min()) >= 0 and int(ids.max()) < size, contender, "ids are out of range")
    visited = torch.zeros(size, dtype=torch.bool, device="cpu")
    visited[ids] = True
    _require(int(visited.sum()) == taken, contender, "an id comes twice in an epoch")
    if not hasattr(contender, "weights"):  # it only samples
        return
    threshold = _mean_threshold(scores)
    below = int((scores < threshold).sum())
    above = size - below
    taken_below = int((scores[ids] < threshold).sum())
    share = (1 - PRUNE_RATIO) * below / (above + (1 - PRUNE_RATIO) * below)
    deviation = math.sqrt(taken * share * (1 - share)) + 1
    _require(abs(taken_below - share * taken) <= SIGMAS * deviation, contender, f"{taken_below} of {taken} are below the mean")
    if size <= EXACT_SIZE:  # all ids were looked at
        _require(taken - taken_below == above, contender, "a sample above the mean is missing")
    some = ids[:LISTED]
    expected = torch.where(scores[some] < threshold, 1 / (1 - PRUNE_RATIO), 1.0)
    _require(torch.equal(contender.weights(some), expected), contender, "weights are not the reciprocals of keep probabilities")
    if isinstance(contender, Ours):
        _check_ours(contender, ids, threshold)


def _check_ours(ours: Ours, ids: torch.Tensor, threshold: float) -> None:
    stats = ours.pruner.stats
    tolerance = 0.0 if ours.size <= EXACT_SIZE else 1e-6
    _require(math.isclose(stats.thresholds[0], threshold, rel_tol=tolerance), ours, f"threshold {stats.thresholds[0]}")
    _require(stats.kept == len(ours.pruner.sampler), ours, "the length is not the number kept")
    head = ids[:LISTED].tolist()
    one_by_one = list(islice(ours.ids(), len(head)))
    in_batches = [index for batch in islice(ours.batches(256), -(-len(head) // 256)) for index in batch][: len(head)]
    _require(one_by_one == head and in_batches == head, ours, "ids, batches and tensor differ")


def check_update(contender: Any) -> None:
    """Updates one batch, and checks the weighted mean and what was stored.

    Raises:
        RuntimeError: The answer is wrong.
    """
    generator = torch.Generator().manual_seed(0)
    index = torch.randperm(min(contender.size, 1 << 20), generator=generator, device="cpu")[:1024]
    losses = torch.rand(index.numel(), generator=generator, device="cpu")
    on_device = index.to(contender.device)
    expected = float((contender.weights(index) * losses).double().mean())
    result = float(contender.update(on_device, losses.to(contender.device)))
    _require(math.isclose(result, expected, rel_tol=1e-5), contender, f"weighted mean {result}, not {expected}")
    if isinstance(contender, Ours):
        _require(torch.equal(contender.pruner.scores(on_device).cpu(), losses), contender, "scores were not stored")
