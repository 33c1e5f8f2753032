"""The benchmark itself, at sizes that take seconds: it runs, checks its answers, and its files can be shown and compared."""

import copy
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from infobatch_fast import __main__ as command_line
from infobatch_fast import __version__
from infobatch_fast.bench import answers, growth, memory, operations, parts, roster, suite, summary, timing
from infobatch_fast.bench.contender import Ours, fill_all, synthetic_scores

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The JSON file of a benchmark with two tiny sizes, each row in the fewest rounds."""
    path = tmp_path_factory.mktemp("bench") / "measured.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suite, "QUICK", timing.Effort(rounds=2, seconds=0.0, patience=0.0))
        patch.setattr("infobatch_fast.bench.operations.UPDATED", 1 << 13)
        assert command_line.main(["bench", "--sizes", "2e3,1e4", "--devices", "cpu", "--quick", "--out", str(path)]) == 0
    return path


def test_each_row_has_times_ratios_and_floors(measured):
    document = json.loads(measured.read_text())
    assert document["versions"]["infobatch_fast"] == __version__
    assert document["command"].startswith("python -m infobatch_fast bench --sizes")
    operations = {row["operation"] for row in document["rows"]}
    assert {"plan, mean", "order, one by one", "epoch, as a tensor", "update, B = 256", "state_dict, load"} <= operations
    for row in document["rows"]:
        ours = row["contenders"]["infobatch_fast"]
        assert 0 < ours["seconds"]["low"] <= ours["seconds"]["median"] <= ours["seconds"]["high"]
        assert ours["ns"] > 0
        assert ("of_floor" in ours) == (row["floor"] is not None)
        assert all(figures["ratio"]["median"] > 0 for name, figures in row["contenders"].items() if name != "infobatch_fast")


def test_report_makes_tables_and_pictures(measured, tmp_path):
    pytest.importorskip("matplotlib")
    tables, pictures = tmp_path / "tables.md", tmp_path / "plots"
    assert command_line.main(["bench", "--report", str(measured), "--markdown", str(tables), "--plots", str(pictures)]) == 0
    text = tables.read_text()
    assert "| plan, mean | 1e4 |" in text
    assert "vs published" in text
    assert {path.name.rsplit("_", 1)[1] for path in pictures.iterdir()} >= {"plan.png", "epoch.png", "update.png"}


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
    fill_all([contender], 5000)
    answers.check_plan(contender, synthetic_scores(0, 5000))
    contender.weights = lambda ids: torch.ones(ids.numel())
    with pytest.raises(RuntimeError, match="weights are not the reciprocals"):
        answers.check_plan(contender, synthetic_scores(0, 5000))


def test_parts_are_those_of_a_plan_of_the_scores_at_hand():
    ours = Ours(20_000, CPU)
    now = operations.Field(20_000, CPU, [ours], torch.rand(20_000), torch.arange(20_000 // 16))
    fill_all([ours], 20_000)
    ours.plan(next(operations.epoch_numbers))
    ours.restore(ours.state())
    ours.update(torch.arange(10_000), torch.rand(10_000) * 1e3)  # fewer lie below the mean than when the plan was made
    rows = parts.measure(now, timing.Effort(rounds=2, seconds=0.0, patience=0.0))
    assert {row["operation"].split(",")[0] for row in rows} == {"plan", "order", "update"}
    assert all(row["ns"] > 0 for row in rows)
    plan = ours.pruner._epochs.plan()
    assert not plan.restored
    assert plan.directory.build()[0] == plan.kept


def test_memory_is_measured_in_a_process_of_its_own():
    taken = memory.measure_apart("infobatch_fast", 1_000_000, CPU)
    assert 4e6 < taken["held_bytes"] <= taken["peak_bytes"]


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
    fill_all(contenders, 2000)
    answers.check_plan(contenders[-1], synthetic_scores(0, 2000))
    answers.check_update(contenders[-1])


def test_slope_is_the_exponent_of_growth():
    points = [(size, {"median": 3e-9 * size**1.5}) for size in (1e3, 1e4, 1e5)]
    assert growth.slope(points) == pytest.approx(1.5)
    assert growth.slope(points[:1]) is None


def test_report_fills_in_the_part_of_a_readme_that_is_for_the_speed(measured, tmp_path):
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- speed:begin -->\nold\n<!-- speed:end -->\nafter\n")
    assert command_line.main(["bench", "--report", str(measured), "--markdown", str(tmp_path / "t.md"), "--readme", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- speed:begin -->\nTime on cpu")
    assert text.endswith("<!-- speed:end -->\nafter\n")
    assert "old" not in text
    page.write_text("no marks")
    with pytest.raises(ValueError, match="speed:begin"):
        summary.insert([], page)
