"""The benchmark itself, at sizes that take seconds: it runs, checks its answers, and its files can be shown and compared."""

import contextlib
import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from infobatch_fast import __main__ as command_line
from infobatch_fast import __version__
from infobatch_fast.bench import answers, operations, roster, suite, table, timing
from infobatch_fast.bench.contender import Ours, fill_all
from infobatch_fast.engine.ranks import Ranks
from support.runs import ARBITRARY

CPU = torch.device("cpu")
ROOT = next(folder for folder in Path(__file__).parents if (folder / "benchmarks").is_dir())
RESULTS = ROOT / "benchmarks/results"
needs_results = pytest.mark.skipif(not RESULTS.is_dir(), reason="a source distribution has no results")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The JSON file of a benchmark with two tiny sizes, each row in the fewest rounds."""
    path = tmp_path_factory.mktemp("bench") / "measured.json"
    with pytest.MonkeyPatch.context() as patch, path.with_suffix(".txt").open("w") as shown, contextlib.redirect_stdout(shown):
        patch.setattr(suite, "QUICK", timing.Effort(rounds=2, seconds=0.0, patience=0.0))
        patch.setattr(operations, "UPDATED", 1 << 13)
        assert command_line.main(["bench", "--sizes", "2e3,1e4", "--devices", "cpu", "--quick", "--out", str(path)]) == 0
    return path


def made(program, *arguments):
    """Runs a script of benchmarks/."""
    command = [sys.executable, str(ROOT / "benchmarks" / program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_each_row_has_times_ratios_and_floors(measured):
    document = json.loads(measured.read_text())
    assert document["versions"]["infobatch_fast"] == __version__
    assert document["command"].startswith("python -m infobatch_fast bench --sizes")
    assert [row["operation"] for row in document["rows"]] == [*operations.NAMES] * 2
    for row in document["rows"]:
        ours = row["contenders"]["infobatch_fast"]
        assert 0 < ours["seconds"]["low"] <= ours["seconds"]["median"] <= ours["seconds"]["high"]
        assert ours["ns"] > 0
        assert row["floor"]["median"] > 0
        assert ours["of_floor"]["median"] > 0
        assert all(figures["ratio"]["median"] > 0 for name, figures in row["contenders"].items() if name != "infobatch_fast")


def test_a_table_of_all_operations_is_printed_at_the_end(measured):
    lines = measured.with_suffix(".txt").read_text().splitlines()
    assert lines[0].startswith("infobatch_fast on cpu")
    document = json.loads(measured.read_text())
    for name in operations.NAMES:
        for size, shown in ((2000, "2e3"), (10_000, "1e4")):
            row = next(row for row in document["rows"] if (row["operation"], row["samples"]) == (name, size))
            (line,) = [line for line in lines if line.startswith(f"{name}  ") and line[len(name) :].split()[0] == shown]
            assert table.time_name(row["contenders"]["infobatch_fast"]["seconds"]["median"]) in line
            if name != "plan, importance":  # which nobody else has
                assert f"{row['contenders']['NumPy']['ratio']['median']:.3g}" in line.split()


@pytest.mark.slow
def test_report_makes_tables_and_a_plot_of_the_plan(measured, tmp_path):
    pytest.importorskip("matplotlib")
    assert made("report.py", measured, "--results", tmp_path).returncode == 0
    text = (tmp_path / "tables.md").read_text()
    for name in operations.NAMES:
        assert f"| {name} | 2e3 |" in text
        assert f"| {name} | 1e4 |" in text
    assert "vs published" in text
    (picture,) = tmp_path.glob("cpu_*_plan.png")
    assert f"]({picture.name})" in text


@pytest.mark.slow
@needs_results
def test_documents_hold_the_figures_of_the_committed_measurements(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    pages = {"speed.md": ROOT / "docs", "tables.md": RESULTS, "gpu.md": RESULTS, "scaling.md": ROOT / "docs"}
    for name in ("speed.md", "scaling.md"):
        shutil.copy(pages[name] / name, tmp_path)
    files = [*sorted(RESULTS.glob("bench-*.json")), *sorted(RESULTS.glob("training-*.json"))]
    gpus, into = sorted(RESULTS.glob("gpu-*.json")), ("--markdown", tmp_path / "gpu.md", "--speed", tmp_path / "speed.md")
    assert made("report.py", *files, "--gpus", *gpus, "--results", tmp_path, "--speed", tmp_path / "speed.md").returncode == 0
    assert made("gpu_tables.py", *gpus, *into).returncode == 0
    (scaling,) = RESULTS.glob("scaling-*.json")
    assert made("bench_scaling.py", "--markdown", scaling, "--page", tmp_path / "scaling.md").returncode == 0
    for name, folder in pages.items():
        assert (tmp_path / name).read_text() == (folder / name).read_text(), name


@needs_results
def test_tables_of_the_scaling_are_as_large_as_those_of_the_package(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from scaling_model import on_paper

    (committed,) = RESULTS.glob("scaling-*.json")
    rows, old_rows = on_paper()["memory"], json.loads(committed.read_text())["paper"]["memory"]
    for row, old in zip(rows, old_rows, strict=True):
        assert (row["n"], row["world"], row["slots"]) == (old["n"], old["world"], old["slots"])
        assert sum(row["bytes"].values()) == sum(old["bytes"].values())


@ARBITRARY
def test_a_rank_of_many_is_measured_and_its_order_checked(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from scaling_measured import measure, restart
    from scaling_model import OneOfMany

    _, figures = measure(12_800_000, OneOfMany(64, 37), 3)
    assert figures["slots"] == 200_000
    assert figures["checked"]["positions"] == 6
    pruner, figures = measure(3_000_000, Ranks(), 3)
    assert figures["update_seconds_per_sample"]["median"] > 0
    assert restart(pruner)["positions"] == len(pruner.sampler)


def test_compare_finds_what_is_slower_beyond_the_spread(measured, tmp_path, capsys):
    assert command_line.main(["bench", "--compare", str(measured), str(measured)]) == 0
    document = json.loads(measured.read_text())
    slowed = copy.deepcopy(document)
    row = next(row for row in slowed["rows"] if row["operation"] == "plan, mean" and row["samples"] == 10_000)
    for key in ("low", "median", "high"):
        row["contenders"]["infobatch_fast"]["seconds"][key] *= 1000
    other = tmp_path / "slowed.json"
    other.write_text(json.dumps(slowed))
    assert command_line.main(["bench", "--compare", str(measured), str(other)]) == 1
    assert "1 slower beyond the spread" in capsys.readouterr().out
    assert command_line.main(["bench", "--compare", str(other), str(measured)]) == 0


def test_info_names_versions_and_machine():
    shown = subprocess.run([sys.executable, "-m", "infobatch_fast", "info"], capture_output=True, text=True, check=True).stdout
    for word in (__version__, torch.__version__, "openmp", "cuda architectures", "threads"):
        assert word in shown


def test_a_wrong_answer_is_refused_before_it_is_timed():
    contender = Ours(5000, CPU)
    scores = fill_all([contender], 5000)
    answers.check_plan(contender, scores)
    ids = contender.tensor(5000)
    rarest = ids[scores[ids].argmax()]
    contender.tensor = lambda most: ids[ids != rarest]
    with pytest.raises(RuntimeError, match="a sample above the mean is missing"):
        answers.check_plan(contender, scores)
    del contender.tensor
    contender.weights = lambda ids: torch.ones(ids.numel())
    with pytest.raises(RuntimeError, match="weights are not the reciprocals"):
        answers.check_plan(contender, scores)


def test_an_installed_infobatch_package_takes_part(monkeypatch):
    class InfoBatch:
        def __init__(self, dataset, num_epochs, prune_ratio, delta):
            self.scores, self.weights = torch.ones(len(dataset)), torch.ones(len(dataset))

        @property
        def sampler(self):
            below = self.scores < self.scores.mean()
            drawn = np.random.default_rng(0).choice(below.nonzero().flatten().numpy(), int(below.sum()) // 2, replace=False)
            self.weights[:] = 1.0
            self.weights[torch.from_numpy(drawn)] = 2.0
            return torch.cat([(~below).nonzero().flatten(), torch.from_numpy(drawn)]).tolist()

        def set_active_indices(self, index):
            self.active = index

        def update(self, losses):
            self.scores[self.active] = losses
            return (losses * self.weights[self.active]).mean()

    monkeypatch.setitem(sys.modules, "infobatch", SimpleNamespace(InfoBatch=InfoBatch, __spec__=object()))
    contenders, _ = roster.fitting(2000, CPU)
    assert contenders[-1].name == "infobatch package"
    answers.check_plan(contenders[-1], fill_all(contenders, 2000))
    answers.check_update(contenders[-1])


@pytest.mark.slow
def test_report_fills_in_the_part_of_a_page_that_is_for_the_speed(measured, tmp_path):
    page = tmp_path / "speed.md"
    page.write_text("before\n<!-- speed:begin -->\nold\n<!-- speed:end -->\nafter\n")
    assert made("report.py", measured, "--speed", page).returncode == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- speed:begin -->\nTime on cpu")
    assert text.endswith("<!-- speed:end -->\nafter\n")
    assert "old" not in text
    page.write_text("no marks")
    assert "speed:begin" in made("report.py", measured, "--speed", page).stderr
    assert page.read_text() == "no marks"
