"""Tables of paired differences, with their 95 % intervals and numbers of seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean

from intervals import Difference, Runs, difference, spread
from methods import METHODS
from results import Series

DIGITS = {"accuracy": 2, "nll": 4}
Row = tuple[str, str, str]  # a label, a method, and the one that it is compared with


def opponent(name: str) -> str:
    """Full epochs with as many visits."""
    visits = METHODS[name].visits
    return "fewer" if visits is None else f"fewer-{100 * visits:.0f}"


def change(found: Difference | None, value: str) -> str:
    """Bold where zero lies outside of the interval; empty where there is nothing to compare."""
    if found is None:
        return ""
    digits = DIGITS[value]
    middle = f"{round(found.mean, digits) + 0.0:+.{digits}f}"  # + 0.0: no negative zero
    if not found.has_interval:
        return f"{middle} (no interval)"
    low, high = found.mean - found.half_width, found.mean + found.half_width
    text = f"{middle} ({low:+.{digits}f} to {high:+.{digits}f})"
    return f"**{text}**" if found.is_resolved else text


def counted(seeds: int) -> str:
    return f"{seeds} seed{'s' * (seeds != 1)}"


def compare(one: Series, name: str, rival: str, value: str, other: Series | None = None) -> Difference | None:
    """``name`` minus ``rival``, which may come from another series with the same seeds."""
    return difference(one.methods.get(name, {}), (other or one).methods.get(rival, {}), lambda run: run[value])


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    rule = "|" + ":--|" * left + "--:|" * (len(titles) - left)
    return "\n".join([f"| {' | '.join(titles)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)])


def differences(series: Sequence[Series], rows: Sequence[Row], value: str) -> str:
    """One row a pair of methods, one column a series. Its seeds stand in the title, or in the cell where they are others."""
    seeds = [len(one.methods["full"]) for one in series]
    lines = []
    for label, name, rival in rows:
        found = [compare(one, name, rival, value) for one in series]
        notes = [f", {counted(d.pairs)}" if d and d.pairs != count else "" for d, count in zip(found, seeds, strict=True)]
        lines.append([label, *(change(d, value) + note for d, note in zip(found, notes, strict=True))])
    titles = [f"{one.title}, {counted(count)}" for one, count in zip(series, seeds, strict=True)]
    return markdown(["", *titles], [line for line in lines if any(line[1:])])


def levels(series: Series) -> str:
    """One row a method: all that was measured."""
    full, rows = series.methods["full"], []
    for name, runs in series.methods.items():
        method, rival = METHODS[name], opponent(name) if name != "full" and METHODS[name].draw != "all" else ""
        steps = (method.rescale, method.by) if method.draw != "all" else ("", "")
        cells = [method.title, *steps, str(len(runs)), f"{100 * series.visits(name):.1f} %"]
        for value in ("accuracy", "nll"):
            cells.append(level(runs, value))
            cells.append("" if name == "full" else change(compare(series, name, "full", value), value))
            cells.append(change(compare(series, name, rival, value), value))
        saved = difference(full, runs, lambda run: run["seconds"])
        seconds, sampler = (mean(run[key] for run in runs.values()) for key in ("seconds", "sampler"))
        noise = mean(run.get("noise", 0.0) for run in runs.values()) if method.weighted else 0.0
        cells += [f"{seconds:.2f}", f"{saved.mean if saved else math.nan:.2f}", f"{sampler:.3f}", f"{noise:.2f}" if noise else ""]
        rows.append(cells)
    titles = ["samples", "`rescale`", "`by`", "seeds", "visits"]
    for name in ("accuracy, %", "likelihood, nats"):
        titles += [name, "to full data", "to fewer epochs"]
    return markdown([*titles, series.seconds, "saved", "in the sampler", "added noise"], rows, left=3)


def level(runs: Runs, value: str) -> str:
    values = [run[value] for run in runs.values()]
    sigma = f" ± {spread(values):.{DIGITS[value]}f}" if len(values) > 1 else ""
    return f"{mean(values):.{DIGITS[value]}f}{sigma}"


def rates(series: Sequence[Series], names: Sequence[str], value: str) -> str:
    """One row a method, one column a learning rate, and each method at its best rate against fewer epochs at theirs.

    ``series`` are those of one workload. The best rate is that with the least mean likelihood, over the seeds that a method has
    at all rates.
    """

    def best(name: str) -> Series:
        seeds = set.intersection(*(set(one.methods.get(name, {})) for one in series))
        return min(series, key=lambda one: mean(one.methods[name][seed]["nll"] for seed in seeds))

    rows = []
    for name in names:
        method, rival = METHODS[name], opponent(name)
        steps = f", {method.rescale}, {method.by}" if method.draw != "all" else ""
        cells = [level(one.methods[name], value) for one in series]
        at_best = None if method.draw == "all" else compare(best(name), name, rival, value, best(rival))
        rows.append([f"{method.title}{steps}", *cells, f"x{best(name).rate:g}", change(at_best, value)])
    titles = [f"x{one.rate:g}, {counted(min(len(one.methods[name]) for name in names))}" for one in series]
    return markdown(["samples, `rescale`, `by`", *titles, "best", "each at its best: to fewer epochs"], rows)


def costs(series: Sequence[Series], names: Sequence[str]) -> str:
    """Seconds saved and seconds spent, a run."""
    rows = []
    for one, name in ((one, name) for one in series for name in names if name in one.methods):
        runs = one.methods[name]
        saved = difference(one.methods["full"], runs, lambda run: run["seconds"])
        seconds, sampler = (mean(run[key] for run in runs.values()) for key in ("seconds", "sampler"))
        cells = [f"{100 * one.visits(name):.0f} %", f"{seconds:.1f}", f"{saved.mean:.1f}" if saved and name != "full" else ""]
        rows.append([one.title, METHODS[name].title, *cells, f"{sampler:.2f}"])
    return markdown(["workload", "samples", "visits", "s a run", "s saved", "s in the sampler"], rows, left=2)
