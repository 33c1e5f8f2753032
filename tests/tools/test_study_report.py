"""The report of examples/study: its differences, its tables, and that the documents show the committed runs."""

import json
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from support.ranks import preload
from support.scripts import run_script

for needed in ("sklearn", "tqdm", "matplotlib", "scipy"):
    pytest.importorskip(needed, reason="the study is an example, and needs the packages of the extra 'demo'")
preload("matplotlib.pyplot", "scipy.stats")
ROOT = Path(__file__).parents[2]
STUDY = ROOT / "examples" / "study"
sys.path.insert(0, str(STUDY))
from intervals import difference  # noqa: E402
from methods import METHODS  # noqa: E402
from report import rows_of_steps, rows_to  # noqa: E402
from results import Series, by_method, read  # noqa: E402
from tables import change, costs, differences, levels, opponent, rates  # noqa: E402

RESULTS = sorted((ROOT / "benchmarks" / "results").glob("study-*.json"))
committed = pytest.mark.skipif(not RESULTS, reason="a source distribution has no results")


def series(accuracies: dict[str, tuple[float, ...]], visits: dict[str, int], rate: float = 1.0) -> Series:
    # The likelihood goes by the rate: so what is best by it is not what is best by accuracy.
    runs = [
        {
            **{"method": name, "seed": seed, "accuracy": value, "nll": NLL[name] * rate + seed / 100, "visits": visits[name]},
            **{"seconds": visits[name] / 10, "sampler": 0.5, "noise": 0.25},
        }
        for name, values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    return Series("digits", rate, by_method(runs), "s", "A note.")


NLL = {"full": -1.0, "fewer-50": 1.0, "uniform-50": -1.0}
VISITS = {"full": 200, "fewer-50": 100, "uniform-50": 100}


def test_intervals_are_those_of_a_paired_t_test() -> None:
    one = {seed: {"x": value} for seed, value in enumerate((3.0, 5.0, 10.0))}
    other = {seed: {"x": value} for seed, value in enumerate((2.0, 3.0, 7.0, 100.0))}
    found = difference(one, other, lambda run: run["x"])  # 1, 2, 3: mean 2, deviation 1, t(0.975, 2) = 4.3027
    assert found is not None
    assert (found.mean, found.pairs) == (2.0, 3)
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert not found.is_resolved
    same = difference({0: {"x": 1.0}, 1: {"x": 2.0}}, {0: {"x": 0.0}, 1: {"x": 1.0}}, lambda run: run["x"])
    assert same is not None
    assert not same.is_resolved, "two equal differences do not show that there is no spread"
    assert change(same, "accuracy") == "+1.00 (no interval)"


def test_a_method_is_compared_with_as_many_visits_in_full_epochs() -> None:
    assert [opponent(name) for name in ("uniform-50", "importance-70-biased", "infobatch", "uniform")] == [
        *("fewer-50", "fewer-70", "fewer", "fewer"),
    ]


def test_differences_are_paired_and_say_where_seeds_are_missing() -> None:
    one = series({"full": (60.0, 61.0, 62.0), "fewer-50": (50.0, 52.0, 54.0), "uniform-50": (51.0, 53.5)}, VISITS)
    rows = [("uniform", "uniform-50", "fewer-50"), ("fewer", "fewer-50", "full"), ("nothing", "infobatch", "full")]
    assert differences([one], rows, "accuracy").split("\n") == [
        "|  | digits, 3 seeds |",
        "|:--|--:|",
        "| uniform | +1.25 (-1.93 to +4.43), 2 seeds |",  # 12.706 standard errors of 0.25
        "| fewer | **-9.00 (-11.48 to -6.52)** |",  # 4.303 standard errors of 0.577
    ]


def test_all_that_was_measured_stands_in_a_row() -> None:
    one = series({"full": (60.0, 61.0), "fewer-50": (50.0, 52.0), "uniform-50": (51.0, 53.5)}, VISITS)
    rows = [line.split(" | ") for line in levels(one).split("\n")]
    assert len({len(row) for row in rows if not row[0].startswith("|:")}) == 1
    uniform = dict(zip(rows[0], rows[-1], strict=True))
    assert uniform["| samples"] == "| uniform pruning"
    assert uniform["visits"] == "50.0 %"
    assert uniform["accuracy, %"] == "52.25 ± 1.77"
    assert uniform["saved"] == "10.00"
    assert uniform["added noise |"] == "0.25 |"


def test_each_method_is_compared_at_its_best_rate() -> None:
    slow = series({"full": (60.0, 61.0), "fewer-50": (50.0, 52.0), "uniform-50": (61.0, 62.0, 9.0)}, VISITS, 0.5)
    normal = series({"full": (62.0, 63.0), "fewer-50": (58.0, 59.0), "uniform-50": (51.0, 54.0)}, VISITS)
    *_, full, fewer, uniform = rates([slow, normal], ["full", "fewer-50", "uniform-50"], "accuracy").split("\n")
    assert full.endswith("| x1 |  |")
    assert fewer.endswith("| x0.5 |  |")
    assert uniform.endswith("| x1 | +1.50 (-4.85 to +7.85) |"), "51 and 54 at x1 against 50 and 52 at x0.5"


def test_the_cost_side_has_what_was_saved_and_what_the_sampler_took() -> None:
    one = series({"full": (60.0,), "uniform-50": (50.0,)}, VISITS)
    assert costs([one], ["full", "uniform-50"]).split("\n")[2:] == [
        "| digits | full data | 100 % | 20.0 |  | 0.50 |",
        "| digits | uniform pruning | 50 % | 10.0 | 10.0 | 0.50 |",
    ]


def test_methods_of_a_row_have_equal_visits_and_a_change_is_one_change() -> None:
    for label, name, rival in rows_to(""):
        method, other = METHODS[name], METHODS[rival]
        assert other.draw == "all", label
        assert method.visits == other.visits, label
    assert {name for _, name, _ in rows_to("full")} >= {"fewer-50", "importance-70", "infobatch"}
    for label, new, old in rows_of_steps():
        one, other = METHODS[new], METHODS[old]
        changed = {name for name, value in vars(one).items() if value != vars(other)[name]}
        wanted = {"rescale"} if "full size, by" in label else {"by"} if "by visits," in label else {"rescale", "by"}
        assert changed == wanted, label
        assert (one.rescale, one.by) in (("step", other.by), (other.rescale, "visits"), ("step", "visits")), label


def run_report(folder: Path, *files: Path) -> None:
    words = ["--docs", str(folder), "--all", str(folder / "all.md")]
    done = run_script(STUDY / "report.py", *map(str, files), *words)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@committed
def test_the_documents_show_the_committed_runs(tmp_path: Path) -> None:
    pages = [ROOT / "docs" / "study.md", ROOT / "docs" / "steps.md"]
    for page in pages:
        shutil.copy(page, tmp_path)
    run_report(tmp_path, *RESULTS)
    for page in pages:
        assert (tmp_path / page.name).read_text() == page.read_text()
    assert (tmp_path / "all.md").read_text() == (ROOT / "benchmarks" / "results" / "study.md").read_text()
    for path in RESULTS:
        for one in read(path):
            if one.rate == 1:
                assert (tmp_path / "study" / f"{one.name}.png").stat().st_size > 10_000
                assert f"study/{one.name}.png" in pages[0].read_text()


def plain(text: str) -> str:
    """On one line, without the signs that a text may leave out."""
    return re.sub(r"[+-](?=\d)", "", " ".join(text.split()))


@committed
@pytest.mark.parametrize("name", ["docs/study.md", "docs/steps.md", "README.md"])
def test_every_interval_in_the_text_stands_in_a_table(name: str) -> None:
    marked = re.compile(r"<!-- study:\S+:begin -->.*?<!-- study:\S+:end -->", re.DOTALL)
    pages = [(ROOT / "docs" / page).read_text() for page in ("study.md", "steps.md")]
    tables = plain(
        (ROOT / "benchmarks" / "results" / "study.md").read_text()
        + "".join(match for page in pages for match in marked.findall(page))
    )
    prose = plain(marked.sub("", (ROOT / name).read_text()))
    quoted = re.findall(r"(\d+\.\d+)(?: points| nats| %)?[^.()\d]{0,40} \((\d+\.\d+ to \d+\.\d+)\)", prose)
    assert quoted
    assert not [quote for quote in quoted if f"{quote[0]} ({quote[1]})" not in tables]


def test_data_that_stands_in_is_told(tmp_path: Path) -> None:
    run: dict[str, Any] = {"method": "full", "seed": 0, "rate": 1.0, "accuracy": 0.5, "nll": 1.0, "visited": [10, 10]}
    run |= {"noise": [0.0, 0.0], "cpu": 1.0, "sampler": 0.1}
    session = {"commit": "0" * 40 + "+changes", "machine": {"cores": 2, "cpu": "X"}, "versions": {"python": "3", "torch": "2"}}
    optimizer = {"name": "sgd", "rate": 0.1}
    head: dict[str, Any] = {"data": "digits", "stand_in": True, "config": {"rates": [1.0], "epochs": 2, "batch_size": 5}}
    head["config"]["optimizer"] = optimizer
    rest = {"threads": 1, "train_size": 10, "test_size": 5, "sessions": [session], "runs": [run]}
    path = tmp_path / "study-cifar.json"
    path.write_text(json.dumps(head | rest))
    (one,) = read(path)
    assert one.note.startswith("**digits: nothing here says anything about the real data.** digits; 10 training")
    assert "Made at 0000000000 with changes, 1 thread(s)" in one.note
