"""Times of several contenders, taken alternately, so that other load on the machine affects all of them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import torch


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    rounds: int  # times that each contender runs, at most
    seconds: float  # a contender that has taken this long skips the rounds after the third one
    patience: float  # a contender that has taken this long skips the rounds after the second one

    def is_over(self, turn: int, spent: float) -> bool:
        """Whether a contender that has spent this many seconds skips this round."""
        return (turn >= 3 and spent > self.seconds) or (turn >= 2 and spent > self.patience)


FULL = Effort(rounds=15, seconds=5.0, patience=30.0)
QUICK = Effort(rounds=5, seconds=0.5, patience=0.5)
WARM = 3  # if more rounds than this were measured, the first one was the warm-up, and is left out


@dataclass(frozen=True)
class Timed:
    """Something to time."""

    name: str
    run: Callable[[Any], object]  # what is timed; it gets what ``prepare`` returned
    prepare: Callable[[], Any] = lambda: None  # done before each run, outside of its time
    repeats: int = 1  # how often ``run`` does what is to be timed: its time is divided by this


@dataclass(frozen=True)
class Times:
    """Seconds of one contender, by round; a skipped round is missing."""

    seconds: dict[int, float]  # until the device was done
    host_seconds: dict[int, float]  # until the call came back: less where a GPU works on

    def spread(self) -> dict[str, Any]:
        """Median and quartiles of the seconds, and their number."""
        return spread(_warm(self.seconds))

    def ratio_to(self, other: Times) -> dict[str, Any]:
        """Median and quartiles of the ratio to ``other`` of the same round."""
        return spread(_warm({turn: time / other.seconds[turn] for turn, time in self.seconds.items() if turn in other.seconds}))


def _warm(values: dict[int, float]) -> list[float]:
    return [value for turn, value in values.items() if turn > 0 or len(values) <= WARM]


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, lower and upper quartile, and how many values there are; with fewer than four values their range."""
    if len(values) < 4:
        return {"median": median(values), "low": min(values), "high": max(values), "runs": len(values)}
    low, _, high = quantiles(values, n=4, method="inclusive")
    return {"median": median(values), "low": low, "high": high, "runs": len(values)}


def alternate(contenders: Sequence[Timed], effort: Effort, device: torch.device) -> dict[str, Times]:
    """Runs all contenders once a round, forwards and backwards in turn.

    Args:
        contenders: What to time, each with a name of its own.
        effort: How many rounds.
        device: If it is a GPU, each run waits for it.

    Returns:
        Times by name.
    """
    times = {contender.name: Times({}, {}) for contender in contenders}
    spent = dict.fromkeys(times, 0.0)
    for turn in range(effort.rounds):
        for contender in contenders if turn % 2 == 0 else reversed(contenders):
            name = contender.name
            if effort.is_over(turn, spent[name]):
                continue
            started = time.perf_counter()
            seconds, host_seconds = _once(contender, device)
            spent[name] += time.perf_counter() - started
            times[name].seconds[turn] = seconds / contender.repeats
            times[name].host_seconds[turn] = host_seconds / contender.repeats
    return times


def _once(contender: Timed, device: torch.device) -> tuple[float, float]:
    argument = contender.prepare()
    collects = gc.isenabled()
    gc.disable()
    try:
        wait_for(device)
        start = time.perf_counter()
        result = contender.run(argument)
        returned = time.perf_counter()
        wait_for(device)
        end = time.perf_counter()
    finally:
        if collects:
            gc.enable()
    del result, argument  # what it takes to free them is not part of the time
    return end - start, returned - start


def wait_for(device: torch.device) -> None:
    """Waits until a GPU has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
