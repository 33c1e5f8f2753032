"""Plans that follow each other inside an iteration, like passes over a data set: epochs of constant length, or without end."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from . import ops
from .checks import check_int
from .chunks import CHUNK, Chunk, Ids, read_chunks
from .epochs import LAST_EPOCH, Epochs, Place, SavedPlan
from .late import LateLosses, OnTheirWay, look_behind
from .lengths import Lengths
from .plan import Plan, Planner
from .schedule import Schedule

NOTHING: Ids = np.empty(0, dtype=np.int64)


class Flow(Epochs):
    """Plans that follow each other without a gap: the constant and the endless mode.

    Two clocks run in indices of this rank: ``drawn`` for what an iteration took, which is the same on all ranks, and ``done`` for
    the losses that came back. ``done`` decides where to go on after an iteration that was broken off, or after a restart: what
    was drawn and not trained on comes again, and first what the plan before still owes.

    Args:
        planner, schedule: As in ``Epochs``.
        lengths: How long an epoch of the trainer is. The schedule counts these, or, if they never end, plans.

    ``scored`` is negative while losses of the plan before are on their way.
    """

    def __init__(self, planner: Planner, schedule: Schedule, lengths: Lengths) -> None:
        super().__init__(planner, schedule)
        self._length = lengths.indices
        self._batch_size = lengths.batch_size or 1
        self.drawn = self.done = 0
        self.late: LateLosses | None = None  # of the plan before
        self._iteration: object | None = None  # the newest one, until it has come to its end
        self._began: tuple[Plan | None, int, int, int, list[int]] | None = None  # where it began
        self._marked: int | None = None  # what set_epoch was called with
        self._done_when_marked = self._done_when_loaded = 0
        self._was_cut = False  # the trainer's last epoch has missing steps
        self._spins = False  # after a restart, through past epochs
        self._position = 0  # in the plan, of the next index
        self._reader: Iterator[Chunk] | None = None
        self._chunk = NOTHING  # read and not yet drawn
        self._owed: list[int] = []  # of the plan before; they come first
        self._owes = False  # the ranks have yet to level what they owe
        self._shared: OnTheirWay | None = None  # what is on its way on all ranks, [ranks, k]
        self._loaded_late: tuple[str, str] | None = None

    # ---- the trainer's epochs ----

    def select(self, epoch: int, by_trainer: bool = True) -> None:
        """``set_epoch``: the trainer begins another epoch, by its own count. It neither selects nor drops a plan.

        If the one before was broken off, its missing steps are left out. After a restart the trainer's first number stands for
        the epoch that was cut, and passing through others without training means nothing.
        """
        epoch = check_int("epoch", epoch, 0, LAST_EPOCH)
        moved_on = self._marked not in (None, epoch) and self.done > self._done_when_marked
        if moved_on and self._length is not None and self.done % self._length:
            self.done += -self.done % self._length
            self._was_cut = True
        self._spins = self._was_loaded and self.done == self._done_when_loaded
        if epoch != self._marked:
            self._marked, self._done_when_marked = epoch, self.done

    def prunes_next(self) -> bool:
        """Whether a plan that begins here is a pruned one: by the trainer's epoch, which is that of the first index."""
        return self._schedule.prunes(self.epoch if self._length is None else self.drawn // self._length)

    def length(self) -> int:
        """Indices of an epoch of the trainer.

        Raises:
            TypeError: It has no end.
        """
        if self._length is None:
            raise TypeError(
                "the sampler has no length with steps_per_epoch=math.inf: count steps instead, or construct InfoBatch with "
                "steps_per_epoch=S"
            )
        return self._length

    def progress(self) -> float:
        """Fraction of the run that is done: by steps, or by plans where there is no end."""
        if self._length is None:
            return super().progress()
        return min(1.0, self.done / (self._length * self._schedule.num_epochs))

    # ---- an iteration ----

    def begin_iteration(self) -> tuple[object, float]:
        """An iterator starts: a token of it, and how many indices it will draw. After a cut it is the rest of the epoch."""
        if self._spins or self._was_cut or (self._iteration is not None and self.drawn != self.done):
            self._go_back()
        self._spins = self._was_cut = False
        self.plan()
        if self._owes:
            self._level()
        self._began = (self.plan_in_force, self._position, self.drawn, self.done, self._owed)
        self._iteration = object()
        return self._iteration, math.inf if self._length is None else self._length - self.drawn % self._length

    def draw(self, count: int) -> Ids:
        """The next indices, at most ``count`` of them and all of one plan, which is made here where the one before has ended."""
        if self._owed:
            owed, self._owed = self._owed[:count], self._owed[count:]
            self.drawn += len(owed)
            return np.array(owed)
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
        self.drawn += len(ids)
        return ids

    def is_running(self, iteration: object) -> bool:
        """Whether this is the newest iteration, and has not come to its end."""
        return iteration is self._iteration

    def end_iteration(self, iteration: object) -> None:
        """An iterator has drawn all of its indices."""
        if iteration is self._iteration:
            self._iteration = None

    def record(self, plan: Plan, index: torch.Tensor, scores: torch.Tensor, averaged: bool) -> torch.Tensor:
        """Records a batch under the plan in force; its weights, ``averaged``: divided by its size."""
        if self.late is None:
            weights = plan.recorder(index, scores, averaged)
        else:
            weights = self.late.record(plan, self._planner.table, index, scores)
            weights = weights * (1.0 / index.numel()) if averaged else weights
            if self.late.window <= 0:
                self.late = None
        self.scored += index.numel()
        self.done += index.numel()
        return weights

    def _go_back(self) -> None:
        """To where the trained part of the stream ends: where the iteration began, if nothing was trained since."""
        if self._began is None:
            return
        plan, position, drawn, done, owed = self._began
        if done == self.done and plan is self.plan_in_force:
            self._stand(position)
            self.drawn, self._owed = drawn, owed
            return
        self._saved_plan, self._plan = self.save(), None  # what of it was visited is left out, as after a restart
        self._stand(0)
        self.drawn = self.done
        if self.late is not None and self.late.count:
            self._owe(self.late.samples.last(self.late.count))
        self._owes = True

    def _stand(self, position: int) -> None:
        self._position, self._reader, self._chunk = position, None, NOTHING
        self._iteration, self._owed = None, []

    def _move_to(self, epoch: int) -> None:
        super()._move_to(epoch)
        self._position, self._reader, self._chunk = 0, None, NOTHING
        self.late = None

    # ---- what is on its way when a plan ends ----

    def _follow(self, before: Plan) -> Plan:
        """The plan of the next pass, made while losses of the one before are still on their way."""
        unscored = self.drawn - self.done
        late = None
        if unscored > 0:
            older = self.late.count if self.late is not None else 0
            samples, count = look_behind(before, self._planner.table, min(max(0, unscored - older), before.length))
            if self.late is not None and older:
                samples = self.late.samples.last(older).join(samples)
            late = LateLosses(samples, older + count) if older + count else None
        self._move_to(self.epoch + 1)
        plan = self.plan()
        self.late = late
        self.scored = -late.count if late is not None else 0
        # Losses that did not come and whose samples were visited all the same never will: a batch that was left out, for instance.
        self.done = self.drawn - (late.count if late is not None else 0)
        self._share()
        return plan

    def _owe(self, samples: OnTheirWay) -> None:
        """Samples of the plan before come again, and are weighted by it."""
        there = samples.ids >= 0
        samples = OnTheirWay(samples.ids[there], samples.weights[there])
        self._owed = samples.ids.tolist()
        self.late = LateLosses(samples, len(self._owed)) if self._owed else None
        self.scored = -len(self._owed) if self._owed else max(0, self.scored)

    def _level(self) -> None:
        """All ranks yield as many: one that owes fewer repeats some of its own."""
        self._owes = False
        missing = self._most(len(self._owed)) - len(self._owed)
        self._owed = self._owed + self.plan().order(0, missing).tolist()
        self._share()

    def _share(self) -> None:
        """Every rank learns what is on its way anywhere, so that one state dict can tell, and any number of ranks go on."""
        ranks, device = self._planner.ranks, self._planner.table.device
        self._loaded_late = None
        count = self.late.count if self.late is not None else 0
        longest = self._most(count)
        if longest == 0:
            self._shared = None
            return
        ids = torch.full((longest,), -1, dtype=torch.int64, device=device)
        weights = torch.ones(longest, device=device)
        if self.late is not None and count:
            ids[longest - count :], weights[longest - count :] = self.late.samples.last(count)
        self._shared = OnTheirWay(ranks.gather(ids), ranks.gather(weights))

    def _most(self, count: int) -> int:
        """The largest count of all ranks."""
        ranks = self._planner.ranks
        if ranks.num_replicas == 1:
            return count
        return int(ranks.gather(torch.tensor([count], device=self._planner.table.device)).max())

    # ---- state ----

    def place(self, drawn: int) -> dict[str, int]:
        """The state of a sampler that has yielded ``drawn`` indices in all."""
        return {"epoch": self.epoch, "position": max(0, self._position - (self.drawn - drawn)), "drawn": drawn}

    def go_on_at(self, place: Place) -> None:
        """A loader that restores positions of its own. A pruner that was itself restored knows better."""
        if self._was_loaded:
            return
        if place.epoch != self.epoch:
            self._move_to(check_int("state['epoch']", place.epoch, 0, LAST_EPOCH))
        self._stand(place.position)
        self.drawn = self.done = place.drawn
        self._began = None

    def late_state(self) -> tuple[str, str]:
        """Ids (int64) and weights (float32) of what is on its way on all ranks, in hexadecimal. Waits for the device.

        Texts and no tensors, as ``torch.distributed.checkpoint`` loads none that are longer than before; ``torch.load`` no bytes.
        """
        if self._loaded_late is not None:
            return self._loaded_late
        left = self.late.count if self.late is not None else 0
        if self._shared is None or left == 0:
            return "", ""
        ids, weights = (part[:, part.shape[1] - left :].flatten().cpu() for part in self._shared)
        return ids[ids >= 0].numpy().tobytes().hex(), weights[ids >= 0].numpy().tobytes().hex()

    def load(self, epoch: int, scored: int, planned: tuple[int, int], saved_plan: SavedPlan | None) -> None:
        """As in ``Epochs``; ``load_flow`` follows."""
        super().load(epoch, scored, planned, saved_plan)
        self._stand(0)
        self._marked = self._began = self._shared = self._loaded_late = None
        self._was_cut = self._spins = False

    def load_flow(self, done: int | None, late: tuple[str, str]) -> None:
        """The rest of a checkpoint. One of a dynamic run has no clock: each of its epochs then counts as one of the trainer's."""
        if done is None:
            done = self.epoch * (self._length or 0)
        self.done = self.drawn = self._done_when_loaded = self._done_when_marked = done - done % self._batch_size
        table = self._planner.table
        ids = torch.from_numpy(np.frombuffer(bytearray.fromhex(late[0]), dtype=np.int64))
        weights = torch.from_numpy(np.frombuffer(bytearray.fromhex(late[1]), dtype=np.float32))
        ids, weights = ids.to(table.device), weights.to(table.device)
        slots, _ = ops.look_up(table.shard, table.marks, torch.zeros_like(table.faults), ids)
        self._owe(OnTheirWay(torch.where(slots >= 0, ids, -1), weights))
        self._owes, self._loaded_late = True, late
