"""Everything that needs a GPU, in stages that can be asked for by name: a line each, and one JSON with all of it.

python scripts/gpu_check.py [--out FILE] [build native tests speed sanitizers training benchmarks]

Needs python3 with torch, pybind11, cmake, ninja, setuptools and pytest in it, nvcc, make, g++, and no network. Without names all
stages run but the benchmarks, within five minutes. The JSON is written after each stage: a run that is cut off leaves what it has,
and a stage that is run again takes the place of its old entry.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = str(ROOT / "build/native/gpu")  # both backends without Python and torch
JUNIT = ROOT / "build/gpu-tests.xml"
TAIL, TEST_TAIL, FAILURES = 3000, 800, 30  # characters kept of a command that failed and of a test, and of how many tests
DEVICE = """import json, torch; gpu = torch.cuda.get_device_properties(0)
facts = {"device": gpu.name, "capability": f"{gpu.major}.{gpu.minor}", "memory_bytes": gpu.total_memory}
print(json.dumps(facts | {"multiprocessors": gpu.multi_processor_count, "torch": torch.__version__, "cuda": torch.version.cuda}))"""
UNREADABLE = "its figures cannot be read"
Figures = tuple[str, Any]  # for a stage's line, and for the JSON


def last_line(printed: dict[str, str]) -> Figures:
    lines = "\n".join(printed.values()).split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), ""), None


def json_lines(printed: dict[str, str]) -> Figures:
    """Figures, a line each. What they have under "key" stands in the stage's line."""
    lines = "\n".join(printed.values()).split("\n")
    found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return ", ".join([f"{len(found)} figures", *(str(figure["key"]) for figure in found if "key" in figure)]), found


def summaries(printed: dict[str, str]) -> Figures:
    """What each sanitizer says at its end."""
    found = {name: re.findall(r"=+ .*SUMMARY: (.*)", text)[-1:] for name, text in printed.items()}
    return "; ".join(f"{name}: {(lines or ['no summary'])[0]}" for name, lines in found.items()), None


def outcomes(printed: dict[str, str]) -> Figures:
    """How many tests passed, also where pytest was stopped, and the end of each error."""
    lines, verdict = printed["pytest"].partition("short test summary")[0].split("\n"), r"\b(PASSED|FAILED|ERROR|SKIPPED)\b"
    lines = [re.sub(r"^\[gw\d+\] \[ *\d+%\] ", "", line) for line in lines if "::" in line and re.search(verdict, line)]
    counts = {kind: sum(kind in line for line in lines) for kind in ("PASSED", "FAILED", "ERROR", "SKIPPED")}
    errors: dict[str, str] = {}
    for case in ElementTree.parse(JUNIT).iter("testcase") if JUNIT.exists() else []:
        for error in [*case.findall("failure"), *case.findall("error")]:
            errors[f"{case.get('classname')}::{case.get('name')}"] = (error.text or error.get("message") or "")[-TEST_TAIL:]
    failed = list(errors) or [line for line in lines if "FAILED" in line or "ERROR" in line]
    line = ", ".join(f"{count} {kind.lower()}" for kind, count in counts.items() if count) or "no test ran"
    line += "".join(f"; {name.split('::')[-1]}" for name in failed)[:500]
    return line, {"counts": counts, "failed": failed, "errors": dict(list(errors.items())[:FAILURES])}


@dataclass
class Stage:
    """Commands by name, side by side or one after the other, and how long they may take together."""

    seconds: int
    commands: dict[str, list[str]]
    figures: Callable[[dict[str, str]], Figures] | None = None
    together: bool = False
    environment: dict[str, str] = field(default_factory=dict)


def stages(out: Path) -> dict[str, Stage]:
    """All of them, the most valuable ones first."""

    def python(words: str, *more: str) -> list[str]:
        return [sys.executable, *words.split(), *more]

    install = python("-m pip install -q --force-reinstall --no-build-isolation --no-deps --no-index .")
    pytest = python("-m pytest -p no:cacheprovider -vv -m gpu --tb=short --continue-on-collection-errors --junitxml", str(JUNIT))
    if importlib.util.find_spec("xdist"):
        pytest += ["-n", str(min(12, os.cpu_count() or 1))]
    if importlib.util.find_spec("pytest_timeout"):
        pytest += ["--timeout=40", "--timeout-method=thread"]  # which ends a process that waits for a GPU as well
    few_threads = {"OMP_NUM_THREADS": "2", "TORCHINDUCTOR_COMPILE_THREADS": "1"}  # as all workers share the cores
    make, for_this_gpu = ["make", "-C", "tests/native", "-j", "gpu"], {"INFOBATCH_CUDA": "ON", "CUDAARCHS": "native"}
    sanitizer = [shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer", "--error-exitcode", "9", "--tool"]
    tools = ("memcheck", "racecheck", "initcheck", "synccheck")
    bench = python("-m infobatch_fast bench --devices cuda --out", str(out.with_name(f"bench-{out.name}")))
    step, beside_it = python("benchmarks/gpu_training.py"), {"PYTHONPATH": str(ROOT / "benchmarks")}
    training = python("benchmarks/bench_training.py --device cuda --out", str(out.with_name(f"training-{out.name}")))
    return {
        "build": Stage(80, {"package": install, "native program": make}, None, True, for_this_gpu),
        "native": Stage(40, {"compare": [PROGRAM, "compare"]}, last_line),
        "tests": Stage(130, {"pytest": pytest}, outcomes, environment=few_threads),
        "speed": Stage(70, {"native program": [PROGRAM, "speed"], "package": python("benchmarks/gpu_speed.py")}, json_lines),
        "sanitizers": Stage(75, {tool: [*sanitizer, tool, PROGRAM, "compare", "--small"] for tool in tools}, summaries, True),
        "training": Stage(40, {"step": step}, json_lines, environment=beside_it),
        "benchmarks": Stage(480, {"bench": bench, "training": training}),
    }


def execute(commands: dict[str, list[str]], environment: dict[str, str], deadline: float) -> tuple[dict[str, int], dict[str, str]]:
    """Exit status and output of commands that run side by side; 124 where one was stopped, with all that it had started."""
    codes: dict[str, int] = {}
    processes: dict[str, subprocess.Popen[bytes]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder, str(number)) for number, name in enumerate(commands)}
        try:
            for name, command in commands.items():
                with files[name].open("wb") as output:
                    both: Any = {"stdout": output, "stderr": subprocess.STDOUT}
                    try:
                        processes[name] = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **both)
                    except OSError as error:
                        codes[name] = 127
                        output.write(str(error).encode())
            for name, process in processes.items():
                try:
                    codes[name] = process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    codes[name] = 124
        finally:
            for process in processes.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        printed = {name: file.read_text(errors="replace") for name, file in files.items()}
    return codes, {name: text + "\nstopped: its time was up" * (codes[name] == 124) for name, text in printed.items()}


def shown(words: list[str]) -> str:
    """A command as it would be typed in the root: a JSON is published, and says nothing of where things lie on a machine."""
    words = [word.replace(f"{ROOT}/", "") for word in words]
    return shlex.join(Path(word).name if word.startswith("/") else word for word in words)


def run(name: str, stage: Stage, seconds: float) -> dict[str, Any]:
    """One stage: its line is printed, and its entry of the JSON returned."""
    JUNIT.unlink(missing_ok=True)
    start, started = time.monotonic(), datetime.now(timezone.utc).isoformat(timespec="seconds")
    # What was installed is to be tested, and not the source tree, whose package has no native module in it.
    environment = {**os.environ, "PYTHONSAFEPATH": "1", **stage.environment}
    codes, printed = dict[str, int](), dict[str, str]()
    for group in [stage.commands] if stage.together else [{command: words} for command, words in stage.commands.items()]:
        new_codes, new_printed = execute(group, environment, start + seconds)
        codes, printed = codes | new_codes, printed | new_printed
    took = round(time.monotonic() - start, 1)
    try:
        line, figures = stage.figures(printed) if stage.figures else ("", None)
    except (ValueError, ElementTree.ParseError) as error:  # of a program that was stopped in the middle of a line
        line, figures = f"{UNREADABLE}: {error}", None
    wrong = [command for command, code in codes.items() if code != 0]
    passed = not wrong and not line.startswith(UNREADABLE)
    line = "; ".join([*(f"{command}: exit status {codes[command]}" for command in wrong), *([line] if line else [])])
    print(f"{name:<10} {'passed' if passed else 'failed'} {took:6.1f} s  {line}", flush=True)
    commands = {command: shown(words) for command, words in stage.commands.items()}
    entry = {"passed": passed, "started": started, "seconds": took, "line": line, "commands": commands, "exit": codes}
    return entry | {"figures": figures, "output": {command: printed[command][-TAIL:] for command in wrong}}


def asked(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def surroundings(commit: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(asked([sys.executable, "-c", DEVICE]) or '{"device": "unknown"}')
    driver = asked(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]).split("\n")[0]
    toolkit = re.findall(r"release ([\d.]+)", asked(["nvcc", "--version"]))
    return facts | {"driver": driver or "unknown", "toolkit": (toolkit or ["unknown"])[0], "commit": commit or "unknown"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="by default all of them but the benchmarks, in this order")
    parser.add_argument("--out", type=Path, help="the JSON; by default benchmarks/results/gpu-NAME.json")
    parser.add_argument("--commit", default=os.environ.get("COMMIT"), help="what is measured, where the history is not at hand")
    parser.add_argument("--patience", type=float, default=1.0, help="all time limits are multiplied by this")
    arguments = parser.parse_args()
    around = surroundings(arguments.commit or asked(["git", "rev-parse", "HEAD"]))
    device = re.sub(r"[^a-z0-9]+", "-", around["device"].lower()).strip("-")
    out = (arguments.out or ROOT / "benchmarks/results" / f"gpu-{device}.json").resolve()
    known = stages(out)
    if unknown := set(arguments.stages) - set(known):
        parser.error(f"no such stage: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    before: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"device": around["device"], "stages": {}}
    if before["device"] != around["device"]:
        parser.error(f"--out {out.name} has figures of {before['device']}, and this is {around['device']}: name another file")
    entries = before["stages"]
    asked_for = arguments.stages or [name for name in known if name != "benchmarks"]
    for name in asked_for:
        entries[name] = {"commit": around["commit"]} | run(name, known[name], arguments.patience * known[name].seconds)
        written = out.with_suffix(".part")  # a run that is killed while it writes leaves the file before
        written.write_text(json.dumps(around | {"stages": entries}, indent=1) + "\n")
        written.replace(out)
    return 0 if all(entries[name]["passed"] for name in asked_for) else 1


if __name__ == "__main__":
    sys.exit(main())
