"""The tables of what a GPU takes: each figure under its own heading, size and stage."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks/gpu_tables.py"


def spread(value: float) -> dict[str, float]:
    return {"median": value, "low": value, "high": value}


def figures_at(samples: int, first: int) -> list[dict[str, Any]]:
    """No two of all figures are the same: microseconds, counts and ratios count on from ``first``."""

    def us(more: int) -> float:
        return (first + more) * 1e-6

    found: list[dict[str, Any]] = []
    for offset, policy in enumerate(("mean", "tiers")):
        of_plan = {"policy": policy, "samples": samples}
        at = 10 * offset
        found.append({"what": "plan", **of_plan, "seconds": spread(us(at)), "times_floor": first + at + 1})
        found.append({"what": "plan in plain torch", **of_plan, "seconds": spread(1.0), "times_ours": first + at + 2})
        found.append({"what": "launches of a plan", **of_plan, "kernel": first + at + 3, "Memcpy": 1, "total": first + at + 4})
    for offset, batch in enumerate((1024, 4096)):
        at, host = 20 + 10 * offset, {"index on the device": us(22 + 10 * offset), "index on the CPU": us(23 + 10 * offset)}
        times = {"graph_seconds": us(at), "eager_seconds": us(at + 1), "host_seconds": host}
        found.append({"what": "update", "batch": batch, "samples": samples, **times})
        found.append({"what": "launches of an update", "batch": batch, "samples": samples, "kernel": first + at + 4, "total": 9})
    found.append({"what": "order", "samples": samples, "ids_a_second": (first + 40) * 1e9})
    found.append({"what": "memory", "samples": samples, "held_bytes_a_sample": first + 41, "peak_bytes_a_sample": first + 42})
    kernel = {"kernel": "record", "n": samples, "of_copy": 0.25}
    return [*found, *({**kernel, "items": ids, "median_us": first + 43 + at} for at, ids in enumerate((256, 1024)))]


def document() -> dict[str, Any]:
    def interval(value: float) -> dict[str, float]:
        return {"mean": value, "low": value - 1, "high": value + 1}

    where = {"model": "a net", "batch": 512}
    steps = [
        {**where, **how, "device": {"plain": spread(at * 1e-6), "more": spread(at * 1e-6 + 1e-6), "percent": interval(at + 2)}}
        for how, at in (({"how": "eager"}, 500), ({"how": "graph"}, 510), ({}, 520))
    ]
    for step in steps:
        step["device"]["percent_again"] = interval(step["device"]["percent"]["mean"] + 1)
    stage = {"commit": "0123456789abcdef", "passed": True, "figures": None}
    stages = {
        "native": stage | {"line": "601 comparisons"},
        "tests": stage | {"line": "602 passed", "commit": "fedcba9876543210", "passed": False},
        "speed": stage | {"figures": [{"what": "copy", "bytes_a_second": 603e9}, *figures_at(10**8, 100), *figures_at(10**9, 200)]},
        "training": stage | {"figures": [*steps, {"samples": 604, "percent_of_epoch": 0.25}]},
    }
    return {"device": "A card", "memory_bytes": 2**30, "driver": "7", "toolkit": "8", "torch": "9", "stages": stages}


def cells(text: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    table = {line[0]: line[1:] for line in lines if line[0] != "---"}
    assert len(table) == len(lines) - sum(line[0] == "---" for line in lines)  # no name stands there twice
    return table


@pytest.mark.slow
def test_each_figure_of_a_gpu_stands_under_its_heading_and_size(tmp_path: Path) -> None:
    source, page, readme = tmp_path / "gpu-a-card.json", tmp_path / "gpu.md", tmp_path / "speed.md"
    source.write_text(json.dumps(document()))
    readme.write_text("before\n<!-- gpu:begin -->\nold\n<!-- gpu:end -->\nafter\n")
    command = [sys.executable, str(PROGRAM), str(source), "--markdown", str(page), "--speed", str(readme)]
    subprocess.run(command, check=True)

    def us(value: int) -> str:
        return f"{value} us ({value}-{value})"

    found = cells(page.read_text())
    for column, first in enumerate((100, 200)):
        for at, policy in ((first, "mean"), (first + 10, "tiers")):
            assert found[f"plan by {policy}: time"][column] == us(at)
            assert found[f"plan by {policy}: times its floor"][column] == f"{at + 1}.00"
            assert found[f"plan by {policy}: times as long in plain torch"][column] == f"{at + 2}.0"
            assert found[f"plan by {policy}: launches"][column] == f"{at + 3} kernels, 1 transfer"
        for at, batch in ((first + 20, 1024), (first + 30, 4096)):
            sides = ("in a graph", "eager", "time of the host", "the same, index on the CPU")
            assert [found[f"update, B = {batch}: {side}"][column] for side in sides] == [f"{at + more} us" for more in range(4)]
            assert found[f"update, B = {batch}: launches"][column] == f"{at + 4} kernels"
        assert found["order: 1e9 ids a second"][column] == f"{first + 40}.0"
        assert found["bytes a sample: held"][column] == f"{first + 41}.00"
        assert found["bytes a sample: at most"][column] == f"{first + 42}.00"
        assert found["record, 256 ids"][column] == f"{first + 43} us (25 %)"
        assert found["record, 1,024 ids"][column] == f"{first + 44} us (25 %)"
    assert found["samples"] == ["1e8", "1e9"]

    short, text = cells(readme.read_text()), readme.read_text()
    assert text.startswith("before\n<!-- gpu:begin -->\nOn a GPU")
    assert text.endswith("fedcba9876.\n<!-- gpu:end -->\nafter\n")
    assert short["plan by tiers: time; times its floor; times as long in plain torch"] == [
        f"{us(110)}; 111.00; 112.0",
        f"{us(210)}; 211.00; 212.0",
    ]
    assert short["update, B = 4096: in a graph; eager"] == ["130 us; 131 us", "230 us; 231 us"]
    for name, at in (("step, eager", 500), ("step, graph", 510), ("from logits to gradients alone", 520)):
        of_step, again = (f"{at + more:+.3f} % ({at + more - 1:+.3f} to {at + more + 1:+.3f})" for more in (2, 3))
        assert found[name] == [us(at), f"{at + 1:+.1f} us", of_step, again]
    assert "eager +502.000 % (+501.000 to +503.000); graph +512.000 % (+511.000 to +513.000).\n" in text
    for written in (text, page.read_text()):
        assert "copies at 603 GB/s" in written
        assert "`make gpu-check` at 0123456789, fedcba9876." in written
    assert "side by side: 601 comparisons. Tests: 602 passed (FAILED)." in page.read_text()
    assert "A plan of its 604 samples takes 0.25 % of an epoch." in page.read_text()


@pytest.mark.slow
def test_without_files_nothing_is_written(tmp_path: Path) -> None:
    page = tmp_path / "gpu.md"
    subprocess.run([sys.executable, str(PROGRAM), "--markdown", str(page)], check=True)
    assert not page.exists()
