"""Which epoch it is, and when its plan is made: once, at the first call that needs it."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch

from . import ops
from .checks import check_int
from .plan import Plan, Planner
from .schedule import Schedule

LAST_EPOCH = 2**32 - 1  # what a counter of the generator holds


class SavedPlan(NamedTuple):
    """Numbers of the plan that a checkpoint was taken under; its bits are in the marks."""

    pruned: bool
    cutoffs: ops.Cutoffs
    thresholds: tuple[float, ...]
    seen: int


class Place(NamedTuple):
    """A position in an epoch's order. ``drawn``: all indices that were yielded before it, where plans follow each other."""

    epoch: int
    position: int
    drawn: int = 0


class Epochs:
    """The current epoch, its plan, and how far it has come.

    Args:
        planner: Makes the plans.
        schedule: Says which epochs are pruned.

    Attributes:
        epoch: The current epoch.
        scored: Losses recorded since its plan was made.
        planned_samples, planned_kept: Sums over the plans made so far.
        saved_fraction: What the latest pruned plan saved; None before there is one that knew scores.
        moves: int64 [1], how often the current plan was given up; a stream's workers read it in shared memory.
    """

    def __init__(self, planner: Planner, schedule: Schedule) -> None:
        self._planner, self._schedule = planner, schedule
        self.epoch = self.scored = self.planned_samples = self.planned_kept = 0
        self.saved_fraction: float | None = None
        self.moves = torch.zeros(1, dtype=torch.int64)
        self._plan: Plan | None = None
        self._saved_plan: SavedPlan | None = None  # read from a checkpoint, and not yet taken up
        self._was_loaded = False
        self._was_selected = False
        self._exhausted = False  # an iteration of this epoch has come to its end
        self._yielded = 0  # by that iteration
        self._scored_before = 0  # this process took up the plan
        self._kept_when_saved = 0  # by this rank, in the plan of a checkpoint

    def select(self, epoch: int, by_trainer: bool = True) -> None:
        """``set_epoch``, or a loader that goes on where it was.

        The current epoch may be iterated again; after a restart an earlier one is ignored, for good.
        A trainer that counts from 0 after a restart means the next epoch. One that spins through past epochs first, and looks at
        a batch of each, records nothing, and means that all still stands.
        """
        epoch = check_int("epoch", epoch, 0, LAST_EPOCH)
        if self._was_loaded and epoch < self.epoch:
            self._exhausted = self._exhausted and self.scored > self._scored_before
            return
        if epoch != self.epoch:
            self._move_to(epoch)
        self._was_selected = self._was_selected or by_trainer
        self._exhausted = False

    def plan(self) -> Plan:
        """The plan of the current epoch; made, or taken up from a checkpoint, at the first call."""
        if self._plan is not None:
            return self._plan
        if self._saved_plan is not None:
            pruned, cutoffs, values, seen = self._saved_plan
            plan = self._planner.restore(self.epoch, pruned, cutoffs, values, seen)
            self._scored_before = self.scored
        else:
            plan = self._planner.make(self.epoch, self.prunes_next())
            self.scored = self._scored_before = 0
            self.planned_samples += self._planner.table.num_samples
            self.planned_kept += plan.kept
        if plan.pruned and plan.seen:
            self.saved_fraction = 1.0 - plan.kept / self._planner.table.num_samples
        self._plan, self._saved_plan = plan, None
        return plan

    def prunes_next(self) -> bool:
        """Whether the plan of the current epoch, which is about to be made, is a pruned one."""
        return self._schedule.prunes(self.epoch)

    @property
    def plan_in_force(self) -> Plan | None:
        """The plan of the current epoch, if it was made already; it is not made here."""
        return self._plan

    def fraction(self) -> float:
        """Fraction of the current epoch whose losses were recorded, as this rank knows it without making a plan."""
        if self._plan is not None:
            whole = max(0, self._scored_before) + self._plan.length
        else:
            whole = self._kept_when_saved if self._saved_plan is not None else 0
        return min(1.0, max(0, self.scored) / whole) if whole else 0.0

    def progress(self) -> float:
        """Fraction of the run that is done, in [0, 1]."""
        return min(1.0, (self.epoch + self.fraction()) / self._schedule.num_epochs)

    def go_on_at(self, place: Place) -> None:
        """A loader that restores positions of its own goes on in the epoch of ``place``."""
        self.select(place.epoch, by_trainer=False)

    def is_current(self, token: object) -> bool:
        """Whether the plan with this token is still in force."""
        return self._plan is not None and self._plan.token is token

    def begin(self, resume: Place | None) -> tuple[Plan, int]:
        """An iterator starts: its plan and first position, of the next epoch if this one was yielded to its end.

        The place where a loader goes on counts in its own epoch alone, and not where a restored plan leaves out what was visited.
        """
        plan, start = self.plan(), 0
        if resume is not None and resume.epoch == self.epoch and not plan.restored:
            start = min(resume.position, plan.length)
        at_end = 0 < start == plan.length and not self._was_selected
        if not (at_end or self._is_over(plan)):
            return plan, start
        # Whether an iteration that was exhausted will still be trained on, nobody knows here: what comes counts under the new plan.
        self._move_to(self.epoch + 1)
        return self.plan(), 0

    def record(self, plan: Plan, index: torch.Tensor, scores: torch.Tensor, averaged: bool) -> torch.Tensor:
        """Records a batch under the plan in force; its weights, ``averaged``: divided by its size."""
        weights = plan.recorder(index, scores, averaged)
        self.scored += index.numel()
        return weights

    def end(self, plan: Plan, yielded: int) -> None:
        """An iterator has come to the end of ``plan``; a last batch may have been dropped."""
        if plan is self._plan:
            self._exhausted, self._yielded = True, yielded

    def length(self) -> int:
        """Indices in the iteration that comes next, or is under way.

        A loader asks the sampler for the last indices long before the last loss is in. So the epoch does not move on before
        everything that was yielded was scored; nor for somebody who calls set_epoch, and may ask in the last step.
        """
        plan = self.plan()
        if self._is_over(plan) and not self._was_selected and self.scored - self._scored_before >= self._yielded:
            self._move_to(self.epoch + 1)
        return self.plan().length

    def is_between(self) -> bool:
        """Whether no iteration is under way: the epoch is not planned yet, or it was iterated to its end."""
        if self._saved_plan is not None:  # a checkpoint may have been taken when all was visited
            self.plan()
        return self._plan is None or self._is_over(self._plan)

    def plan_with(self, planner: Planner) -> None:
        """Between epochs: the next plan is made by another planner."""
        if self._plan is not None:
            self._move_to(self.epoch + 1)
        self._planner = planner

    def before_writing(self) -> None:
        """Whoever is about to write the table: an order may still be read ahead."""
        self._planner.before_writing()

    def save(self) -> SavedPlan | None:
        """What a checkpoint notes of the plan in force, if there is one."""
        plan = self._plan
        return self._saved_plan if plan is None else SavedPlan(plan.pruned, plan.cutoffs, plan.thresholds, plan.seen)

    def load(self, epoch: int, scored: int, planned: tuple[int, int], saved_plan: SavedPlan | None) -> None:
        """Goes on with a checkpoint whose scores and marks are in the table already."""
        self._move_to(epoch)
        self._kept_when_saved = int(self._planner.count_marks()[0]) if saved_plan is not None else 0
        self._was_loaded, self.scored, self._saved_plan = True, scored, saved_plan
        self.planned_samples, self.planned_kept = planned

    def _is_over(self, plan: Plan) -> bool:
        """Whether the next iteration is one of the next epoch. A checkpoint may have been taken when all was visited."""
        return self._exhausted or (plan.restored and plan.length == 0 and not self._was_selected)

    def _move_to(self, epoch: int) -> None:
        self._warn_of_sharding()
        self.epoch = epoch
        self.moves += 1
        self._plan = self._saved_plan = None
        self._exhausted = self._was_selected = False
        self._yielded = 0

    def _warn_of_sharding(self) -> None:
        """Says so where a rank trained on one in ``num_replicas`` of what its sampler yielded: no foreign index tells of that."""
        ranks, came = self._planner.ranks, self.scored - self._scored_before
        if self._exhausted and ranks.num_replicas > 1 and 0 < came * ranks.num_replicas <= 1.1 * self._yielded:
            warnings.warn(
                f"rank {ranks.rank} of {ranks.num_replicas} trained on {came} of the {self._yielded} samples that its sampler "
                f"yielded in epoch {self.epoch}: something shards the sampler a second time. With accelerate use "
                "infobatch_fast.integrations.accelerate.prepare(accelerator, loader); elsewhere turn the trainer's sharding off",
                RuntimeWarning,
                stacklevel=2,
            )
