"""examples/selection.py: run small, and the committed numbers as the documents show them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.ranks import preload
from support.scripts import run_script

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
preload("sklearn.cluster", "sklearn.datasets", "matplotlib.figure", "scipy.stats", "tqdm")

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "selection.py"
PNG = b"\x89PNG\r\n\x1a\n"
METHODS = [
    "full data",
    "random half",
    "hardest half by EL2N",
    "hardest half by forgetting",
    "k-means++ coreset",
    "full data, half the epochs",
    "InfoBatch",
]


def test_all_methods_but_full_data_visit_as_many_images(tmp_path: Path) -> None:
    picture, numbers = tmp_path / "new" / "selection.png", tmp_path / "selection.json"
    done = run_script(SCRIPT, "--epochs", "2", "--seeds", "2", "--out", str(picture), "--json", str(numbers))
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(PNG)
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[0].removeprefix("| ") for row in rows] == METHODS
    assert [row[3] for row in rows] == ["2,048"] + ["1,024"] * 6
    runs = json.loads(numbers.read_text())["runs"]
    assert sorted({(run["method"], run["seed"]) for run in runs}) == sorted((name, seed) for name in METHODS for seed in (0, 1))
    assert {len(run["visited"]) for run in runs} == {1, 2}


def test_the_page_shows_the_committed_numbers(tmp_path: Path) -> None:
    numbers = ROOT / "benchmarks" / "results" / "selection.json"
    done = run_script(SCRIPT, "--from-json", str(numbers), "--out", str(tmp_path / "selection.png"))
    assert done.returncode == 0, done.stderr
    page = (ROOT / "docs" / "selection.md").read_text()
    shown = page.partition("<!-- selection:begin -->\n")[2].partition("\n\n![")[0]
    assert shown == done.stdout.strip()


@pytest.mark.parametrize("arguments", [("--epochs", "3"), ("--epochs", "0"), ("--seeds", "1")])
def test_what_cannot_be_compared_is_refused(arguments: tuple[str, str]) -> None:
    done = run_script(SCRIPT, *arguments)
    assert done.returncode == 2
    assert "needs --epochs that is even and at least 2, and --seeds of at least 2" in done.stderr
