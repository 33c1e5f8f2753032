"""A run's statistics as JSON lines, one line an epoch: written while it trains, and read for a report."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from datetime import datetime, timezone
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any

from .lines import check, parse
from .machine import provenance
from .pruner import InfoBatch

FORMAT = 1
_STRANGE = "not a line that infobatch_fast.logs.JsonLines writes; pass a file that it wrote, or remove the line"


class JsonLines:
    """Appends the statistics of each epoch to a file that ``python -m infobatch_fast report`` draws.

    The first line of each process describes the run and its machine; the other lines are epochs. An interrupted run continues in
    the same file. If it repeats epochs, their new lines replace the old ones when the file is read.

    Args:
        path: The file. The first ``write`` makes it, together with its folder.

    Example:
        >>> log = JsonLines("run.jsonl")               # doctest: +SKIP
        >>> log.write(pruner, accuracy=0.93)           # doctest: +SKIP
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._since = perf_counter()
        self._started = False

    def write(self, pruner: InfoBatch, **extra: Any) -> None:
        """Writes a line about the current epoch. Call it once an epoch, after the last step, on all ranks; rank 0 writes.

        Args:
            pruner: The pruner whose ``stats`` and ``histogram()`` are written.
            **extra: More values to write: numbers, strings, lists of them. ``seconds`` replaces the measured time, which starts at
                the previous line or, for the first line, at the construction of this object.

        Raises:
            ValueError: A name in ``extra`` is already a name in the line.
            TypeError: JSON has no form for a value in ``extra``.
            IndexError: As ``pruner.stats``; nothing is written then.
        """
        seconds = perf_counter() - self._since
        stats, (counts, edges) = pruner.stats, pruner.histogram()
        line = {
            "kind": "epoch",
            **dataclasses.asdict(stats),
            "resumed": pruner.engine.epochs.plan().restored,
            "seconds": seconds,
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "histogram": {"counts": counts.tolist(), "edges": edges.tolist()},
        }
        taken = sorted(line.keys() & extra.keys() - {"seconds"})
        if taken:
            raise ValueError(f"extra must not be named {', '.join(taken)}: the line already has these names; choose others")
        lines = [line | extra] if self._started else [_start(pruner), line | extra]
        text = "".join(json.dumps(_finite(entry), allow_nan=False, default=_plain) + "\n" for entry in lines)
        if pruner.rank == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                if file.tell() and not _ends_line(self.path):  # killed while it wrote
                    text = "\n" + text
                file.write(text.encode())
        self._started, self._since = True, perf_counter()


class NoRun(ValueError):
    """A file holds something other than a run's JSON lines."""


@dataclasses.dataclass(frozen=True)
class RunLog:
    """The contents of a file of JSON lines.

    Attributes:
        starts: The first lines of the processes that wrote it.
        epochs: One line for each epoch, ascending. If an epoch was written more than once, it is the last of its lines.
    """

    starts: list[dict[str, Any]]
    epochs: list[dict[str, Any]]


def read_run(path: str | PathLike[str]) -> RunLog:
    """Reads what ``JsonLines`` wrote. A line that was broken off when the run was killed is left out.

    Raises:
        OSError: The file cannot be read.
        NoRun: A ValueError: ``JsonLines`` did not write the file, or it holds no epoch.
    """
    starts: list[dict[str, Any]] = []
    epochs: list[dict[str, Any]] = []
    broken = None
    for number, text in enumerate(Path(path).read_bytes().split(b"\n"), 1):
        if not text:
            continue
        line = parse(text)
        if line is None and broken is None:
            broken = number
            continue
        # A process that was killed in mid-line wrote nothing after it; the next one begins with a line of its own.
        if line is None or (broken is not None and line.get("kind") != "start"):
            raise NoRun(f"{path}, line {broken or number}: {_STRANGE}")
        broken = None
        try:
            check(line)
        except ValueError as error:
            raise NoRun(f"{path}, line {number}: {error}; {_STRANGE}") from error
        if line["kind"] == "start":
            starts.append(line)
            continue
        while epochs and epochs[-1]["epoch"] >= line["epoch"]:
            epochs.pop()
        epochs.append(line)
    if not epochs and broken is not None:
        raise NoRun(f"{path}, line {broken}: {_STRANGE}")
    if not epochs:
        raise NoRun(f"{path}: the file has no line of an epoch; write it with infobatch_fast.logs.JsonLines(path).write(pruner)")
    return RunLog(starts, epochs)


def _start(pruner: InfoBatch) -> dict[str, Any]:
    names = ("num_samples", "seed", "shuffle", "shard", "drop_last", "num_replicas")
    arguments = {name: getattr(pruner, name) for name in names} | dataclasses.asdict(pruner.schedule)
    arguments |= {"policy": repr(pruner.policy), "lengths": repr(pruner.lengths), "device": str(pruner.device)}
    script = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    made_by = provenance([], script)  # without its arguments, which may hold what is secret
    return {"kind": "start", **made_by, "format": FORMAT, "arguments": arguments}


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def _finite(value: Any) -> Any:
    """``value`` with None in place of numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    """NumPy's and torch's scalars as Python's."""
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return _finite(value.item())
    raise TypeError(f"extra must hold numbers, strings and lists of them, got {value!r} of type {type(value).__name__}")
