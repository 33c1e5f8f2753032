"""The life of a pruner as the contract tells it: a model of the epochs, around the oracle that decides each of them."""

import math
from collections.abc import Sequence

from support.oracle import Oracle, Rule, float32, prunes

NUM_EPOCHS, DELTA, WARMUP = 8, 0.8, 1  # epochs 1 to 5 are pruned


class Life:
    """What a user is promised: when a plan is made, when the epoch moves on by itself, and what a restart leaves to do."""

    def __init__(self, n: int, rule: Rule, seed: int, shuffle: bool, protected: Sequence[int]) -> None:
        self.oracle = Oracle(n, rule, seed=seed, shuffle=shuffle, protected=protected)
        self.planned_samples = self.planned_kept = 0
        self.restarted = self.grew = False
        self.go_to(0)

    def go_to(self, epoch: int) -> None:
        # An epoch that was over at the last restart; whether it was selected when its plan was no more the oracle's.
        self.over: int | None = None
        self.rests = False
        self.epoch, self.planned, self.selected, self.exhausted, self.nothing_left = epoch, False, False, False, False

    def is_over(self) -> bool:
        """Whether a new iteration is one of the next epoch."""
        return self.exhausted or (self.nothing_left and not self.selected)

    def need_plan(self) -> None:
        if self.planned:
            return
        self.oracle.plan(self.epoch, pruning=prunes(self.epoch, NUM_EPOCHS, DELTA, WARMUP))
        self.planned, self.restored_with = True, frozenset[int]()
        self.scored = self.scored_here = self.non_finite = 0
        self.planned_samples += self.oracle.n
        self.planned_kept += sum(self.oracle.kept)

    def order(self) -> list[int]:
        return [] if self.rests else self.oracle.orders(visited=self.restored_with)[0]

    def set_epoch(self, epoch: int) -> None:
        self.rests = False
        if epoch == self.over and not (self.planned and self.scored_here):
            if self.planned or self.grew:
                self.rests = True
                return
            self.go_to(epoch)
            self.planned, self.nothing_left = True, True
        # A trainer that counts from an earlier epoch, or looks at each past epoch.
        is_trained = self.planned and self.exhausted and self.scored_here > 0
        if self.restarted and (epoch < self.epoch or (epoch == self.epoch and is_trained and not self.selected)):
            self.exhausted = is_trained
            return
        if epoch != self.epoch:
            self.go_to(epoch)
        self.selected, self.exhausted = True, False

    def update(self, ids: Sequence[int], losses: Sequence[float]) -> list[float]:
        self.need_plan()
        self.oracle.update(ids, losses)
        self.scored += len(ids)
        self.scored_here += len(ids)
        self.non_finite += sum(not math.isfinite(float32(loss)) for loss in losses)
        return [self.oracle.weights[sample] for sample in ids]

    def begin(self) -> list[int]:
        """An iterator has been asked for its first element."""
        if self.rests:
            return []
        self.need_plan()
        if self.is_over():
            self.go_to(self.epoch + 1)
            self.need_plan()
        return self.order()

    def end(self) -> None:
        """It has come to its end."""
        self.exhausted = self.exhausted or not self.rests

    def length(self) -> int:
        if self.rests:
            return 0
        self.need_plan()
        if self.is_over() and not self.selected and self.scored_here >= len(self.order()):
            self.go_to(self.epoch + 1)
            self.need_plan()
        return len(self.order())

    def grow(self, n: int) -> bool:
        """Whether it was allowed."""
        if n == self.oracle.n:
            return True
        if self.planned and not self.is_over():
            return False
        self.oracle.grow(n)
        self.grew = True
        if self.planned:
            self.go_to(self.epoch + 1)
        return True

    def restart(self) -> None:
        """A new process has loaded the state."""
        self.restarted, self.selected = True, False
        if self.planned:
            self.restored_with, self.scored_here, self.non_finite = frozenset(self.oracle.visited), 0, 0
        self.exhausted, self.nothing_left = False, self.planned and not self.order()
        if self.nothing_left and any(self.oracle.kept):
            over = self.epoch
            self.go_to(over + 1)
            self.over, self.grew = over, False
