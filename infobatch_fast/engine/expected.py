"""How many steps a run will take, as far as is known by now."""

from __future__ import annotations

import math

from .epochs import Epochs


def expected_steps(epochs: Epochs, batch_size: int) -> int:
    """What ``InfoBatch.expected_steps`` returns."""
    settings, table = epochs.settings, epochs.table
    schedule, num_samples = settings.schedule, table.num_samples
    size = settings.lengths.check_batch_size(batch_size)
    if not settings.lengths.is_dynamic:
        return epochs.length() // size * schedule.num_epochs

    def steps(samples: float) -> int:
        return math.ceil(samples / (size * table.ranks.num_replicas))

    planned = epochs.epoch + (epochs.saved_plan() is not None)
    past = planned * steps(num_samples * epochs.planned_kept / epochs.planned_samples) if epochs.planned_samples else 0
    saved = settings.policy.expected_saved_fraction if epochs.saved_fraction is None else epochs.saved_fraction
    rest = range(planned, schedule.num_epochs)
    pruned = len(range(max(planned, schedule.warmup_epochs, 1), schedule.end))  # in epoch 0 nothing is seen yet
    return past + pruned * steps(num_samples * (1 - saved)) + (len(rest) - pruned) * steps(num_samples)
