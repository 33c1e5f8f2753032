"""The command ``bench``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..engine import ops
from ..engine.device import check_device
from ..machine import load, provenance
from . import compare, documents, suite, table
from .contender import ignore_notices

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Any]

SIZES = "1e5,1e6,1e7,1e8"
QUICK_SIZES = "1e5,1e6"


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(float(part)) for part in text.split(",")]
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"sizes must be numbers such as 1e6,1e7, got {text!r}") from None
    if min(sizes) < 1000:
        raise argparse.ArgumentTypeError(f"sizes must be at least 1000, got {text!r}")
    return sizes


def _devices(text: str) -> list[str]:
    try:
        return [str(check_device(part).type) for part in text.split(",")]
    except (ValueError, RuntimeError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add(commands: Commands) -> None:
    """Adds the command to the command line."""
    bench = commands.add_parser("bench", help="time every operation, and the alternatives to it")
    bench.add_argument("--sizes", type=_sizes, metavar="N,N,...", help=f"numbers of samples (default {SIZES})")
    bench.add_argument("--devices", type=_devices, metavar="cpu,cuda", help="default: cpu, and cuda where there is one")
    bench.add_argument("--quick", action="store_true", help=f"a first look in a minute: {QUICK_SIZES} samples, few rounds")
    bench.add_argument("--out", type=Path, metavar="FILE", help="the JSON file to write")
    bench.add_argument(
        "--compare", nargs=2, type=Path, metavar=("OLD", "NEW"), help="measure nothing; list what differs by more than the spread"
    )


def run(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """Measures or compares. A comparison that finds slower rows fails."""
    if arguments.compare:
        text, slower = compare.compare(*map(documents.read, arguments.compare))
        print(text)
        return 1 if slower else 0
    ignore_notices()
    devices = arguments.devices or ["cpu", *(["cuda"] if torch.cuda.is_available() and ops.CUDA_ARCHITECTURES else [])]
    sizes = arguments.sizes or _sizes(QUICK_SIZES if arguments.quick else SIZES)
    document = provenance(list(command)) | {"quick": arguments.quick, "rows": []}
    for device in devices:
        for size in sizes:
            document["rows"] += suite.measure(size, torch.device(device), arguments.quick)
            document["load_after"] = load()
            if arguments.out:  # after each size: the large ones take long
                documents.write(arguments.out, document)
    print(table.text(document))
    return 0
