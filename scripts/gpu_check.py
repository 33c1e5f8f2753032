"""Everything that needs a GPU, in one go: build, tests, compute-sanitizer, benchmarks; one JSON with all of it.

Needs python3 with torch, pybind11, cmake, ninja, setuptools and pytest in it, nvcc, and no network. Run it by `make gpu-check`.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUDGET = 470  # seconds for all steps


class Check:
    """Runs the steps one after the other within the budget and notes what they printed."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.steps: list[dict[str, object]] = []

    def run(self, name: str, command: list[str], limit: float, **environment: str) -> bool:
        limit = min(limit, BUDGET - (time.monotonic() - self.start))
        print(f"== {name}: {' '.join(command)}", flush=True)
        begun = time.monotonic()
        # What was installed is to be tested, and not the source tree, whose package has no native module in it.
        environment |= {"PYTHONSAFEPATH": "1"}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=max(limit, 1), check=False
            )
            code, output = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired as expired:
            code, output = 124, (expired.stdout or b"").decode(errors="replace") + f"\nstopped after {limit:.0f} s"
        except FileNotFoundError as missing:
            code, output = 127, str(missing)
        print(output[-3000:], flush=True)
        step = {"name": name, "command": command, "exit": code, "seconds": round(time.monotonic() - begun, 1)}
        self.steps.append(step | {"output_tail": output[-1500:].splitlines()})
        return code == 0


def sanitizer_steps(check: Check) -> None:
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    for mode in ("memcheck", "racecheck", "initcheck"):
        command = [tool, "--tool", mode, "--error-exitcode", "9", sys.executable, "scripts/gpu_small_run.py"]
        check.run(f"compute-sanitizer {mode}", command, 60)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="the JSON; by default benchmarks/results/gpu-NAME.json")
    out = parser.parse_args().out

    check = Check()
    python = sys.executable
    install = [python, "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "--no-index", "."]
    if not check.run("build", install, 240, INFOBATCH_CUDA="ON"):
        return 1
    check.run("tests of the GPU", [python, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-m", "gpu", "tests"], 150)
    sanitizer_steps(check)
    bench = ROOT / "build" / "gpu-bench.json"
    bench.parent.mkdir(exist_ok=True)
    check.run("benchmarks", [python, "-m", "infobatch_fast", "bench", "--devices", "cuda", "--out", str(bench)], 150)

    name = subprocess.run(
        [python, "-c", "import torch; print(torch.cuda.get_device_name())"], capture_output=True, text=True, check=False
    ).stdout.strip()
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"
    out = out or ROOT / "benchmarks" / "results" / f"gpu-{slug}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    figures = json.loads(bench.read_text()) if bench.exists() else None
    out.write_text(json.dumps({"device": name, "steps": check.steps, "benchmarks": figures}, indent=1) + "\n")
    failed = [step["name"] for step in check.steps if step["exit"] != 0]
    print(f"{out}: {len(check.steps) - len(failed)} steps passed, {len(failed)} failed {failed or ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
