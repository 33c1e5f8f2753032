"""The report command: numbers that follow from the lines, a picture, a page, and errors in words."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from infobatch_fast import NoPruning, QuantileTiers, RandomPruning
from infobatch_fast import __main__ as command_line
from infobatch_fast.logs import JsonLines
from infobatch_fast.report import savings
from support.runs import pruner_of, train

CPU = torch.device("cpu")
PNG = b"\x89PNG\r\n\x1a\n"


def line(epoch: int, kept: int, seconds: float | None = None, **more: Any) -> dict[str, Any]:
    return {"epoch": epoch, "num_samples": 100, "kept": kept, "seconds": seconds, "non_finite": 0, **more}


def write_run(path: Path, epochs: int = 4, **kwargs: Any) -> Path:
    pruner, log = pruner_of(CPU, **kwargs), JsonLines(path)
    for epoch in range(epochs):
        pruner.set_epoch(epoch)
        train(pruner)
        log.write(pruner, seconds=pruner.stats.kept * 0.01)
    return path


def test_time_saved_is_what_pruned_epochs_took_less_than_the_median_full_one() -> None:
    found = savings.measure([line(0, 100, 30.0), line(1, 60, 7.0), line(2, 50, 6.0), line(3, 100, 10.0), line(4, 100, 10.0)])
    assert found.samples == [0, 40, 90, 90, 90]
    assert found.seconds == pytest.approx([0.0, 3.0, 7.0, 7.0, 7.0])
    assert found.spent == 63.0
    assert "estimated from 1e+05 us a sample, the median of the 3 full epochs" in found.basis


def test_without_a_full_epoch_it_is_estimated_from_the_pruned_ones_and_says_so() -> None:
    found = savings.measure([line(0, 50, 5.0), line(1, 80, 8.0)])
    assert found.seconds == pytest.approx([5.0, 7.0])
    assert "no full one was timed" in found.basis


def test_interrupted_epochs_and_ones_without_a_time_do_not_count() -> None:
    epochs = [line(0, 100, 10.0), line(1, 50, 1.0, resumed=True), line(2, 50), line(3, 50, 6.0)]
    found = savings.measure(epochs)
    assert found.seconds == pytest.approx([0.0, 0.0, 0.0, 4.0])
    assert found.spent == 16.0
    assert "2 epochs that were interrupted or not timed are left out" in found.basis
    assert savings.summarise(epochs)[0] == "epochs 0 to 3 of 100 samples: 150 of 400 samples skipped (37.5%)"
    untimed = [line(0, 100), line(1, 50, non_finite=3) | {"non_finite": 3}]
    assert savings.measure(untimed).seconds is None
    assert savings.summarise(untimed)[1:] == [
        "Time saved: unknown, as no epoch was timed",
        "3 losses were NaN or infinite and were not recorded",
    ]


def test_a_slower_run_has_saved_less_than_nothing() -> None:
    assert savings.measure([line(0, 100, 10.0), line(1, 50, 12.0)]).seconds == pytest.approx([0.0, -2.0])


@pytest.mark.parametrize("seconds", [0.5, 100.0, 7199.0, 7300.0])
def test_clock_chooses_a_unit(seconds: float) -> None:
    assert savings.clock(seconds) == {0.5: "0.5 s", 100.0: "100 s", 7199.0: "120.0 min", 7300.0: "2.0 h"}[seconds]


@pytest.mark.slow
@pytest.mark.parametrize("policy", [None, RandomPruning(0.3), QuantileTiers(), NoPruning()], ids=repr)
def test_a_picture_of_every_policy(tmp_path: Path, policy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    log, out = write_run(tmp_path / "run.jsonl", policy=policy), tmp_path / "new" / "report.png"
    assert command_line.main(["report", str(log), "-o", str(out)]) == 0
    assert out.read_bytes().startswith(PNG)
    assert out.stat().st_size > 20_000
    shown = capsys.readouterr().out
    assert "epochs 0 to 3 of 300 samples" in shown
    assert "Time saved:" in shown


def test_one_epoch_and_lines_without_histogram_or_time_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = write_run(tmp_path / "run.jsonl", epochs=1)
    assert command_line.main(["report", str(path), "-o", str(tmp_path / "a.png")]) == 0
    start, epoch = path.read_text().splitlines()
    bare = json.loads(epoch)
    del bare["histogram"], bare["seconds"]
    path.write_text(f"{start}\n{json.dumps(bare)}\n")
    assert command_line.main(["report", str(path), "-o", str(tmp_path / "b.html")]) == 0
    assert (tmp_path / "b.html").exists()


def test_the_page_holds_the_picture_the_table_and_where_it_comes_from(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    log, out = write_run(tmp_path / "run.jsonl"), tmp_path / "report.html"
    start = json.loads(log.read_text().splitlines()[0])
    start["command"] = "<script>"
    log.write_text("\n".join([json.dumps(start), *log.read_text().splitlines()[1:]]) + "\n")
    assert command_line.main(["report", str(log), "-o", str(out)]) == 0
    page = out.read_text()
    (image,) = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    assert base64.b64decode(image).startswith(PNG)
    assert page.count("<tr>") == 5
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert "http" not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "none.jsonl"], "No such file"),
        (["report", "empty.jsonl"], "no line of an epoch"),
        (["report", "empty.jsonl", "-o", "report.pdf"], "a .png or a .html file, got 'report.pdf'"),
        (["bench", "--devices", "tpu"], "device must be 'cpu' or 'cuda', got 'tpu'"),
        (["bench", "--devices", "cuda:99"], "cuda:99"),
        (["bench", "--sizes", "10"], "sizes must be at least 1000"),
        (["bench", "--compare", "none.json", "none.json"], "No such file"),
    ],
)
def test_what_cannot_be_done_is_said_without_a_traceback(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").touch()
    with pytest.raises(SystemExit) as raised:
        command_line.main(arguments)
    assert raised.value.code == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


def test_without_matplotlib_the_error_says_what_to_install(tmp_path: Path) -> None:
    log = write_run(tmp_path / "run.jsonl", epochs=1)
    script = (
        f"import sys; sys.modules['matplotlib'] = None\nfrom infobatch_fast.__main__ import main; main(['report', {str(log)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install 'matplotlib>=3.7'" in done.stderr
    assert "Traceback" not in done.stderr
