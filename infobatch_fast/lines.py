"""What a line of a run's JSON lines must hold: a report may be asked for any file."""

from __future__ import annotations

import json
import reprlib
from typing import Any

LARGEST = 1 << 62  # of a count
MOST_SECONDS = 1e15
MOST_SCORE = 3.5e38  # float32
KINDS = ("start", "epoch")


def _refuse(name: str) -> None:
    raise ValueError(f"JSON has no {name}")


DECODER = json.JSONDecoder(parse_constant=_refuse)


def parse(text: bytes) -> dict[str, Any] | None:
    """A line as a dict; None if it is none, or was broken off."""
    try:
        line = DECODER.decode(text.decode())
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and line.get("kind") in KINDS else None


def check(line: dict[str, Any]) -> None:
    """Makes sure that a report can use the line.

    Raises:
        ValueError: It cannot; the message names the entry and its value.
    """
    if line["kind"] == "start":
        _check_start(line)
    else:
        _check_epoch(line)


def _require(fits: bool, name: str, what: str, line: dict[str, Any]) -> None:
    if not fits:
        got = reprlib.repr(line[name]) if name in line else "nothing"
        raise ValueError(f"{name!r} must be {what}, got {got}")


def _is_count(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_number(value: Any, least: float, most: float) -> bool:
    return type(value) in (int, float) and least <= value <= most  # NaN is in no range


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _check_epoch(line: dict[str, Any]) -> None:
    _require(_is_count(line.get("num_samples"), 1, LARGEST), "num_samples", "a positive integer", line)
    size = line["num_samples"]
    for name, most in (("epoch", 2**32 - 1), ("kept", size), ("seen", size), ("non_finite", LARGEST)):
        _require(_is_count(line.get(name), 0, most), name, f"an integer from 0 to {most}", line)
    _require(_is_number(line.get("saved_fraction"), 0, 1), "saved_fraction", "a number from 0 to 1", line)
    _require(_is_number(line.get("plan_seconds"), 0, MOST_SECONDS), "plan_seconds", "a number of seconds", line)
    seconds, resumed = line.get("seconds"), line.get("resumed", False)
    _require(seconds is None or _is_number(seconds, 0, MOST_SECONDS), "seconds", "a number of seconds, or null", line)
    noise = line.get("added_noise", 0.0)
    _require(_is_number(noise, 0, LARGEST), "added_noise", "a number of at least 0", line)
    _require(isinstance(resumed, bool), "resumed", "true or false", line)
    levels = line.get("thresholds")
    fits = isinstance(levels, list) and len(levels) <= 3
    fits = fits and all(level is None or _is_number(level, -MOST_SCORE, MOST_SCORE) for level in levels or ())
    _require(fits, "thresholds", "a list of at most three numbers or nulls", line)
    if "histogram" in line:
        _require(_is_histogram(line["histogram"]), "histogram", "counts and ascending edges, one edge more than counts", line)


def _is_histogram(histogram: Any) -> bool:
    counts, edges = (histogram.get(name) for name in ("counts", "edges")) if isinstance(histogram, dict) else (None, None)
    if not isinstance(counts, list) or not isinstance(edges, list) or not counts or len(edges) != len(counts) + 1:
        return False
    # By functions of C: there is such a list in every line.
    if set(map(type, counts)) != {int} or min(counts) < 0 or max(counts) > LARGEST // len(counts):
        return False
    if not set(map(type, edges)) <= {int, float} or edges != sorted(edges):
        return False
    return bool(-MOST_SCORE <= edges[0] < edges[-1] <= MOST_SCORE)


def _check_start(line: dict[str, Any]) -> None:
    for name in ("started", "command", "commit"):
        _require(_is_word(line.get(name)), name, "a text", line)
    for name in ("machine", "versions", "arguments"):
        of_name = line.get(name, {})
        fits = isinstance(of_name, dict) and all(_is_word(value) for key, value in of_name.items() if key != "gpus")
        _require(fits, name, "an object that holds texts and numbers by name", line)
    gpus = line.get("machine", {}).get("gpus", [])
    fits = isinstance(gpus, list) and all(isinstance(gpu, dict) and _is_word(gpu.get("name")) and "name" in gpu for gpu in gpus)
    _require(fits, "machine", "an object whose gpus all have names", line)
