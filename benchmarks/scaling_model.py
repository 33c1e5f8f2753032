"""What a rank allocates, sends and repeats, by arithmetic; and a rank of a group that is not there."""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import torch

from infobatch_fast import InfoBatch, MeanThreshold, Policy, QuantileTiers
from infobatch_fast.engine import ops
from infobatch_fast.engine.ranks import Ranks

WORLDS = (1, 8, 64, 1024)
POLICIES: dict[str, Policy] = {"mean": MeanThreshold(), "quantile tiers": QuantileTiers()}
SEED = 1


def table_bytes(slots: int) -> dict[str, int]:
    """What a rank with so many slots allocates, by the sizes of its arrays."""
    marks = ops.mark_bytes(slots)
    blocks = ops._core.num_blocks(8 * marks)
    return {"scores": 4 * slots, "marks": marks, "directory": (8 + 4) * (blocks + 1)}


def allocated(pruner: InfoBatch) -> dict[str, int]:
    """What a pruner has really allocated."""
    directory = pruner._epochs._planner.directory
    tensors = {"scores": [pruner._table.scores], "marks": [pruner._table.marks]}
    tensors["directory"] = [directory._ones_before, directory._hints]
    return {name: sum(each.numel() * each.element_size() for each in group) for name, group in tensors.items()}


sent: list[int] = []


class OneOfMany(Ranks):
    """One rank of a group that is not there: the others have the same sums and nearly the same counts. Notes what is sent."""

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        sent.append(tensor.numel() * tensor.element_size())
        return tensor.mul_(self.num_replicas)

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        sent.append(tensor.numel() * tensor.element_size())
        stacked = tensor.repeat(self.num_replicas, 1)
        if tensor.numel() == 15:  # epoch, restored, kept, ...: other ranks keep some more, so that this one has to pad
            stacked[:, 2] += 7 * (torch.arange(self.num_replicas) - self.rank).abs()
        return stacked


def pruner_of(n: int, ranks: Ranks | None = None, **kwargs: Any) -> InfoBatch:
    with mock.patch("infobatch_fast.pruner.find_ranks", return_value=ranks or Ranks()):
        return InfoBatch(n, 100, seed=SEED, delta=1.0, **kwargs)


def expected_balance(n: int, world: int, kept_fraction: float = 0.7) -> dict[str, Any]:
    """Kept counts of ranks that each own n / world samples, every sample kept with the same probability: independent binomials."""
    slots = n / world
    deviation = math.sqrt(slots * kept_fraction * (1 - kept_fraction))
    padding = largest_of(world) * deviation / (slots * kept_fraction)
    return {
        "n": n,
        "world": world,
        "mean": slots * kept_fraction,
        "deviation": deviation,
        "padding": padding,
    }


def largest_of(count: int) -> float:
    """Expectation of the largest of so many standard normal variables."""
    x = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
    below = torch.special.ndtr(x) ** count
    return float(torch.trapezoid((x > 0).double() - below, x))
