"""The build in folders that are unusual. What is built is checked elsewhere: here nothing is compiled."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_a_source_folder_that_is_read_only_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("setuptools")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != ROOT)
    with pytest.raises(SystemExit, match=r"is read-only, and the build writes into it: copy the folder"):
        runpy.run_path(str(ROOT / "setup.py"))


def test_no_command_of_the_build_holds_a_path_that_the_shell_would_take_apart(tmp_path: Path) -> None:
    pybind11 = pytest.importorskip("pybind11")
    tools = {
        name: shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        for name in ("cmake", "ninja")
    }
    if None in tools.values():
        pytest.skip("needs cmake and ninja")
    folder = tmp_path / "a (b) 'c' d"
    options = [f"-DCMAKE_MAKE_PROGRAM={tools['ninja']}", f"-DPython_EXECUTABLE={sys.executable}", "-DINFOBATCH_CUDA=OFF"]
    options.append(f"-Dpybind11_DIR={pybind11.get_cmake_dir()}")
    subprocess.run(
        [str(tools["cmake"]), "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *options], check=True, capture_output=True
    )
    commands = subprocess.run([str(tools["ninja"]), "-C", str(folder), "-t", "commands", "_core"], check=True, capture_output=True)
    for command in commands.stdout.decode().splitlines():
        parsed = subprocess.run(["sh", "-n", "-c", command], check=False, capture_output=True)
        assert parsed.returncode == 0, (command, parsed.stderr)
