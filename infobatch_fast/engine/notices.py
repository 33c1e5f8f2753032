"""Warnings of mistakes in the program around a pruner that raise no error. Each kind of warning comes once, with its remedy."""

from __future__ import annotations

import warnings


class Notices:
    """Warnings of one pruner. Each method stands for a kind of mistake, and warns the first time only."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def unkept(self, count: int, example: int, epoch: int) -> None:
        """Losses came for samples that the plan does not keep."""
        self.tell("unkept", unkept_samples(count, example, epoch))

    def too_many(self, count: int, epoch: int, most: int) -> None:
        """More losses came than samples were to be visited."""
        self.tell(
            "too many",
            f"update got {count} losses in epoch {epoch}, but the epoch visits {most} samples: pruner.progress, and with it "
            "EpochProgressLR, runs ahead. Call update once per batch; for other losses of the batch (SAM, heads, mixup) call "
            "weigh(index, losses), and in validation call record. If a sample has several rows, give it one loss. Split streams "
            "among workers (docs/losses.md)",
        )

    def skipped(self, count: int, yielded: int, epoch: int) -> None:
        """After a restart, the loop did not train on the first samples that the sampler yielded."""
        self.tell(
            "skipped",
            f"after load_state_dict the sampler yielded only the {yielded} samples left of epoch {epoch}, but the first {count} "
            "of them brought no loss: the loop skipped batches, though the sampler had left out the visited samples already. "
            "Remove skip_first_batches or `if step < resumed: continue`, as the pruner resumes where it was",
        )

    def repeated(self, epoch: int, times: int) -> None:
        """The trainer iterates over the same epoch again and again."""
        self.tell(
            "repeated",
            f"epoch {epoch} was trained on {times} times, and begins again: its plan stays the same, and pruner.progress stands "
            "still. Call pruner.set_epoch(epoch) before each epoch, with the next number each time",
        )

    def begins_late(self, epoch: int) -> None:
        """A new pruner begins in a later epoch than the first."""
        self.tell(
            "begins late",
            f"set_epoch({epoch}) was called first, and no sample has a score, so this epoch is full: count epochs from 0, and "
            "after a restart call load_state_dict(state) before set_epoch",
        )

    def sharded(self, rank: int, num_replicas: int, came: int, yielded: int, epoch: int) -> None:
        """A rank trained on only one in ``num_replicas`` of the samples that its sampler yielded."""
        self.tell(
            "sharded",
            f"rank {rank} of {num_replicas} trained on {came} of the {yielded} samples that its sampler yielded in epoch {epoch}: "
            "something shards the sampler a second time. With accelerate use infobatch_fast.integrations.accelerate.prepare("
            "accelerator, loader); elsewhere turn the trainer's sharding off",
        )

    def never_came(self, count: int, epoch: int) -> None:
        """Losses of the plan before the last have not come."""
        self.tell(
            "never came",
            f"{count} samples of the plans before plan {epoch - 1} were drawn, but brought no loss until plan {epoch} was made: "
            "losses that still come get the weights of a later plan. If the loop left a batch out on purpose, this does no harm. "
            "A loader that groups samples should yield each group at least once per pass over the data",
        )

    def counted_from_one(self, epoch: int, num_epochs: int) -> None:
        """The trainer selected an epoch after the last one."""
        self.tell(
            "counted from one",
            f"set_epoch({epoch}) is after the last epoch of num_epochs={num_epochs}, so nothing is pruned and schedules stay at "
            f"their end: epochs count from 0 to {num_epochs - 1}. Begin with set_epoch(0), or pass InfoBatch the num_epochs of the "
            "whole run",
        )

    def negative(self, count: int, policy: str, by: str) -> None:
        """Scores are negative, but importance sampling computes norms of gradients from them."""
        what = "cross-entropy losses" if by == "gradient_norm" else "norms or weights"
        self.tell(
            "negative",
            f"{count} scores are negative and count as 0 in {policy}, which takes scores to be {what}: pass those by "
            "update(..., scores=...), beside any loss, or use MeanThreshold or QuantileTiers, which take scores of either sign",
        )

    def tell(self, kind: str, text: str) -> None:
        """Warns, but only once for each kind."""
        if kind not in self._told:
            self._told.add(kind)
            warnings.warn(text, RuntimeWarning, stacklevel=3)


def unkept_samples(count: int, example: int, epoch: int) -> str:
    """The text of a warning or an error about losses of samples that the plan does not keep."""
    return (
        f"index: {count} losses came for samples that the plan of epoch {epoch} does not keep, for instance {example}: their "
        "weights are wrong. Draw batches from DataLoader(with_index(dataset), sampler=pruner.sampler), without shuffle, and with "
        "the data set that InfoBatch got: with_index(Subset(...)). In validation do not call update; record(index, scores) may be "
        "called"
    )
