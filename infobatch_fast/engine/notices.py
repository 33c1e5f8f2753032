"""What cannot be right in the program around a pruner, though nothing fails: each kind is told once, with what to write instead."""

from __future__ import annotations

import warnings


class Notices:
    """Warnings of one pruner. Each method is a kind of mistake, and tells of the first case alone."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def unkept(self, count: int, example: int, epoch: int) -> None:
        """Losses came of samples that the plan does not keep."""
        self.tell("unkept", unkept_samples(count, example, epoch))

    def too_many(self, count: int, epoch: int, most: int) -> None:
        """More losses came than samples were to be visited."""
        self.tell(
            "too many",
            f"update got {count} losses in epoch {epoch}, and {most} samples are visited in it: pruner.progress and with it "
            "EpochProgressLR run ahead. Call update once a batch, weigh(index, losses) for other losses of it (SAM, heads, mixup), "
            "and record in validation; give a sample of several rows one loss; split streams among workers (docs/losses.md)",
        )

    def skipped(self, count: int, yielded: int, epoch: int) -> None:
        """After a restart the first samples of what was left were not trained on."""
        self.tell(
            "skipped",
            f"after load_state_dict the sampler yielded the {yielded} samples that were left of epoch {epoch}, and {count} of "
            "them, from the first one on, brought no loss: the loop skipped batches that had been left out already. Write no "
            "skip_first_batches and no `if step < resumed: continue`, as the pruner goes on where it was",
        )

    def repeated(self, epoch: int, times: int) -> None:
        """An epoch is gone through again and again."""
        self.tell(
            "repeated",
            f"epoch {epoch} was trained on {times} times over, and begins once more: nothing else is pruned meanwhile, and "
            "pruner.progress stands. Call pruner.set_epoch(epoch) before each epoch, with the next number each time",
        )

    def begins_late(self, epoch: int) -> None:
        """A new pruner begins in a later epoch than the first."""
        self.tell(
            "begins late",
            f"set_epoch({epoch}) comes first, and no sample has a score, so this epoch is full: epochs count from 0, and after a "
            "restart load_state_dict(state) comes before set_epoch",
        )

    def sharded(self, rank: int, num_replicas: int, came: int, yielded: int, epoch: int) -> None:
        """A rank trained on one in ``num_replicas`` of what its sampler yielded."""
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
            f"{count} samples of the plans before plan {epoch - 1} were drawn and brought no loss until plan {epoch} was made: if "
            "they still come, plans later than that weigh them by their own. A batch that the loop left out does no harm; a loader "
            "that groups samples should hand its groups out at least once in a pass over the data",
        )

    def counted_from_one(self, epoch: int, num_epochs: int) -> None:
        """An epoch was selected behind the last one."""
        self.tell(
            "counted from one",
            f"set_epoch({epoch}) is behind the last epoch of num_epochs={num_epochs}, where nothing is pruned and schedules stand "
            f"at their end: epochs count from 0 to {num_epochs - 1}. Begin with set_epoch(0), or pass InfoBatch as many epochs as "
            "the run has",
        )

    def negative(self, count: int, policy: str, by: str) -> None:
        """Scores are negative of which importance sampling takes norms of gradients."""
        what = "cross-entropy losses" if by == "gradient_norm" else "norms or weights"
        self.tell(
            "negative",
            f"{count} scores are negative and count as 0 in {policy}, which takes scores as {what}: record those, as "
            "update(..., scores=...) does beside any loss, or take MeanThreshold or QuantileTiers, for scores of either sign",
        )

    def tell(self, kind: str, text: str) -> None:
        """Warns, the first time that something of this kind is told."""
        if kind not in self._told:
            self._told.add(kind)
            warnings.warn(text, RuntimeWarning, stacklevel=3)


def unkept_samples(count: int, example: int, epoch: int) -> str:
    """What is said of losses of samples that the plan does not keep, whether it is a warning or an error."""
    return (
        f"index: {count} losses came of samples that the plan of epoch {epoch} does not keep, for instance {example}: their "
        "weights are wrong. Draw batches by DataLoader(with_index(dataset), sampler=pruner.sampler), without shuffle, with the "
        "data set that InfoBatch got: with_index(Subset(...)). In validation call record(index, scores), or nothing"
    )
