"""The command ``bench``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..engine import ops
from . import compare, report, suite, summary

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Any]

SIZES = "1e5,1e6,1e7,1e8"
QUICK_SIZES = "1e5,1e6"


def _sizes(text: str) -> list[int]:
    sizes = [int(float(part)) for part in text.split(",")]
    if min(sizes) < 1000:
        raise argparse.ArgumentTypeError(f"sizes must be at least 1000, got {text!r}")
    return sizes


def _devices(text: str) -> list[str]:
    try:
        return [str(ops.check_device(part).type) for part in text.split(",")]
    except (ValueError, RuntimeError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add(commands: Commands) -> None:
    """Adds the command to the command line."""
    bench = commands.add_parser("bench", help="measure every operation beside what people would use instead")
    what = bench.add_argument_group("measure")
    what.add_argument("--sizes", type=_sizes, metavar="N,N,...", help=f"numbers of samples (default {SIZES})")
    what.add_argument("--devices", type=_devices, metavar="cpu,cuda", help="default: cpu, and cuda where there is one")
    what.add_argument("--quick", action="store_true", help=f"a minute, for development: {QUICK_SIZES} samples, few rounds")
    what.add_argument("--out", type=Path, metavar="FILE", help="the JSON file to write (default: standard output)")
    shown = bench.add_argument_group("show what was measured, instead")
    shown.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"), help="list what differs beyond the spread")
    shown.add_argument("--report", nargs="+", type=Path, metavar="FILE", help="make tables and plots of JSON files")
    shown.add_argument("--markdown", type=Path, metavar="FILE", help="where --report writes its tables (default: standard output)")
    shown.add_argument(
        "--readme", type=Path, metavar="FILE", help="a file whose part for the speed --report fills in (default: none)"
    )
    shown.add_argument("--plots", type=Path, metavar="DIR", help="where --report writes its PNG pictures (default: none)")


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def run(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """Measures, compares or reports; fails where a comparison finds something slower."""
    if arguments.compare:
        text, slower = compare.compare(*map(_read, arguments.compare))
        print(text)
        return 1 if slower else 0
    if arguments.report:
        documents = [_read(path) for path in arguments.report]
        text = report.markdown(documents)
        if arguments.markdown:
            arguments.markdown.write_text(text)
        else:
            print(text)
        if arguments.readme:
            summary.insert(documents, arguments.readme)
        if arguments.plots:
            from . import plots  # noqa: PLC0415 - needs matplotlib, which is optional

            for path in plots.draw(documents, arguments.plots):
                print(path, file=sys.stderr)
        return 0
    devices = arguments.devices or ["cpu", *(["cuda"] if torch.cuda.is_available() and ops.CUDA_ARCHITECTURES else [])]
    sizes = arguments.sizes or _sizes(QUICK_SIZES if arguments.quick else SIZES)
    last: dict[str, Any] = {}

    def save(document: dict[str, Any]) -> None:
        last.update(document)
        if arguments.out:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(document, indent=1) + "\n")

    suite.run(suite.Request(sizes, devices, arguments.quick, command), save)
    if not arguments.out:
        print(json.dumps(last, indent=1))
    return 0
