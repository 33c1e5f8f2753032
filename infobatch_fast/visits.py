"""Checks that a stream brings each sample once: workers count samples in shared memory, and the main process reads the counts."""

from __future__ import annotations

import torch
from torch.utils.data import get_worker_info

WORKERS = 4096  # more than a machine starts
LOOKED_AT = 1 << 24  # ids that a worker remembers, 2 MiB; of larger streams only every second or third id

CALL, CAME, TWICE = range(3)  # words of a worker


class Visits:
    """What the workers of a stream have seen.

    Args:
        num_samples: Samples whose ids the stream may bring.
    """

    def __init__(self, num_samples: int) -> None:
        self._num_samples = num_samples
        # Workers of the newest iteration; for each the number of the call of set_epoch whose epoch it has iterated to the end, the
        # samples that came until then, and those that came a second time in its newest iteration.
        self._words = torch.zeros(1 + 3 * WORKERS, dtype=torch.int64, device="cpu")
        self._words.share_memory_()  # type: ignore[no-untyped-call]

    def is_over(self, call: int) -> bool:
        """Whether this worker has iterated to the end since a call."""
        worker, _ = _place()
        return int(self._words[1 + 3 * worker + CALL]) == call

    def begin(self) -> Visit:
        """An iteration of this worker begins."""
        return Visit(self._words, self._num_samples)

    def problem(self, call: int, kept: int) -> str | None:
        """Says what went wrong in the iterations since a call that expected ``kept`` samples, or None. Resets all counts."""
        of_workers = self._words[1:].view(WORKERS, 3)
        twice = int(of_workers[:, TWICE].sum())
        of_workers[:, TWICE] = 0
        workers = max(1, int(self._words[0]))
        newest = of_workers[:workers]
        came = int(newest[newest[:, CALL] == call, CAME].sum())
        if twice:
            return (
                f"at least {twice} samples came twice from one worker: the stream brings them more than once, or different samples "
                "have the same id. Make each iteration bring each sample once, and make key= return a different id for each"
            )
        if came > kept:
            return (
                f"{workers} workers brought {came} samples, but {kept} were expected: they read the same samples, which are then "
                "trained on more than once. Split the stream among the workers by torch.utils.data.get_worker_info(), as "
                "docs/streams.md shows"
            )
        return None


class Visit:
    """An iteration in this process.

    Args:
        words: Those of all workers.
        num_samples: As for ``Visits``.
    """

    def __init__(self, words: torch.Tensor, num_samples: int) -> None:
        worker, workers = _place()
        self._all = words.numpy().data
        self._first = 1 + 3 * worker
        self._all[0], self._all[self._first + TWICE] = workers, 0
        self._count, self._step = 0, max(1, -(-num_samples // LOOKED_AT))
        self._came = bytearray(num_samples // self._step // 8 + 1)

    def add(self, place: int) -> None:
        """A sample came."""
        self._count += 1
        number, rest = divmod(place, self._step)
        if rest == 0:
            byte, bit = number >> 3, 1 << (number & 7)
            if self._came[byte] & bit:
                self._all[self._first + TWICE] += 1
            self._came[byte] |= bit

    def end(self, call: int) -> None:
        """The iteration has come to its end."""
        self._all[self._first + CAME], self._all[self._first + CALL] = self._count, call


def _place() -> tuple[int, int]:
    """This worker's number and how many there are; the main process counts as one."""
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)
