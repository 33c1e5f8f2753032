"""What the files of run.py and fast.py hold, in one form."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from intervals import Runs
from methods import METHODS

TITLES = {  # of series, in the order of the tables
    "gpu-short": "CIFAR-10 on a GPU",
    "gpu-long": "CIFAR-10 on a GPU, long",
    "cifar": "CIFAR-10, reduced",
    "redundant": "redundant",
    "tail": "long tail",
    "digits": "digits",
    "text": "text",
}


@dataclass(frozen=True)
class Series:
    """Runs that differ in method and seed alone.

    Attributes:
        name: Of the workload, or "gpu-" and the setup.
        rate: Multiple of the peak learning rate.
        methods: By name, in the order of METHODS. A run has its ``accuracy`` in percent, ``nll`` in nats, ``visits`` (samples),
            ``seconds`` in training (of the processor on a CPU, where others may use it too) and of those in the ``sampler``, and
            ``noise``, the mean of ``stats.added_noise`` over the epochs that skipped something.
        seconds: What kind they are.
        note: What was trained, and where.
    """

    name: str
    rate: float
    methods: dict[str, Runs]
    seconds: str
    note: str

    @property
    def title(self) -> str:
        return TITLES.get(self.name, self.name)

    def visits(self, name: str) -> float:
        """Of a method, as a part of those of full training."""
        of_full, of_method = (mean(run["visits"] for run in self.methods[key].values()) for key in ("full", name))
        return of_method / of_full


def read_json(path: Path) -> dict[str, Any]:
    try:
        results = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path} holds no results: {error}. Give another file, or remove it") from None
    if not isinstance(results, dict) or not isinstance(results.get("runs"), list):
        raise SystemExit(f"{path} holds no results of a study: it has no list of runs. Give another file, or remove it")
    return results


def read(path: Path) -> list[Series]:
    """The series of a file, those at the workload's own learning rate first."""
    results = read_json(path)
    warning = f"**{results['data']}: nothing here says anything about the real data.** " if results["stand_in"] else ""
    found = []
    if "config" in results:
        name = path.stem.removeprefix("study-")
        for rate in results["config"]["rates"]:
            if methods := by_method([of_cpu(run) for run in results["runs"] if run["rate"] == rate]):
                found.append(Series(name, rate, methods, "processor s", warning + cpu_note(results)))
        return found
    for setup in dict.fromkeys(run["setup_name"] for run in results["runs"]):
        runs = [run for run in results["runs"] if run["setup_name"] == setup]
        note = warning + gpu_note(results, runs)
        found.append(Series(f"gpu-{setup}", 1.0, by_method([of_gpu(run) for run in runs]), "s", note))
    return found


def by_method(runs: list[dict[str, Any]]) -> dict[str, Runs]:
    methods = {name: {run["seed"]: run for run in runs if run["method"] == name} for name in METHODS}
    return {name: found for name, found in methods.items() if found}


def of_cpu(run: dict[str, Any]) -> dict[str, Any]:
    noise = [value for value in run["noise"] if value]
    return {
        "method": run["method"],
        "seed": run["seed"],
        "accuracy": 100 * run["accuracy"],
        "nll": run["nll"],
        "visits": sum(run["visited"]),
        "seconds": run["cpu"],
        "sampler": run["sampler"],
        "noise": mean(noise) if noise else 0.0,
    }


def of_gpu(run: dict[str, Any]) -> dict[str, Any]:
    return {
        "method": run["method"],
        "seed": run["seed"],
        "accuracy": 100 * run["accuracy"][-1],
        "nll": run["nll"][-1],
        "visits": sum(run["visited"]),
        "seconds": sum(run["seconds"]),
        "sampler": sum(run["sampler_seconds"]),
    }


def commits_of(sessions: list[dict[str, Any]]) -> str:
    commits = dict.fromkeys((session["commit"] or "unknown").partition("+")[::2] for session in sessions)
    return ", ".join(commit[:10] + (" with changes" if changes else "") for commit, changes in commits)


def cpu_note(results: dict[str, Any]) -> str:
    config, last = results["config"], results["sessions"][-1]
    machine, versions = last["machine"], last["versions"]
    return (
        f"{results['data']}; {results['train_size']:,} training and {results['test_size']:,} test samples, {config['epochs']} "
        f"epochs in full, batches of {config['batch_size']}, {config['optimizer']['name']}, peak learning rate "
        f"{config['optimizer']['rate']:g}. Made at {commits_of(results['sessions'])}, {results['threads']} thread(s) of "
        f"{machine['cores']} shared cores, {machine['cpu']}, Python {versions['python']}, torch {versions['torch']}."
    )


def gpu_note(results: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    setup, sessions = runs[0]["setup"], [results["sessions"][number] for number in sorted({run["session"] for run in runs})]
    gpus = dict.fromkeys(gpu["name"] for session in sessions for gpu in session["machine"]["gpus"])
    return (
        f"{results['data']}; {setup['epochs']} epochs in full, batches of {setup['batch']}, channels {setup['widths']}, peak "
        f"learning rate {setup['rate']:g}. Made at {commits_of(sessions)}, on {', '.join(gpus) or 'a CPU'}."
    )
