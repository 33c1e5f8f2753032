"""The report of a file that is damaged, hostile or long: an error that names the line, or a picture in little time."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from infobatch_fast import __main__ as command_line
from infobatch_fast.logs import NoRun, read_run

START: dict[str, Any] = {"kind": "start", "format": 1, "machine": {"cpu": "x", "gpus": []}, "versions": {}, "arguments": {}}
BINS = {"counts": [10, 80, 10], "edges": [0.1, 0.5, 1.0, 3.0]}


def epoch(number: int, **change: Any) -> dict[str, Any]:
    line = {"kind": "epoch", "epoch": number, "num_samples": 100, "kept": 70, "saved_fraction": 0.3, "thresholds": [0.5]}
    line |= {"seen": 100, "non_finite": 0, "plan_seconds": 0.001, "seconds": 1.5, "resumed": False, "histogram": BINS}
    return line | change


DEEP = "[" * 100_000 + "]" * 100_000
WRONG: dict[str, list[Any]] = {
    "epoch": [None, -1, 1.5, "1", True, 10**30, [1]],
    "num_samples": [None, 0, -5, "100", 10**400],
    "kept": [None, -1, 101, 70.0, {}],
    "seen": [None, 101],
    "non_finite": [None, -1],
    "saved_fraction": [None, 2, "0.3"],
    "plan_seconds": [None, -1, 1e300],
    "seconds": [-1, "long", 1e300, [1.0]],
    "resumed": [None, "no"],
    "thresholds": [None, 0.5, ["a"], [0.1, 0.2, 0.3, 0.4], [1e300], [[0.5]]],
    "histogram": [
        None,
        [],
        {},
        {"counts": [1, 2], "edges": [0.0, 1.0]},
        {"counts": [], "edges": [0.0]},
        {"counts": [-1], "edges": [0.0, 1.0]},
        {"counts": ["1"], "edges": [0.0, 1.0]},
        {"counts": [1, 1], "edges": [0.0, 2.0, 1.0]},
        {"counts": [1], "edges": [1.0, 1.0]},
        {"counts": [1], "edges": [None, 1.0]},
        {"counts": [1], "edges": [0.0, 1e300]},
    ],
}
WRONG_STARTS: dict[str, list[Any]] = {
    "machine": [None, [], {"gpus": 3}, {"gpus": [{}]}, {"gpus": ["x"]}, {"cpu": {"a": 1}}],
    "versions": [None, "x", {"torch": {}}],
    "arguments": [[1], {"seed": [[]]}],
    "command": [["x"]],
}
RAW = {
    "NaN": json.dumps(epoch(1)).replace("1.5", "NaN").encode(),
    "infinity": json.dumps(epoch(1)).replace("1.5", "-Infinity").encode(),
    "deep": json.dumps(epoch(1, more=0)).replace('"more": 0', f'"more": {DEEP}').encode(),
    "digits": json.dumps(epoch(1)).replace("100", "9" * 10_000).encode(),
    "binary": bytes(range(256)).replace(b"\n", b""),
    "zeros": bytes(1000),
    "text": b"epoch 1: loss 0.3",
    "number": b"17",
    "list": b"[1, 2]",
    "other": b'{"loss": 0.3}',
    "utf16": json.dumps(epoch(1)).encode("utf-16"),
    "missing": b'{"kind": "epoch"}',
}


def report(path: Path, suffix: str = "png") -> int:
    return command_line.main(["report", str(path), "-o", str(path.parent / f"report.{suffix}")])


def written(folder: Path, *lines: dict[str, Any]) -> Path:
    path = folder / "run.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def refused(path: Path, number: int, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(NoRun, match=f"{path.name}, line {number}: "):
        read_run(path)
    with pytest.raises(SystemExit) as raised:
        report(path)
    assert raised.value.code == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    return shown


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values], ids=lambda x: str(x)[:30]
)
def test_a_line_with_a_wrong_value_is_named_with_its_entry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: Any
) -> None:
    path = written(tmp_path, START, epoch(0), epoch(1, **{name: value}), epoch(2))
    assert f"{name!r} must be" in refused(path, 3, capsys)


@pytest.mark.parametrize(
    "name", ["epoch", "num_samples", "kept", "seen", "non_finite", "saved_fraction", "plan_seconds", "thresholds"]
)
def test_a_line_that_lacks_an_entry_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    line = epoch(1)
    del line[name]
    path = written(tmp_path, START, epoch(0), line, epoch(2))
    assert "got nothing" in refused(path, 3, capsys)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG_STARTS.items() for value in values], ids=lambda x: str(x)[:30]
)
def test_a_first_line_with_a_wrong_value_is_named_with_its_entry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: Any
) -> None:
    path = written(tmp_path, START | {name: value}, epoch(0))
    assert f"{name!r} must be" in refused(path, 1, capsys)


@pytest.mark.parametrize("name", RAW)
def test_what_is_no_line_of_a_run_is_named_by_its_number(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path, whole = tmp_path / "run.jsonl", json.dumps(epoch(0)).encode()
    path.write_bytes(b"\n".join((json.dumps(START).encode(), whole, RAW[name], whole)) + b"\n")
    refused(path, 3, capsys)
    path.write_bytes(RAW[name])
    refused(path, 1, capsys)


def test_a_folder_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        report(tmp_path)
    assert "Is a directory" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"kept": 0, "saved_fraction": 1.0},
        {"seconds": 0},
        {"seconds": None, "thresholds": []},
        {"thresholds": [None, None, None]},
        {"histogram": {"counts": [0], "edges": [0, 1]}},
        {"histogram": {"counts": [1, 0], "edges": [-3e38, 0.0, 3e38]}},
        {"histogram": {"counts": [1, 1, 1], "edges": [0.0, 1e-45, 1e-45, 1.0]}},
        {"num_samples": 2**40, "kept": 2**40, "non_finite": 2**40, "seconds": 1e14},
        {"epoch": 2**32 - 1, "seconds": 1e-300},
    ],
    ids=str,
)
def test_what_is_extreme_and_possible_is_drawn(tmp_path: Path, change: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "run.jsonl"
    start = START | {"command": "\ud800 & <b>", "machine": {"gpus": [{"name": None}]}}
    path.write_text("".join(json.dumps(line) + "\n" for line in (start, epoch(0), epoch(1, **change))))
    assert report(path, "html") == 0
    path.write_text(json.dumps(epoch(1, **change)) + "\n")
    assert report(path) == 0


@pytest.mark.slow
def test_a_long_run_is_drawn_in_little_time_and_its_page_stays_small(tmp_path: Path) -> None:
    """10,000 epochs: 60 s where the work grew with the square of their number. 100,000 take ten times as long as these."""
    pytest.importorskip("matplotlib")
    path = tmp_path / "run.jsonl"
    counts = {"counts": [10] * 64, "edges": [0.01 * 1.1**edge for edge in range(65)]}
    with path.open("w") as file:
        for number in range(10_000):
            kept = 100 if number % 9 == 0 else 60 + number % 20
            file.write(json.dumps(epoch(number, kept=kept, thresholds=[0.5, 1.0], histogram=counts)) + "\n")
    start = time.process_time()
    assert report(path, "html") == 0
    assert time.process_time() - start < 20  # 2 s where nothing else runs
    page = (tmp_path / "report.html").read_text()
    assert page.count("<tr>") == 2001
    assert "The table has 2,000 of 10,000 epochs" in page
    assert "<td>9999</td>" in page
