"""Epochs that are as long as their plans: the dynamic mode."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from .checks import check_int
from .chunks import CHUNK, NOTHING, read_chunks
from .epochs import Epochs
from .marks import VISITED, count_unvisited
from .places import LAST_EPOCH, Piece, Place, Reached, SavedPlan
from .plan import Plan
from .planner import Planner

MANY_TIMES = 3  # that an epoch may be gone through on purpose


class DynamicEpochs(Epochs):
    """One plan an epoch, and one epoch an iteration.

    Args:
        planner: Makes the plans.
    """

    more_names = frozenset({"is_over"})

    def __init__(self, planner: Planner) -> None:
        super().__init__(planner)
        self._was_selected = False
        self._exhausted = False  # an iteration of this epoch has come to its end
        self._yielded = 0  # by that iteration
        self._most = 0  # losses that this epoch may have
        self._spare = 0  # more of them, while it is not known what was drawn: a stream may be broken off and begin again
        # An epoch that was over when it was loaded: its number, and what ``to_save`` returns while its marks are in the table.
        self._over: int | None = None
        self._past: tuple[int, int, SavedPlan | None] | None = None
        self._rests = False  # the trainer has selected that epoch after the next plan was made, so there is nothing to draw

    def select(self, epoch: int) -> None:
        """``set_epoch``. The current epoch may be iterated again. After a restart, earlier epochs are always ignored, except for
        the epoch that the checkpoint was taken in.
        """
        with self.changing:
            epoch = self.check_epoch(epoch, self.epoch)
            if epoch > 0 and not (self.has_scores or self._was_loaded or self.planned_samples):
                self.notices.begins_late(epoch)
            self._select(epoch, by_trainer=True)

    def go_on_at(self, place: Place) -> None:
        """A loader goes on in the epoch of ``place``."""
        with self.changing:
            self._select(place.epoch, by_trainer=False)

    def _select(self, epoch: int, by_trainer: bool) -> None:
        """Moves to ``epoch``; after a restart not backwards.

        After a restart there are two kinds of trainers. One counts from an earlier epoch, and means the next one. So an iteration
        that has come to its end stays over, even when the trainer's count reaches the current epoch. The other kind spins through
        past epochs and takes a batch of each. Its loader may read an epoch to its end, but no loss came, so the epoch is not over.
        """
        self._rests = False
        if by_trainer and epoch == self._over and self.scored == self._scored_before:
            if self._past is None:  # the next plan was made over it
                self._rests = True
                return
            self.load(epoch, self._past[1], (self.planned_samples, self.planned_kept), self._past[2])
        is_trained = self._exhausted and self.scored > self._scored_before
        if self._was_loaded and (epoch < self.epoch or (epoch == self.epoch and is_trained and not self._was_selected)):
            self._exhausted = is_trained
            return
        if epoch != self.epoch:
            if by_trainer and self._exhausted and self._plan is not None and self.scored == self._scored_before:
                self._note_skipped(self._plan, self._yielded)
            self._note_end(self.fraction())
            self._move_to(epoch)
        elif self._plan is not None:
            self._expect(self._plan.length)
        self._was_selected = self._was_selected or by_trainer
        self._exhausted = False

    def pieces(self, resume: Place | None, size: int, unit: int, drop_last: bool) -> Iterator[Piece]:
        """The plan's order, or that of the next epoch if this one was yielded to its end."""
        with self.changing:
            if self._rests:
                return
            plan, start = self._begin(resume)
        check = partial(self._check_running, plan.token, plan.epoch)
        for chunk in read_chunks(plan, start, size):
            yield Piece(plan.token, check, *chunk)
            if chunk.end < plan.length:
                check()
        if self.is_running(plan.token):  # the sampler is at the end, also where a last batch was dropped
            yield Piece(plan.token, check, plan.length, plan.length, NOTHING)
        with self.changing:
            if plan is self._plan:
                yielded = plan.length - start
                self._exhausted, self._yielded = True, yielded - yielded % unit if drop_last else yielded

    def _begin(self, resume: Place | None) -> tuple[Plan, int]:
        """An iterator's plan and first position.

        The place where a loader resumes counts only in its own epoch, and not if a restored plan leaves out visited samples.
        """
        plan, start = self.plan(), 0
        if resume is not None and resume.epoch == self.epoch and not plan.restored:
            start = min(resume.position, plan.length)
        at_end = 0 < start == plan.length and not self._was_selected
        if not (at_end or self._is_over(plan)):
            self._spare = 0
            self._expect(plan.length - start)
            return plan, start
        # An exhausted iteration may or may not still be trained on. Its losses that come count under the new plan.
        self._note_end(self._yielded / plan.length if self._exhausted and plan.length else 1.0)
        self._move_on()
        plan, self._spare = self.plan(), 0
        return plan, 0

    def _expect(self, losses: int) -> None:
        """Allows that many more losses, as another iteration of the epoch begins."""
        came, plan = self.scored - self._scored_before, self._plan
        if came > 0:
            self._most += losses
        if plan is not None and came >= MANY_TIMES * plan.length > 0:
            self.notices.repeated(self.epoch, came // plan.length)

    def record(self, index: torch.Tensor, scores: torch.Tensor, averaged: bool, again: bool) -> torch.Tensor:
        """Records a batch."""
        weights = self.table.record(index, scores, averaged)
        if not again:
            self.scored += index.numel()
            if self.scored > self._most + self._spare:
                self.notices.too_many(self.scored - self._scored_before, self.epoch, self._most - self._scored_before)
        return weights

    def _check_running(self, iteration: object, epoch: int) -> None:
        if not self.is_running(iteration):
            raise RuntimeError(
                f"this iterator belongs to epoch {epoch}, but the sampler has moved on to epoch {self.epoch}: start a new "
                "iteration after set_epoch() or load_state_dict()"
            )

    def length(self) -> int:
        """Indices of the plan. If this epoch was trained on to its end, the next epoch's plan is made, and its length returned.

        A loader asks the sampler for the last indices long before the last loss is in. So the epoch does not move on before all
        yielded samples were scored. Nor does it move on for a trainer that calls set_epoch, which may ask in the last step.
        """
        with self.changing:
            if self._rests:
                return 0
            plan = self.plan()
            if self._is_over(plan) and not self._was_selected and self.scored - self._scored_before >= self._yielded:
                self._move_on()
            return self.plan().length

    def order(self, start: int, stop: int | None) -> torch.Tensor:
        """Positions [start, stop) of the plan's order.

        Raises:
            ValueError: Not 0 <= start <= stop <= length.
        """
        length = self.length()
        start = check_int("start", start, 0, length)
        return self.plan().order(start, length if stop is None else check_int("stop", stop, start, length))

    def place(self, resume: Place | None, reached: Reached | None) -> dict[str, int]:
        """Epoch and position in its order."""
        position = 0
        if resume is not None and resume.epoch == self.epoch:
            position = resume.position
        elif reached is not None and self.is_running(reached.iteration):
            position = reached.position
        return {"epoch": self.epoch, "position": position}

    def is_between(self) -> bool:
        """Whether no iteration is under way."""
        if self._saved_plan is not None:  # a checkpoint may have been taken when all was visited
            self.plan()
        return self._plan is None or self._is_over(self._plan)

    def to_save(self) -> tuple[int, int, SavedPlan | None]:
        """As in ``Epochs``; an epoch that was over when it was loaded is still the one in the table."""
        return super().to_save() if self._past is None else self._past

    def _is_done(self, plan: Plan) -> bool:
        """Whether nothing is left of the epoch. Several ranks must say the same without asking, so they go by what came back."""
        if plan.restored and plan.length == 0:
            return True
        came, alone = self.scored - self._scored_before, self.planner.ranks.num_replicas == 1
        yielded = self._yielded if self._exhausted else plan.length
        is_told = self._exhausted and came - self.late >= yielded
        if came < yielded or yielded == 0 or not (alone or is_told):
            return False
        return count_unvisited(self.table.marks) <= (max(0, plan.available - yielded) if is_told else 0)

    def more_state(self) -> dict[str, Any]:
        """Whether nothing is left of the epoch."""
        return {"is_over": int(self._past is not None or (self._plan is not None and self._is_done(self._plan)))}

    def check_more(self, state: dict[str, Any]) -> None:
        """Nothing to check."""

    def load(self, epoch: int, scored: int, planned: tuple[int, int], saved_plan: SavedPlan | None) -> None:
        """As in ``Epochs``. The previous iteration no longer counts, and its plan is overwritten already."""
        self._exhausted = False
        super().load(epoch, scored, planned, saved_plan)

    def load_more(self, state: dict[str, Any]) -> None:
        """If nothing is left of the epoch, moves to the next one. The trainer may still select the epoch that is over."""
        if state.get("is_over") and self.epoch < LAST_EPOCH:
            past = super().to_save()
            self._move_to(self.epoch + 1)
            self._past, self._over, self.scored = past, past[0], 0

    def replace_planner(self, planner: Planner) -> None:
        """As in ``Epochs``; the table that held the marks of a past epoch is gone."""
        super().replace_planner(planner)
        self._past = None

    def _is_over(self, plan: Plan) -> bool:
        """Whether the next iteration belongs to the next epoch. A checkpoint may have been taken when all samples were visited."""
        return self._exhausted or (plan.restored and plan.length == 0 and not self._was_selected)

    def _make_plan(self) -> Plan:
        plan = super()._make_plan()
        self._past = None  # its marks are overwritten
        self._most, self._spare = self.scored + plan.length + self.late, plan.length // 2
        self.running = plan.token
        return plan

    def _move_to(self, epoch: int) -> None:
        self._past, self._over, self._rests, missing = None, None, False, 0
        if self._exhausted:  # samples that the sampler yielded and that were not trained on, or not yet
            missing = max(0, self._yielded - max(0, self.scored - self._scored_before - self.late))
            self._note_missing(missing)
        super()._move_to(epoch)
        self.late = missing
        self.running = None
        self._exhausted = self._was_selected = False
        self._yielded = 0

    def _note_missing(self, missing: int) -> None:
        """Looks for the causes of missing losses that can be told apart from losses which are only late."""
        ranks, came, plan = self.planner.ranks, self.scored - self._scored_before, self._plan
        is_share = ranks.num_replicas > 1 and 0.9 * self._yielded <= came * ranks.num_replicas <= 1.1 * self._yielded
        if plan is not None and is_share and not self._were_visited(plan, came).all():  # else the loop was left behind them
            self.notices.sharded(ranks.rank, ranks.num_replicas, came, self._yielded, self.epoch)
        if plan is not None and missing > 0 < came:
            self._note_skipped(plan, missing)

    def _note_skipped(self, plan: Plan, missing: int) -> None:
        """Late losses are of the last samples that were yielded, and skipped ones of the first."""
        if plan.restored and missing > 0 and not self._were_visited(plan, missing).any():
            self.notices.skipped(missing, self._yielded, self.epoch)

    def _were_visited(self, plan: Plan, count: int) -> torch.Tensor:
        """Whether the first ``count`` samples of a plan's order were visited, or a chunk of them: bool, on the table's device."""
        ids = plan.order(0, min(count, plan.length, CHUNK))
        return (self.table.look_up(ids).marks & VISITED).bool()

    def _note_end(self, fraction: float) -> None:
        """Notes where the epoch ends: the fraction of it that was trained on, or soon will be."""
        if fraction > 0:
            self.ended_at = fraction
