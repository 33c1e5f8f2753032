"""The statistics of an epoch."""

from __future__ import annotations

from dataclasses import dataclass

from .engine.epochs import Epochs
from .engine.noise import added_noise


@dataclass(frozen=True)
class EpochStats:
    """What the plan of an epoch decided, and what happened since. Counts cover all ranks unless they say otherwise.

    Attributes:
        epoch: The epoch, from 0.
        pruned: Whether the schedule prunes in this epoch.
        num_samples: Size of the data set.
        kept: Samples that the epoch visits.
        saved_fraction: 1 - kept / num_samples.
        thresholds: The scores below which tiers begin, ascending; empty in a full epoch.
        seen: Samples that had a score when the plan was made.
        tier_sizes: Samples of each tier, from tier 0, which is never pruned.
        tier_kept: Kept samples of each tier.
        weights: Weight of a kept sample of each tier.
        added_noise: The variance that skipping adds to the gradient of an epoch, divided by what uniform pruning of as many samples
            adds: 1 is no better than chance, 0 is a full epoch. It is computed once per plan, when ``stats`` is first read, from
            this rank's scores at that time. Unseen and protected samples do not count. The norm of a sample's gradient is the one
            that ``ImportanceSampling`` takes. With other policies it is 1 - exp(-score), which takes scores to be cross-entropy
            losses. Negative scores have norm 0.
        scored: Losses that ``update`` got on this rank since the plan was made.
        non_finite: How many of these losses were NaN or infinite, and did not enter the table. A restart resets the count.
        unkept: How many of these losses belong to samples that the plan does not keep. Late losses do not count. If there are any,
            the loader does not draw from the pruner. A restart resets the count.
        total_saved_fraction: 1 - kept / num_samples over all epochs planned so far.
        plan_seconds: Wall-clock seconds in which this rank made the plan.
    """

    epoch: int
    pruned: bool
    num_samples: int
    kept: int
    saved_fraction: float
    thresholds: tuple[float, ...]
    seen: int
    tier_sizes: tuple[int, ...]
    tier_kept: tuple[int, ...]
    weights: tuple[float, ...]
    added_noise: float
    scored: int
    non_finite: int
    unkept: int
    total_saved_fraction: float
    plan_seconds: float

    @classmethod
    def of(cls, epochs: Epochs) -> EpochStats:
        """Returns the statistics of the current epoch, and makes its plan if need be. Waits for the device.

        Raises:
            IndexError: ``update`` got indices that are out of range, or that belong to another rank.
        """
        plan, table = epochs.plan(), epochs.table
        faults = table.read_faults()
        table.raise_bad_indices(faults)
        if epochs.noise[0] is not plan.token:  # a pass over the scores, made once
            epochs.noise = plan.token, added_noise(plan, table, epochs.settings.policy.by)
        return cls(
            epoch=plan.epoch,
            pruned=plan.pruned,
            num_samples=table.num_samples,
            kept=plan.kept,
            saved_fraction=1.0 - plan.kept / table.num_samples,
            thresholds=plan.thresholds,
            seen=plan.seen,
            tier_sizes=plan.tier_sizes,
            tier_kept=plan.tier_kept,
            weights=plan.weights,
            added_noise=epochs.noise[1],
            scored=max(0, epochs.scored),
            non_finite=faults.non_finite,
            unkept=max(0, faults.unkept - epochs.late),
            total_saved_fraction=1.0 - epochs.planned_kept / epochs.planned_samples,
            plan_seconds=plan.seconds,
        )
