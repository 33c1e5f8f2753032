"""``python -m infobatch_fast``: ``info``, ``report`` and ``bench``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import machine
from .bench import command as bench
from .bench.documents import NoMeasurement
from .report import command as report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m infobatch_fast",
        description="InfoBatch pruning for PyTorch, at next to no cost. Each command has its own --help.",
        epilog="In Python: from infobatch_fast import InfoBatch; help(InfoBatch).",
    )
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    commands.add_parser("info", help="version, build and machine, to paste into a bug report")
    report.add(commands)
    bench.add(commands)
    return parser


def main(command: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit status. Without a command it prints help. ``bench --compare`` fails if slower."""
    command = sys.argv[1:] if command is None else command
    parser = _parser()
    arguments = parser.parse_args(command)
    if arguments.command is None:
        parser.print_help()
        return 0
    if arguments.command == "info":
        print(machine.info())
        return 0
    try:
        return bench.run(arguments, command) if arguments.command == "bench" else report.run(arguments)
    except (OSError, ImportError, NoMeasurement, report.NoRun) as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
