"""The command ``report``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..logs import NoRun, read_run
from . import page
from .savings import summarise

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Any]


def add(commands: Commands) -> None:
    """Adds the command to the command line."""
    parser = commands.add_parser("report", help="draw what a run kept and saved, from its JSON lines")
    parser.add_argument("run", type=Path, metavar="RUN.jsonl", help="the file that infobatch_fast.logs.JsonLines wrote")
    parser.add_argument(
        "-o", "--out", type=_picture, default=Path("report.png"), metavar="FILE", help="a .png or .html file, by default report.png"
    )


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (".png", ".html"):
        raise argparse.ArgumentTypeError(f"the report must be a .png or a .html file, got {text!r}")
    return path


def run(arguments: argparse.Namespace) -> int:
    """Writes the report, and prints its sentences.

    Raises:
        OSError, NoRun: The file cannot be read, or holds no run.
        ImportError: There is no matplotlib.
    """
    if arguments.out.resolve() == arguments.run.resolve():
        raise NoRun(f"--out {arguments.out} is the log itself: give the picture another name")
    log = read_run(arguments.run)
    try:
        from .picture import draw  # noqa: PLC0415 - needs matplotlib, which is optional
    except ImportError as error:
        raise ImportError(f"report needs matplotlib 3.7 or newer: pip install 'matplotlib>=3.7' ({error})") from error
    image, out = draw(log.epochs), arguments.out
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".png":
        out.write_bytes(image)
    else:
        out.write_text(page.make(log, image), encoding="utf-8", errors="replace")
    print("\n".join([*summarise(log.epochs), str(out)]))
    return 0


__all__ = ["NoRun", "add", "run"]
