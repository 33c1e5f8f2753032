"""examples/study/steps*.py: each method's steps and schedule are those that it is named after, and docs/steps.md adds up."""

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infobatch_fast import InfoBatch
from support.ranks import preload

for needed in ("sklearn", "tqdm", "matplotlib", "scipy"):
    pytest.importorskip(needed, reason="the study is an example, and needs the packages of the extra 'demo'")
preload("sklearn.datasets", "tqdm", "matplotlib.pyplot", "scipy.stats")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples" / "study"))
import steps  # noqa: E402
import steps_report  # noqa: E402
from steps import METHODS  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "study-steps.json"


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the program on few of the stand-in's images; returns what the file then holds."""
    small = {"epochs": 4, "batch_size": 50, "train_size": 200, "curve_size": 20, "sizes": {"model": "cnn", "widths": [4, 4]}}
    monkeypatch.setattr(steps, "CONFIG", replace(steps.CONFIG, **small))

    def run(*words: str) -> dict[str, Any]:
        path = tmp_path / "steps.json"
        monkeypatch.setattr(sys, "argv", ["steps.py", "--out", str(path), "--cache", str(tmp_path), *words])
        steps.main()
        return json.loads(path.read_text())  # type: ignore[no-any-return]

    return run


def test_every_method_is_run_once_and_a_command_that_is_repeated_adds_what_is_missing(call: Any) -> None:
    once = call("--seeds", "1", "--methods", "uniform-step-visits", "fewer")
    assert [run["method"] for run in once["runs"]] == ["uniform-step-visits", "fewer"]
    assert call("--seeds", "1", "--methods", "uniform-step-visits", "fewer") == once
    more = call("--seeds", "1")
    assert more["runs"][:2] == once["runs"]
    assert sorted(run["method"] for run in more["runs"]) == sorted(METHODS)
    assert [session["threads"] for session in more["sessions"]] == [1, 1]
    other = call("--seeds", "1", "--optimizer", "adamw", "--methods", "full")
    assert [(run["optimizer"], run["method"]) for run in other["runs"][-2:]] == [("sgd", "full"), ("adamw", "full")]
    assert other["runs"][-1]["metric"] != other["runs"][-2]["metric"]


def test_fewer_epochs_have_about_as_many_visits_as_a_run_that_skips_the_same_part() -> None:
    config = steps.CONFIG
    pruned = int(config.delta * config.epochs) - 1
    visits = config.epochs - pruned * steps.SAVED
    assert METHODS["fewer"].epochs(config) == pytest.approx(visits, abs=0.5)
    assert METHODS["fewer"].epochs(config) / config.epochs == pytest.approx(0.5, abs=0.02)
    assert METHODS["uniform-step-visits"].epochs(config) == METHODS["full"].epochs(config) == config.epochs


@pytest.mark.parametrize("name", ["uniform-epoch-epochs", "uniform-epoch-visits", "uniform-step-epochs", "uniform-step-visits"])
def test_a_method_has_the_steps_and_the_schedule_of_its_name(call: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights: list[float] = []
    shares: list[float] = []
    update = InfoBatch.update

    def noted(self: Any, index: Any, losses: Any) -> Any:
        weights.append(float(self.weights(index).mean()))
        return update(self, index, losses)

    monkeypatch.setattr("train.InfoBatch.update", noted)
    monkeypatch.setattr("train.set_rate", lambda optimizer, peak, warmup, share: shares.append(share))
    call("--seeds", "1", "--methods", name)
    assert len(weights) == len(shares) == 4 + 2 + 2 + 4, "steps of 50 samples: epochs of 200, of about 80 twice, and of 200"
    size = np.mean(weights[4:8])
    assert size == pytest.approx(1.0, abs=0.2) if "-step-" in name else size > 2
    assert weights[0] == weights[-1] == 1.0
    last = shares[-4]  # where the full epoch at the end begins
    assert last == 0.75 if name.endswith("epochs") else last == pytest.approx(1 - 200 / 560, abs=0.05)


def test_the_tables_of_the_page_are_those_of_the_committed_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "steps.md").read_text()
    document = tmp_path / "steps.md"
    document.write_text(page.replace(" % |", " |"))
    monkeypatch.setattr(sys, "argv", ["steps_report.py", str(RESULTS), "--document", str(document)])
    steps_report.main()
    assert document.read_text() == page


def gains(runs: list[dict[str, Any]], old: str, new: str) -> list[float]:
    ends = {(run["optimizer"], run["method"], run["seed"]): run["metric"][-1] for run in runs}
    pairs = [(ends.get((which, name.replace(old, new), seed)), end) for (which, name, seed), end in ends.items() if old in name]
    return [after - before for after, before in pairs if after is not None]


def test_the_pairs_of_runs_gained_what_the_page_says() -> None:
    runs = json.loads(RESULTS.read_text())["runs"]
    by_visits = gains(runs, "-epochs", "-visits")
    assert len(by_visits) == 21
    assert min(by_visits) > 0
    sgd = [run for run in runs if run["optimizer"] == "sgd" and METHODS[run["method"]].draw in ("uniform", "importance")]
    by_step = gains(sgd, "-epoch-", "-step-")
    assert len(by_step) == 12
    assert min(by_step) > 0.03


def test_differences_are_paired_and_leave_out_a_seed_that_a_method_lacks() -> None:
    def run(method: str, seed: int, accuracy: float) -> dict[str, Any]:
        return {"optimizer": "sgd", "method": method, "seed": seed, "metric": [0.0, accuracy], "visited": [100, 50]}

    accuracies = {"uniform-epoch-epochs": (0.5, 0.52, 0.9), "uniform-step-epochs": (0.6, 0.64), "fewer": (0.6, 0.63)}
    runs = [run(method, seed, value) for method, values in accuracies.items() for seed, value in enumerate(values)]
    results: dict[str, Any] = {"train_size": 100, "config": {"epochs": 2}, "runs": runs}
    before = copy.deepcopy(results)
    levels = steps_report.levels_table(results).split("\n")
    assert levels[2] == (
        "| sgd | `RandomPruning(0.6)` | epoch | epochs | 2 | 75 % | 51.00 ± 1.41 | **-10.50 (-16.85 to -4.15)** |"
    ), "12.71 standard errors of 0.5"
    assert levels[4] == "| sgd | full data, fewer epochs |  |  | 2 | 75 % | 61.50 ± 2.12 |  |"
    assert len(levels) == 5
    (changes,) = steps_report.changes_table(results).split("\n")[2:]
    assert changes == "| sgd, `RandomPruning(0.6)` | 2 | +11.00 (-1.71 to +23.71) |  |  |  |  |"
    assert results == before
