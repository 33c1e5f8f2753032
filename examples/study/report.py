"""Makes tables and pictures from the files of run.py, and puts the tables between their markers into docs/study.md.

python examples/study/report.py benchmarks/results/lossless-*.json
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

from config import METHODS
from intervals import Difference, Runs, difference, quantile, spread
from plots import draw
from saving import saving_table

Value = Callable[[dict[str, Any]], float]


def by_method(results: dict[str, Any], optimizer: str) -> dict[str, Runs]:
    methods: dict[str, Runs] = {}
    for method in METHODS:
        runs = {run["seed"]: run for run in results["runs"] if run["method"] == method and run["optimizer"] == optimizer}
        if runs:
            methods[method] = runs
    return methods


class Metric:
    """How a workload's metric is written: accuracy in percent, or bits a byte."""

    def __init__(self, workload: str) -> None:
        self.is_text = workload == "text"
        self.scale, self.digits = (1.0, 4) if self.is_text else (100.0, 2)
        self.name = "validation loss, bits a byte (less is better)" if self.is_text else "test accuracy, %"
        self.unit = "bits a byte" if self.is_text else "points"

    def value(self, run: dict[str, Any]) -> float:
        return self.scale * run["metric"][-1]

    def level(self, runs: Runs) -> str:
        values = [self.value(run) for run in runs.values()]
        sigma = f" ± {spread(values):.{self.digits}f}" if len(values) > 1 else ""
        return f"{mean(values):.{self.digits}f}{sigma}"

    def change(self, found: Difference | None) -> str:
        if found is None:
            return "-"
        text = f"{round(found.mean, self.digits) + 0.0:+.{self.digits}f}"  # + 0.0: no negative zero
        if not found.has_interval:
            return f"{text} ({'one seed' if found.pairs == 1 else 'the same for each seed'}: no interval)"
        low, high = found.mean - found.half_width, found.mean + found.half_width
        return f"{text} ({low:+.{self.digits}f} to {high:+.{self.digits}f})"


def total(name: str) -> Value:
    return lambda run: sum(run[name])


def average(runs: Runs, value: Value) -> float:
    return mean(value(run) for run in runs.values())


def methods_table(methods: dict[str, Runs], metric: Metric, budget: int) -> list[str]:
    """One row a method. ``budget`` is the number of samples that full training visits."""
    lines = [
        f"| method | seeds | {metric.name} | difference to full (95 % interval) | samples visited | saved | "
        "processor s | saved s | wall s | sampler s (share of wall) |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    full = methods.get("full", {})
    for method, runs in methods.items():
        visited, wall, cpu, sampler = (average(runs, total(name)) for name in ("visited", "wall", "cpu", "sampler"))
        change = "" if method == "full" else metric.change(difference(runs, full, metric.value))
        won = difference(full, runs, total("cpu"))
        lines.append(
            f"| {METHODS[method]} | {len(runs)} | {metric.level(runs)} | {change} | {visited:,.0f} | "
            f"{100 * (1 - visited / budget):.1f} % | {cpu:.1f} | {won.mean if won else math.nan:.1f} | {wall:.1f} | "
            f"{sampler:.2f} ({100 * sampler / wall:.1f} %) |"
        )
    return lines


def pairs_table(methods: dict[str, Runs], metric: Metric) -> list[str]:
    """Equal work with another choice of samples: does looking at the losses help?"""
    pairs = [("infobatch", "random"), ("infobatch", "fewer"), ("random", "fewer"), ("tiers", "infobatch")]
    lines = [f"| compared, paired by seed | difference in {metric.unit} (95 % interval) | resolved from zero |", "|:--|--:|:--|"]
    for one, other in pairs:
        if found := difference(methods.get(one, {}), methods.get(other, {}), metric.value):
            resolved = "yes" if found.is_resolved else "no"
            lines.append(f"| {METHODS[one]} minus {METHODS[other]} | {metric.change(found)} | {resolved} |")
    return lines if len(lines) > 2 else []


def losses_table(runs: Runs, ratio: float, epochs: int) -> list[str]:
    """Of InfoBatch: the known losses when an epoch was planned, and what that epoch saved; means over the seeds."""
    lines = [
        "| InfoBatch, epoch | mean loss | median / mean | skewness | below the mean | r x below | saved |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    pruned = [epoch for epoch in range(epochs) if all(run["saved"][epoch] > 0 for run in runs.values())]
    shown = sorted({pruned[round(part * (len(pruned) - 1) / 5)] for part in range(6)}) if pruned else []
    for epoch in shown:
        scores = [run["scores"][epoch] for run in runs.values()]
        loss, skewness, below = (mean(s[name] for s in scores) for name in ("mean", "skewness", "below_mean"))
        median, saved = mean(s["median"] / s["mean"] for s in scores), mean(run["saved"][epoch] for run in runs.values())
        lines.append(
            f"| {epoch} | {loss:.3g} | {median:.2f} | {skewness:.1f} | {100 * below:.1f} % | {100 * ratio * below:.1f} % | "
            f"{100 * saved:.1f} % |"
        )
    return lines if shown else []


def seeds_note(methods: dict[str, Runs], metric: Metric) -> str:
    """Plain words on what so few runs can tell."""
    pairs = min(len(runs) for runs in methods.values())
    if pairs < 2:
        return "One seed tells nothing about the spread: no difference here is resolved."
    widths = [found.half_width for name in methods if (found := difference(methods[name], methods.get("full", {}), metric.value))]
    return (
        f"Differences are paired by seed; with {pairs} pairs half an interval is {quantile(pairs):.2f} standard errors wide, "
        f"here up to {max(widths):.{metric.digits}f} {metric.unit}: smaller differences to full training may exist and would not "
        "be seen. ± is the standard deviation over the seeds. The intervals are not corrected for how many of them there are."
    )


def made_by_note(results: dict[str, Any]) -> str:
    sessions = results["sessions"]
    last = sessions[-1]
    machine, versions = last["machine"], last["versions"]
    commits = dict.fromkeys((s["commit"] or "unknown").replace("+changes", " with changes") for s in sessions)
    commit = ", ".join(c[:10] + c[40:] for c in commits)
    gpus = "".join(f", {gpu['name']}" for gpu in machine["gpus"])
    interrupted = sum(run["interruptions"] for run in results["runs"])
    resumed = f" Runs that were interrupted and went on: {interrupted}." if interrupted else ""
    settings = ", steps of full size" if results["config"].get("rescale") == "step" else ""  # older files do not say
    settings += ", learning rate by visits" if results["config"].get("by") == "visits" else ""
    return (
        f"Data: {results['data']}; {results['train_size']:,} training and {results['test_size']:,} test samples, "
        f"{results['config']['epochs']} epochs{settings}. Made at commit {commit}, {results['threads']} thread(s) of "
        f"{machine['cores']} shared cores, {machine['cpu']}{gpus}, Python {versions['python']}, torch {versions['torch']}.{resumed}"
    )


def section(results: dict[str, Any], picture: str) -> str:
    """The Markdown between the markers."""
    metric, config = Metric(results["workload"]), results["config"]
    parts = [f"**{results['data']}: nothing here says anything about the real data.**"] if results["stand_in"] else []
    for choice in config["optimizers"]:
        methods = by_method(results, choice["name"])
        if not methods:
            continue
        if len(config["optimizers"]) > 1:
            parts.append(f"{choice['name']}, peak learning rate {choice['rate']:g}:")
        parts.append("\n".join(methods_table(methods, metric, config["epochs"] * results["train_size"])))
        parts.append("\n".join(pairs_table(methods, metric)))
        if len(config["optimizers"]) == 1:
            parts.append(seeds_note(methods, metric))
            parts.append("\n".join(losses_table(methods.get("infobatch", {}), config["prune_ratio"], config["epochs"])))
    parts += [made_by_note(results), f"![{Path(picture).stem}]({picture})" if picture else ""]
    return "\n\n".join(part for part in parts if part)


def fill(document: str, name: str, text: str) -> str:
    """``document`` with ``text`` between the markers of ``name``."""
    pattern = re.compile(rf"(<!-- study:{re.escape(name)}:begin -->\n).*?(<!-- study:{re.escape(name)}:end -->)", re.DOTALL)
    if not pattern.search(document):
        raise SystemExit(f"the document has no markers <!-- study:{name}:begin --> and <!-- study:{name}:end -->: add them")
    return pattern.sub(lambda match: f"{match[1]}{text}\n{match[2]}", document)


def main() -> None:
    parser = argparse.ArgumentParser(description="Tables and pictures from the files of run.py.")
    parser.add_argument("files", type=Path, nargs="+", help="lossless-NAME.json: its table goes between the markers of NAME")
    parser.add_argument("--document", type=Path, default=Path("docs/study.md"))
    parser.add_argument("--pictures", type=Path, default=Path("docs/study"), help="folder for the PNG files")
    args = parser.parse_args()

    document = args.document.read_text()
    files = {path.stem.removeprefix("lossless-"): json.loads(path.read_text()) for path in args.files}
    for name, results in files.items():
        picture = ""
        if len(results["config"]["optimizers"]) == 1:
            target = args.pictures / f"{name}.png"
            methods = by_method(results, results["config"]["optimizers"][0]["name"])
            draw(results, methods, f"{results['data']}: {max(len(runs) for runs in methods.values())} seeds", target)
            picture = f"{args.pictures.name}/{target.name}"
            print(f"picture: {target}", file=sys.stderr)
        document = fill(document, name, section(results, picture))
    document = fill(document, "saving", saving_table(files))
    args.document.write_text(document)
    print(f"tables: {args.document}", file=sys.stderr)


if __name__ == "__main__":
    main()
