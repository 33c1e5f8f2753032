"""Two clocks of a run whose plans follow each other: what was drawn, and what came back."""

from __future__ import annotations

import math

from .lengths import Lengths


class Clock:
    """Counts indices of this rank, and with them the trainer's epochs, which are of constant length or never end.

    ``drawn`` is the same on all ranks. ``done`` decides where to go on after an iteration that was broken off, or after a restart:
    what was drawn and not trained on comes again.

    Args:
        lengths: How long an epoch of the trainer is.

    Attributes:
        length: Indices of an epoch of the trainer; None if it never ends.
        drawn: What iterations took.
        done: Losses that came back.
    """

    def __init__(self, lengths: Lengths) -> None:
        self.length = lengths.indices
        self._batch_size = lengths.batch_size or 1
        self.drawn = self.done = 0
        self._marked: int | None = None  # what set_epoch was called with
        self._done_when_marked = 0
        self._done_when_loaded: int | None = None
        self._was_cut = False  # the trainer's last epoch has missing steps
        self._spins = False  # after a restart, through past epochs

    @property
    def epoch(self) -> int | None:
        """The trainer's epoch of the next index; None if they never end."""
        return None if self.length is None else self.drawn // self.length

    @property
    def left(self) -> float:
        """Indices to draw in this epoch of the trainer."""
        return math.inf if self.length is None else self.length - self.drawn % self.length

    def mark(self, epoch: int) -> float | None:
        """The trainer begins another epoch, by its own count.

        If the previous epoch was broken off, its missing steps are left out. After a restart the trainer's first number stands for
        the epoch that was cut. Calls that run through other epochs without training have no effect.

        Returns:
            The fraction after which the epoch before was broken off; None if it was not.
        """
        ended_at = None
        moved_on = self._marked not in (None, epoch) and self.done > self._done_when_marked
        if moved_on and self.length is not None and self.done % self.length:
            ended_at = self.done % self.length / self.length
            self.done += -self.done % self.length
            self._was_cut = True
        self._spins = self.done == self._done_when_loaded
        if epoch != self._marked:
            self._marked, self._done_when_marked = epoch, self.done
        return ended_at

    def begin(self, runs: bool) -> bool:
        """An iteration begins; ``runs``: another one has not ended. Returns whether to go back to what was not trained on."""
        back = self._spins or self._was_cut or (runs and self.drawn != self.done)
        self._spins = self._was_cut = False
        return back

    def go_back(self, done: int) -> None:
        """Goes back to where ``done`` losses had come, rounded down to whole batches, as an epoch of constant length has them."""
        self.done = self.drawn = done - done % self._batch_size

    def align(self, unit: int) -> None:
        """An iteration begins whose elements hold ``unit`` indices. What a plain sampler drew beyond whole elements is undone."""
        excess = 0 if self.length is None else self.drawn % unit
        self.drawn -= excess
        self.done -= excess

    def forget(self) -> None:
        """Forgets what the trainer said."""
        self._marked, self._was_cut, self._spins = None, False, False

    def load(self, done: int) -> None:
        """Resumes from a checkpoint."""
        self.go_back(done)
        self._done_when_loaded = self._done_when_marked = self.done

    def begin_anew(self) -> None:
        """Nothing was loaded."""
        self._done_when_loaded = None
