"""How much of a run is done, and how much is to come, as far as is known by now."""

from __future__ import annotations

import math

from .epochs import Epochs

ROUNDING = 1e-9  # of a number of epochs, as progress is a quotient


def expected_steps(epochs: Epochs, batch_size: int) -> int:
    """What ``InfoBatch.expected_steps`` returns."""
    settings, table = epochs.settings, epochs.table
    size = settings.lengths.check_batch_size(batch_size)
    if not settings.lengths.is_dynamic:
        return epochs.length() // size * settings.schedule.num_epochs

    def steps(samples: float) -> int:
        return math.ceil(samples / (size * table.ranks.num_replicas))

    mean = table.num_samples * epochs.planned_kept / epochs.planned_samples if epochs.planned_samples else 0
    pruned, full = _to_come(epochs)
    return _planned(epochs) * steps(mean) + pruned * steps(_expected_kept(epochs)) + full * steps(table.num_samples)


def epochs_share(epochs: Epochs) -> float:
    """Fraction of the run that is done, in [0, 1]. All epochs count alike; an epoch is done where the previous one ended."""
    num_epochs = epochs.settings.schedule.num_epochs
    done = epochs.progress() * num_epochs
    epoch = max(0, math.ceil(done - ROUNDING) - 1)  # one that is done to its end is still the one in progress
    return (epoch + _done_part(epochs, done - epoch)) / num_epochs


def visits_share(epochs: Epochs) -> float:
    """What ``InfoBatch.visited_fraction`` returns."""
    if epochs.settings.lengths.indices is not None:  # then all epochs have as many visits
        return epochs_share(epochs)
    pruned, full = _to_come(epochs)
    total = epochs.planned_kept + pruned * _expected_kept(epochs) + full * epochs.table.num_samples
    if epochs.epoch >= epochs.settings.schedule.num_epochs or total == 0:
        return 1.0
    rest = epochs.kept * (1.0 - _done_part(epochs, epochs.fraction()))
    return (epochs.planned_kept - rest) / total


def _done_part(epochs: Epochs, fraction: float) -> float:
    """How much of an epoch is done when this fraction of its plan is, as it may be cut short."""
    return min(1.0, fraction / (epochs.ends_at or epochs.ended_at))


def _planned(epochs: Epochs) -> int:
    """Epochs that are past or have a plan."""
    return epochs.epoch + (epochs.saved_plan() is not None)


def _to_come(epochs: Epochs) -> tuple[int, int]:
    """Epochs without a plan: those that will be pruned, and the full ones."""
    schedule, planned = epochs.settings.schedule, _planned(epochs)
    pruned = len(range(max(planned, schedule.warmup_epochs, 1), schedule.end))  # in epoch 0 nothing is seen yet
    return pruned, len(range(planned, schedule.num_epochs)) - pruned


def _expected_kept(epochs: Epochs) -> float:
    """Samples of a pruned epoch to come: as many as in the latest one or, before there is one, as the policy expects."""
    saved = epochs.settings.policy.expected_saved_fraction if epochs.saved_fraction is None else epochs.saved_fraction
    return epochs.table.num_samples * (1 - saved)
