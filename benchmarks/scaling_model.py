"""What a rank allocates, sends and repeats, by arithmetic; and a rank of a group that is not there."""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import torch

from infobatch_fast import ImportanceSampling, InfoBatch, MeanThreshold, Policy, QuantileTiers
from infobatch_fast.engine import ops
from infobatch_fast.engine.damage import CHECK_BYTES
from infobatch_fast.engine.marks import BYTES_PER_ROW, rows_of
from infobatch_fast.engine.ranks import Ranks

SIZES = (10**8, 10**9, 10**10, 10**11)
WORLDS = (1, 8, 64, 1024)
POLICIES: dict[str, Policy] = {"mean": MeanThreshold(), "quantile tiers": QuantileTiers(), "importance": ImportanceSampling()}
SEED = 1


def allocated(pruner: InfoBatch) -> int:
    """Bytes that a pruner has really allocated; fails where that is not what the package says."""
    table, directory = pruner.engine.table, pruner.engine.epochs.planner.directory
    held = sum(each.numel() * each.element_size() for each in (table.scores, table.marks, directory._ones_before, directory._hints))
    assert held == ops.table_bytes(table.num_slots)
    return held


sent: list[int] = []


class OneOfMany(Ranks):
    """One rank of a group that is not there: the others have the same sums and nearly the same counts. Notes what is sent."""

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        sent.append(tensor.numel() * tensor.element_size())
        return tensor.mul_(self.num_replicas)

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        sent.append(tensor.numel() * tensor.element_size())
        stacked = tensor.repeat(self.num_replicas, 1)
        if tensor.dtype == torch.uint8:  # seen, kept, ... of a plan: other ranks keep some more, so that this one has to pad
            more = 7 * (torch.arange(self.num_replicas) - self.rank).abs()
            stacked[:, 8:16] = (stacked[:, 8:16].clone().view(torch.int64) + more[:, None]).view(torch.uint8)
        return stacked


def pruner_of(n: int, ranks: Ranks | None = None, policy: Policy | None = None) -> InfoBatch:
    with mock.patch("infobatch_fast.pruner.find_ranks", return_value=ranks or Ranks()):
        return InfoBatch(n, 100, seed=SEED, delta=1.0, policy=policy)


def memory(n: int, world: int) -> dict[str, Any]:
    """Of the rank that owns most, and of a checkpoint of all."""
    slots = max(Ranks(world, rank).shard(n)[1] for rank in range(world))
    state = 4 * n + (BYTES_PER_ROW + CHECK_BYTES) * rows_of(n)
    return {"n": n, "world": world, "slots": slots, "bytes": {"tables": ops.table_bytes(slots)}, "state_bytes": state}


def traffic(name: str) -> dict[str, Any]:
    """Bytes that a rank hands to each collective call of its first epoch, and of each later one."""
    pruner = pruner_of(10_000, OneOfMany(4, 1), POLICIES[name])
    allocated(pruner)
    epochs = []
    for epoch in range(2):
        sent.clear()
        pruner.set_epoch(epoch)
        len(pruner.sampler)
        epochs.append(sent[:])
    return {"policy": name, "first_epoch": epochs[0], "each_epoch": epochs[1]}


def expected_balance(n: int, world: int, kept_fraction: float = 0.7) -> dict[str, Any]:
    """Kept counts of ranks that each own n / world samples, every sample kept with the same probability: independent binomials."""
    mean = n / world * kept_fraction
    deviation = math.sqrt(mean * (1 - kept_fraction))
    return {"n": n, "world": world, "mean": mean, "deviation": deviation, "padding": largest_of(world) * deviation / mean}


def largest_of(count: int) -> float:
    """Expectation of the largest of so many standard normal variables."""
    x = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
    below = torch.special.ndtr(x) ** count
    return float(torch.trapezoid((x > 0).double() - below, x))


def on_paper() -> dict[str, Any]:
    return {
        "memory": [memory(n, world) for n in SIZES for world in WORLDS],
        "traffic": [traffic(name) for name in POLICIES],
        "balance": [expected_balance(n, world) for n in SIZES for world in WORLDS[1:]],
    }
