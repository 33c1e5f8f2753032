"""Runs that are cut in their third epoch, for the tests of checkpoints of several ranks, and what each rank decided in it."""

from __future__ import annotations

from typing import Any

from infobatch_fast import InfoBatch, QuantileTiers
from support.ranks import kept_here, own_ids
from support.runs import train

N, EPOCH, BATCH = 3001, 2, 16
KINDS: dict[str, dict[str, Any]] = {
    "mean": {},
    "tiers": {"policy": QuantileTiers(), "shard": "contiguous", "drop_last": True},
}


def make(kind: str, **kwargs: Any) -> InfoBatch:
    return InfoBatch(N, 9, delta=1.0, seed=3, **KINDS[kind], **kwargs)


def cut(pruner: InfoBatch, steps: int) -> list[int]:
    """Two epochs, and the first steps of the third; what it visits in that one."""
    for epoch in range(EPOCH):
        pruner.set_epoch(epoch)
        train(pruner, BATCH)
    pruner.set_epoch(EPOCH)
    return train(pruner, BATCH, steps) if steps >= 0 else []


def facts(pruner: InfoBatch) -> dict[str, Any]:
    """What this rank decided in the current epoch."""
    stats, ids = pruner.stats, own_ids(pruner)
    decided = (stats.epoch, stats.thresholds, stats.seen, stats.kept, stats.tier_sizes, stats.tier_kept, stats.total_saved_fraction)
    return {
        "decided": decided,
        "kept": kept_here(pruner),
        "weights": list(zip(ids.tolist(), pruner.weights(ids).tolist(), strict=True)),
    }
