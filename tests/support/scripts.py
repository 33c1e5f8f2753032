"""Runs a script as ``python script arguments`` does, in a process of its own that needs not import torch anew.

The process is forked from the server of ``ranks``. What a script must find in an interpreter that has imported nothing is for
``subprocess``.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

from support.ranks import CONTEXT

SECONDS = 900.0  # a script that takes longer is killed and the test fails: no test hangs


def run_script(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Exit status and output of a script; -9 where it was killed."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("stdout", "stderr")]
        process = CONTEXT.Process(target=_run, args=(str(script), arguments, list(map(str, files))))
        process.start()
        process.join(SECONDS)
        process.kill()
        process.join()
        return subprocess.CompletedProcess([str(script), *arguments], process.exitcode, *(file.read_text() for file in files))


def _run(script: str, arguments: tuple[str, ...], files: list[str]) -> None:
    for stream, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), stream)
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(script).parent))
    runpy.run_path(script, run_name="__main__")
