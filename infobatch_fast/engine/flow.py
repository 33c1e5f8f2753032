"""Plans that follow each other inside an iteration, like passes over a data set: epochs of constant length, or without end."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from .backlog import Backlog
from .checks import check_int
from .chunks import CHUNK, NOTHING, Chunk, Ids, read_chunks
from .clock import Clock
from .epochs import Epochs
from .places import Piece, Place, Reached, SavedPlan
from .plan import Plan
from .planner import Planner
from .table import LookedUp


class _Began(NamedTuple):
    """Where the newest iteration began."""

    plan: Plan | None
    position: int
    drawn: int
    done: int
    owed: list[int]


class Flow(Epochs):
    """Plans that follow each other without a gap: the constant and the endless mode.

    After an iteration that was broken off, and after a restart, samples that were drawn and not trained on come again: first those
    of the previous plan, then the rest of this one. ``scored`` is negative while losses of the previous plan are on their way.

    Args:
        planner: Makes the plans. Its schedule counts the trainer's epochs, or, if they never end, plans.
    """

    more_names = frozenset({"done", "late_ids", "late_weights"})

    def __init__(self, planner: Planner) -> None:
        super().__init__(planner)
        self._clock = Clock(planner.settings.lengths)
        self._backlog = Backlog(planner.table)
        self._began: _Began | None = None
        self._unanswered = 0  # indices drawn, also by iterations that were broken off, less losses
        self._position = 0  # of the next index in the plan
        self._reader: Iterator[Chunk] | None = None
        self._chunk = NOTHING  # read and not yet drawn

    # ---- the trainer's epochs ----

    def select(self, epoch: int) -> None:
        """``set_epoch``: the trainer begins another epoch, by its own count. It neither selects nor drops a plan."""
        ended_at = self._clock.mark(self.check_epoch(epoch, self._clock.epoch or 0))
        if ended_at is not None:
            self.ended_at = ended_at

    def prunes_next(self) -> bool:
        """Whether a plan that begins here is a pruned one. The trainer's epoch at the plan's first index decides."""
        epoch = self._clock.epoch
        return self.settings.schedule.prunes(self.epoch if epoch is None else epoch)

    def length(self) -> int:
        """Indices of an epoch of the trainer.

        Raises:
            TypeError: It has no end.
        """
        if self._clock.length is None:
            raise TypeError(
                "the sampler has no length with steps_per_epoch=math.inf: count steps instead, or construct InfoBatch with "
                "steps_per_epoch=S"
            )
        return self._clock.length

    def progress(self) -> float:
        """Fraction of the run that is done: by steps, or by plans where there is no end."""
        if self._clock.length is None:
            return super().progress()
        return min(1.0, self._clock.done / (self._clock.length * self.settings.schedule.num_epochs))

    def is_between(self) -> bool:
        """Never: plans follow each other without a gap."""
        return False

    # ---- an iteration ----

    def pieces(self, resume: Place | None, size: int, unit: int, drop_last: bool) -> Iterator[Piece]:
        """Whole elements; some begin in one plan and end in the next. After a cut they are the rest of the epoch."""
        with self.changing:
            iteration, left = self._begin(unit), self._clock.left
        check, rest = partial(self._check_running, iteration), NOTHING
        while left > 0:
            wanted = int(min(size, left)) - len(rest)
            if wanted <= 0:
                raise RuntimeError(
                    f"the {left} indices left of this epoch are not a whole number of batches of {unit}: iterate over "
                    "sampler.batches(batch_size) with the batch_size that InfoBatch was constructed with, and report this"
                )
            with self.changing:
                check()
                ids = np.concatenate([rest, self._draw(wanted)])
                first, whole = self._clock.drawn - len(ids), len(ids) - len(ids) % unit
            ids, rest = ids[:whole], ids[whole:]
            if not whole:
                continue
            left -= whole
            yield Piece(iteration, check, first, first + whole, ids)
        with self.changing:
            if self.is_running(iteration):
                self.running = None

    def _check_running(self, iteration: object) -> None:
        if not self.is_running(iteration):
            raise RuntimeError(
                "this iterator is no longer valid, because another one was started or load_state_dict() was called: take the "
                "batches of one iterator at a time"
            )

    def order(self, start: int, stop: int | None) -> torch.Tensor:
        """Raises an error: an epoch has no order of its own.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(
            "indices() needs one plan per epoch, but with steps_per_epoch plans follow each other: iterate over "
            "sampler.batches(batch_size), or construct InfoBatch without steps_per_epoch"
        )

    def begin_anew(self) -> None:
        """As if nothing had been trained or loaded; the table is empty already."""
        super().begin_anew()
        self._clock.begin_anew()

    def record(self, index: torch.Tensor, scores: torch.Tensor, averaged: bool, again: bool) -> torch.Tensor:
        """Records a batch. Some of its losses may be late ones of the previous plan."""
        with self.changing:  # a loader may make the next plan in its own thread, and count there what is on its way
            self.plan()
            weights = self._backlog.record(index, scores, averaged, again)
            if not again:
                self.scored += index.numel()
                self._clock.done += index.numel()
                self._unanswered -= index.numel()
                if self._unanswered < 0 < self._clock.drawn:
                    self.notices.too_many(self._clock.done, self.epoch, self._clock.done + self._unanswered)
        return weights

    def weights(self, index: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
        """As in ``Epochs``; late losses have those of their own plan."""
        weights = super().weights(index, marks)
        with self.changing:
            late = self._backlog.late
            return weights if late is None else late.weights(index, weights)

    def is_new(self, index: torch.Tensor) -> torch.Tensor:
        """As in ``Epochs``; late losses leave no mark."""
        late = self._backlog.late
        return super().is_new(index) if late is None else super().is_new(index) & ~late.came_last(index)

    def is_unkept(self, index: torch.Tensor, found: LookedUp) -> torch.Tensor:
        """As in ``Epochs``."""
        late = self._backlog.late
        return super().is_unkept(index, found) if late is None else super().is_unkept(index, found) & ~late.expects(index)

    def _begin(self, unit: int) -> object:
        self._go_back_together(self._clock.begin(runs=self.running is not None))
        self._clock.align(unit)
        self._backlog.level(self.plan())
        self._began = _Began(self.plan_in_force, self._position, self._clock.drawn, self._clock.done, self._backlog.owed)
        self.running = object()  # the newest one, until it has come to its end
        return self.running

    def _draw(self, count: int) -> Ids:
        """The next indices, at most ``count``, all of one plan. If the previous plan has ended, the next one is made here."""
        owed = self._backlog.owed
        if owed:
            taken, self._backlog.owed = owed[:count], owed[count:]
            self._count(len(taken))
            return np.array(taken)
        plan = self.plan()
        self._position = min(self._position, plan.length)
        while self._position == plan.length:
            plan = self._follow(plan)
        if not len(self._chunk):
            if self._reader is None:
                self._reader = read_chunks(plan, self._position, CHUNK)
            self._chunk = next(self._reader).ids
        ids, self._chunk = self._chunk[:count], self._chunk[count:]
        self._position += len(ids)
        self._count(len(ids))
        return ids

    def _count(self, drawn: int) -> None:
        self._clock.drawn += drawn
        self._unanswered += drawn

    def _follow(self, before: Plan) -> Plan:
        """The plan of the next pass, made while losses of the one before are still on their way."""
        late = self._backlog.late_after(before, self._clock.drawn - self._clock.done)
        self._move_on()
        plan = self.plan()
        self._backlog.late = late
        self.scored = -self._backlog.count
        # Losses that did not come although their samples were visited never will: of a batch that was left out, for instance.
        self._clock.done = self._clock.drawn - self._backlog.count
        self._backlog.share()
        self.late = self._backlog.lost  # they may come all the same
        if self.late:
            self.notices.never_came(self.late, self.epoch)
        return plan

    def _go_back_together(self, back: bool) -> None:
        """Goes back if any rank must, all to the same place, though each counts its own losses. Collective."""
        began = self._began
        untouched = began is not None and began.done == self._clock.done and began.plan is self.plan_in_force
        done, ranks = self._clock.done, self.table.ranks
        if ranks.num_replicas > 1:
            here = torch.tensor([back, untouched, done], dtype=torch.int64, device=self.table.device)
            with ranks.waiting_for("the beginning of an iteration"):
                of_ranks = ranks.gather(here).cpu()
            back, untouched, done = bool(of_ranks[:, 0].any()), bool(of_ranks[:, 1].all()), int(of_ranks[:, 2].min())
        if back and began is not None:
            self._go_back(began, untouched, done)

    def _go_back(self, began: _Began, untouched: bool, done: int) -> None:
        """To where the trained part of the stream ends: where the iteration began, if nothing was trained since."""
        if untouched:
            self._stand(began.position)
            self._clock.drawn, self._backlog.owed = began.drawn, began.owed
            return
        self._saved_plan, self._plan = self.saved_plan(), None  # visited samples are left out, as after a restart
        self._stand(0)
        self._clock.go_back(done)
        self._backlog.go_back()
        self._count_owed()

    def _count_owed(self) -> None:
        owed = len(self._backlog.owed)
        self.scored = -owed if owed else max(0, self.scored)

    def _read_from(self, position: int) -> None:
        """The next index is the one at ``position`` of the plan."""
        self._position, self._reader, self._chunk = position, None, NOTHING

    def _stand(self, position: int) -> None:
        self._read_from(position)
        self.running, self._backlog.owed = None, []

    def _move_to(self, epoch: int) -> None:
        super()._move_to(epoch)
        self._read_from(0)
        self._backlog.late = None

    # ---- places and states ----

    def place(self, resume: Place | None, reached: Reached | None) -> dict[str, int]:
        """Plan, position in its order, and all indices that came before."""
        drawn = reached.position if reached is not None and self.is_running(reached.iteration) else self._clock.drawn
        return {"epoch": self.epoch, "position": max(0, self._position - (self._clock.drawn - drawn)), "drawn": drawn}

    def go_on_at(self, place: Place) -> None:
        """A loader that restores positions of its own. A pruner that was itself restored knows better."""
        if self._was_loaded:
            return
        with self.changing:
            if place.epoch != self.epoch:
                self._move_to(place.epoch)
            self._stand(place.position)
            self._clock.drawn = self._clock.done = place.drawn
            self._began = None

    def more_state(self) -> dict[str, Any]:
        """The clock of the losses, of all ranks, and what is on its way."""
        ids, weights = self._backlog.state()
        return {"done": self._clock.done * self.table.ranks.num_replicas, "late_ids": ids, "late_weights": weights}

    def check_more(self, state: dict[str, Any]) -> None:
        """Makes sure that the clock and the texts can be read."""
        check_int("state['done']", state["done"], 0)
        bytes_of = [len(bytes.fromhex(state[name])) for name in ("late_ids", "late_weights") if _is_hex(state[name])]
        if len(bytes_of) < 2 or bytes_of[0] % 8 or bytes_of[0] != 2 * bytes_of[1]:
            raise ValueError(
                "state['late_ids'] and state['late_weights'] do not belong together: the checkpoint is damaged, load another one"
            )

    def load(self, epoch: int, scored: int, planned: tuple[int, int], saved_plan: SavedPlan | None) -> None:
        """As in ``Epochs``; ``load_more`` follows."""
        super().load(epoch, scored, planned, saved_plan)
        self._stand(0)
        self._began = None
        self._clock.forget()
        self._backlog.forget()

    def load_more(self, state: dict[str, Any]) -> None:
        """A dynamic run has no clock: each of its epochs then counts as one of the trainer's."""
        of_epochs = (self.epoch + bool(state.get("is_over"))) * (self._clock.length or 0)
        self._clock.load(state["done"] // self.table.ranks.num_replicas if "done" in state else of_epochs)
        self._backlog.load(state.get("late_ids", ""), state.get("late_weights", ""))
        self._count_owed()


def _is_hex(text: str) -> bool:
    return len(text) % 2 == 0 and all(letter in "0123456789abcdef" for letter in text)
