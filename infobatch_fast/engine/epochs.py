"""Epochs: which one it is, and its plan, which is made once, at the first call that needs it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch

from .checks import check_int
from .marks import KEPT, VISITED, weights_of
from .notices import Notices
from .places import LAST_EPOCH, Piece, Place, Reached, SavedPlan
from .plan import Plan
from .planner import Planner
from .settings import Settings
from .table import LookedUp, ScoreTable


class Epochs(ABC):
    """The current epoch, its plan, and how far it has come.

    There are two ways of counting: epochs as long as their plans (``dynamic.py``), and plans that follow each other (``flow.py``).
    Nobody but the engine, which constructs one of them, knows which it is.

    Args:
        planner: Makes the plans.

    Attributes:
        epoch: The current epoch: the number of its plan.
        scored: Losses recorded since its plan was made, a batch whose losses came twice counting once; negative while losses of
            the plan before are on their way.
        late: How many visits since its plan was made may be late ones of an earlier plan, and cannot be told apart.
        planned_samples, planned_kept: Sums over the plans made so far.
        saved_fraction: What the latest pruned plan saved; None before there is one that knew scores.
        ends_at: The fraction of an epoch after which the trainer ends it, if the trainer has said so.
        ended_at: The fraction after which the previous epoch ended.
        has_scores: Whether scores came apart from training, by ``record``.
        running: The token of the iterations whose ids will be trained on; None while there is none.
        changing: Held while the epoch moves on, a plan is made or an iteration begins, as loaders iterate in their own threads.
            The thread that holds it may take it again. It is taken before ``BitDirectory.lock``, never after it.
        noise: The token of a plan and the noise that the plan adds, once that was asked for.
        moves: int64 [1], how often the current plan was given up; a stream's workers read it in shared memory.
        more_names: Names of the entries that this way of counting adds to a checkpoint.
    """

    more_names: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, planner: Planner) -> None:
        self.planner = planner
        self.epoch = self.scored = self.late = self.planned_samples = self.planned_kept = 0
        self.notices = Notices()
        self.saved_fraction: float | None = None
        self.ends_at: float | None = None
        self.ended_at = 1.0
        self.has_scores = False
        self.running: object | None = None
        self.changing = threading.RLock()
        self.noise: tuple[object, float] = (None, 0.0)
        self.moves = torch.zeros(1, dtype=torch.int64, device="cpu")
        self._plan: Plan | None = None
        # A plan to take up from its marks: after a restart or, where plans follow each other, after an iteration was broken off.
        self._saved_plan: SavedPlan | None = None
        self._was_loaded = False
        self._scored_before = 0  # losses of this plan that were recorded before it was taken up
        self._kept_when_saved = 0  # samples of this rank in a plan that is not taken up yet
        self._last_planned = 0  # the epoch of the newest plan
        self._late_before = 0  # what ``late`` was in the epochs since that plan was made

    @property
    def settings(self) -> Settings:
        """What the run was asked for."""
        return self.planner.settings

    @property
    def table(self) -> ScoreTable:
        """Scores and marks of the samples there are now."""
        return self.planner.table

    # ---- what differs between the two ways ----

    @abstractmethod
    def select(self, epoch: int) -> None:
        """``set_epoch``: what a trainer says when an epoch of its own begins."""

    @abstractmethod
    def pieces(self, resume: Place | None, size: int, unit: int, drop_last: bool) -> Iterator[Piece]:
        """The next iteration of a sampler; it begins, and makes its plan, when the first piece is asked for.

        Args:
            resume: Where a restored loader resumes; only dynamic epochs need it.
            size: Ids in a piece, at most; a multiple of ``unit``.
            unit: Ids in an element that the sampler yields: 1, or a batch.
            drop_last: Whether the sampler leaves out a smaller last batch.

        Raises:
            RuntimeError: After a piece: another iteration or epoch has begun meanwhile.
        """

    @abstractmethod
    def length(self) -> int:
        """Indices in the iteration that comes next, or is under way."""

    @abstractmethod
    def order(self, start: int, stop: int | None) -> torch.Tensor:
        """Positions [start, stop) of the epoch's order: int64, on the table's device."""

    @abstractmethod
    def place(self, resume: Place | None, reached: Reached | None) -> dict[str, int]:
        """The state of a sampler: where it will resume, or where it is."""

    @abstractmethod
    def go_on_at(self, place: Place) -> None:
        """Resumes at ``place``, for a loader that restores its own position."""

    @abstractmethod
    def is_between(self) -> bool:
        """Whether no iteration is under way: the epoch is not planned yet, or it was iterated to its end."""

    @abstractmethod
    def more_state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the plan in force, by ``more_names``."""

    @abstractmethod
    def check_more(self, state: dict[str, Any]) -> None:
        """Makes sure that ``load_more`` can read what ``more_state`` wrote into ``state``.

        Raises:
            ValueError: It cannot.
        """

    @abstractmethod
    def load_more(self, state: dict[str, Any]) -> None:
        """Reads what ``more_state`` wrote, after ``load``. A run with the other way of counting wrote other entries, or none."""

    def is_running(self, iteration: object) -> bool:
        """Whether an iteration's ids are still those that will be trained on."""
        return iteration is self.running

    def prunes_next(self) -> bool:
        """Whether the plan of the current epoch, which is about to be made, is a pruned one."""
        return self.settings.schedule.prunes(self.epoch)

    @abstractmethod
    def record(self, index: torch.Tensor, scores: torch.Tensor, averaged: bool, again: bool) -> torch.Tensor:
        """Records a batch under the plan in force, which must exist, and returns its weights.

        Args:
            index: int64 [B], contiguous, on the table's device.
            scores: float32, the same.
            averaged: Whether the weights are divided by B.
            again: Whether it is the batch before once more, which is no further visit.
        """

    def weights(self, index: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
        """What ``record`` would return for ids, int64 [B], that have these marks in the table: float32 [B]."""
        return weights_of(marks, self.table.tiers)

    def is_unkept(self, index: torch.Tensor, found: LookedUp) -> torch.Tensor:
        """Whether each id, int64 [B], is neither kept by the plan in force nor known to be late: bool [B]."""
        return (found.slots >= 0) & ((found.marks & KEPT) == 0)

    def is_new(self, index: torch.Tensor) -> torch.Tensor:
        """Whether each id, int64 [B], was not recorded under the plan in force: bool [B]."""
        return (self.table.look_up(index).marks & VISITED) == 0

    def check_epoch(self, epoch: int, current: int) -> int:
        """Checks and returns an epoch that a trainer selects. By its training so far, the trainer is in epoch ``current``.

        Raises:
            TypeError, ValueError: ``epoch`` is not the number of an epoch.
        """
        epoch, num_epochs = check_int("epoch", epoch, 0, LAST_EPOCH), self.settings.schedule.num_epochs
        if epoch >= num_epochs and epoch > current and not self.settings.lengths.is_endless:
            self.notices.counted_from_one(epoch, num_epochs)
        return epoch

    def progress(self) -> float:
        """Fraction of the run that is done, in [0, 1]."""
        return min(1.0, (self.epoch + self.fraction()) / self.settings.schedule.num_epochs)

    # ---- the plan ----

    def plan(self) -> Plan:
        """The plan of the current epoch; made, or taken up from a checkpoint, at the first call."""
        plan = self._plan
        if plan is not None:
            return plan
        with self.changing:
            if self._plan is not None:
                return self._plan
            late, epoch = self._late_before, self._last_planned
            plan, faults = self._make_plan(), self.planner.faults
            if faults.unkept > late:  # last: if warnings are errors, the plan is made nevertheless, as on other ranks
                self.notices.unkept(faults.unkept, faults.unkept_id, epoch)
            if self.planner.negative and plan.pruned:
                self.notices.negative(self.planner.negative, repr(self.settings.policy), self.settings.policy.by)
            return plan

    def _make_plan(self) -> Plan:
        saved = self._saved_plan
        if saved:
            plan = self.planner.restore(self.epoch, saved.pruned, saved.thresholds, saved.seen)
        else:
            plan = self.planner.make(self.epoch, self.prunes_next())
        # First the plan itself: if the user interrupts between two of these lines, it is not made and counted a second time.
        self._plan, self._saved_plan = plan, None
        if saved:
            self._scored_before = self.scored
        else:
            self.scored = self._scored_before = 0
            self.planned_samples += self.table.num_samples
            self.planned_kept += plan.kept
        if plan.pruned and plan.seen:
            self.saved_fraction = 1.0 - plan.kept / self.table.num_samples
        self._last_planned, self._late_before = self.epoch, 0
        return plan

    @property
    def plan_in_force(self) -> Plan | None:
        """The plan of the current epoch, if it was made already; it is not made here."""
        return self._plan

    def replace_planner(self, planner: Planner) -> None:
        """Between epochs: the next plan is made by another planner."""
        with self.changing:
            if self._plan is not None:
                self._move_on()
            self.planner = planner

    def saved_plan(self) -> SavedPlan | None:
        """What a checkpoint notes of the plan in force, if there is one."""
        plan = self._plan
        return self._saved_plan if plan is None else SavedPlan(plan.pruned, plan.cutoffs, plan.thresholds, plan.seen)

    def to_save(self) -> tuple[int, int, SavedPlan | None]:
        """The epoch in which a restart resumes, its losses so far, and its plan. May wait for the device."""
        return self.epoch, max(0, self.scored), self.saved_plan()

    def load(self, epoch: int, scored: int, planned: tuple[int, int], saved_plan: SavedPlan | None) -> None:
        """Resumes from a checkpoint whose scores and marks are in the table already."""
        self._move_to(epoch)
        self._kept_when_saved = int(self.planner.count_marks()[0]) if saved_plan is not None else 0
        self._was_loaded, self.scored, self._saved_plan = True, scored, saved_plan
        self.planned_samples, self.planned_kept = planned

    def begin_anew(self) -> None:
        """As if nothing had been trained or loaded; the table is empty already."""
        self.load(0, 0, (0, 0), None)
        self.load_more({})
        self._was_loaded, self.saved_fraction = False, None

    @property
    def kept(self) -> int:
        """Samples of all ranks in the plan of the current epoch; 0 before it is made."""
        if self._plan is not None:
            return self._plan.kept
        # While a saved plan is not taken up yet, a rank knows only its own samples. All ranks keep about equally many.
        return self._kept_when_saved * self.planner.ranks.num_replicas if self._saved_plan is not None else 0

    def fraction(self) -> float:
        """Fraction of the current epoch whose losses were recorded, as this rank knows it without making a plan."""
        if self._plan is not None:
            whole = max(0, self._scored_before) + self._plan.length
        else:
            whole = self._kept_when_saved if self._saved_plan is not None else 0
        return min(1.0, max(0, self.scored) / whole) if whole else 0.0

    def _move_on(self) -> None:
        """Moves to the next epoch, if it has a number."""
        if self.epoch == LAST_EPOCH:
            raise RuntimeError(
                f"epoch {LAST_EPOCH} is the last possible epoch, and the next one was requested: call set_epoch(epoch) before "
                "each epoch, and count from 0"
            )
        self._move_to(self.epoch + 1)

    def _move_to(self, epoch: int) -> None:
        self._late_before, self.late = self._late_before + self.late, 0
        self.epoch = epoch
        self.moves += 1
        self._plan = self._saved_plan = None
