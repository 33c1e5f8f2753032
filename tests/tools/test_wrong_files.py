"""Files of another kind, or in the wrong place, are refused by name, and nothing is overwritten."""

import json
from pathlib import Path

import pytest

from infobatch_fast.__main__ import main
from support.scripts import run_script

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "benchmarks/results/bench-epyc-2-cores.json"
STUDY = ROOT / "examples/study"


def told(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in command])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_measurements_without_a_row_in_common_do_not_pass_as_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps(json.loads(BENCH.read_text()) | {"rows": []}))
    assert "no row in common" in told(capsys, "bench", "--compare", BENCH, other)


@pytest.mark.parametrize(
    ("text", "reason"), [("", "is not JSON"), ("[]", "holds no measurements"), ('{"a": 1}', "holds no measurements")]
)
def test_what_holds_no_measurements_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str) -> None:
    (tmp_path / "x.json").write_text(text)
    assert f"x.json {reason}" in told(capsys, "bench", "--compare", BENCH, tmp_path / "x.json")


@pytest.mark.parametrize("sizes", ["inf", "nan", "many", "10"])
def test_sizes_are_numbers(capsys: pytest.CaptureFixture[str], sizes: str) -> None:
    assert f"got '{sizes}'" in told(capsys, "bench", "--sizes", sizes)


def test_a_report_does_not_replace_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "run.html"
    log.write_text("{}\n")
    assert "is the log itself" in told(capsys, "report", log, "--out", log)
    assert log.read_text() == "{}\n"


def test_a_page_keeps_its_tables_where_a_file_holds_none(tmp_path: Path) -> None:
    page, foreign = tmp_path / "speed.md", tmp_path / "x.json"
    page.write_text((ROOT / "docs/speed.md").read_text())
    foreign.write_text('{"machine": {}}')
    done = run_script(ROOT / "benchmarks/report.py", str(foreign), "--speed", str(page))
    assert done.returncode == 2
    assert "x.json: no rows" in done.stderr
    assert page.read_text() == (ROOT / "docs/speed.md").read_text()


def test_the_studys_programs_do_not_write_into_each_others_files(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    out = tmp_path / "noise.json"
    out.write_text((ROOT / "benchmarks/results/noise-digits.json").read_text())
    before = json.loads(out.read_text())
    words = ["--epochs", str(before["config"]["epochs"]), "--threads", str(before["threads"]), "--out", str(out)]
    done = run_script(STUDY / "run.py", "--workload", "digits", *words, "--seeds", "1", "--cache", str(tmp_path))
    assert "another program of the study wrote it" in done.stderr
    assert done.returncode == 1
    assert json.loads(out.read_text()) == before


def test_no_samples_are_not_all_samples(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    for script in ("run.py", "noise.py"):
        out = tmp_path / "x.json"
        done = run_script(STUDY / script, "--workload", "digits", "--train-size", "0", "--out", str(out), "--cache", str(tmp_path))
        assert done.returncode == 2
        assert "--train-size" in done.stderr
        assert not out.exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--out", "x.foo"], "must end with .png, .pdf or .svg"),
        (["--json", "same.png"], "ends with .json"),
        (["--from-json", "missing.json"], "--from-json missing.json"),
    ],
)
def test_the_demo_checks_its_files_before_it_trains(words: list[str], reason: str) -> None:
    pytest.importorskip("sklearn")
    done = run_script(ROOT / "examples/digits.py", *words)
    assert done.returncode != 0
    assert reason in done.stderr
