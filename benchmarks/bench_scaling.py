"""How memory, traffic and balance scale with samples and ranks: what follows from the arrays, and what this machine measured.

    python benchmarks/bench_scaling.py --out benchmarks/results/scaling-NAME.json     # some minutes; 17 GB for all parts
    python benchmarks/bench_scaling.py --markdown benchmarks/results/scaling-NAME.json

The first form writes JSON, the second one puts its tables into docs/scaling.md between the marks. Each part runs in a process
of its own, one after the other; a part that needs more memory than is free is left out and says so.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from scaling_measured import PARTS
from scaling_model import on_paper
from scaling_tables import write_tables

from infobatch_fast.bench import documents
from infobatch_fast.bench.contender import ignore_notices
from infobatch_fast.machine import available_bytes, load, provenance


def run_apart(part: str) -> dict[str, Any]:
    measure, needed = PARTS[part]
    if available_bytes() < needed:
        return {"left_out": f"needs {needed / 1e9:.1f} GB, {available_bytes() / 1e9:.1f} GB are free"}
    before = load()
    with ProcessPoolExecutor(1, get_context("spawn")) as apart:
        return apart.submit(measure).result() | {"load_before": before, "load_after": load()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument(
        "--only", nargs="*", choices=list(PARTS), default=list(PARTS), help="keep the other parts of --out; none: measure nothing"
    )
    parser.add_argument("--markdown", type=Path, metavar="JSON", help="put the tables of this file into --page")
    parser.add_argument(
        "--page", type=Path, default=Path(__file__).parent.parent / "docs/scaling.md", help="default: docs/scaling.md"
    )
    arguments = parser.parse_args()
    ignore_notices()
    if arguments.out:
        origin = provenance(sys.argv[1:], "python benchmarks/bench_scaling.py")
        made_by = {name: origin.pop(name) for name in ("command", "started", "commit", "load_before")}
        result = documents.read(arguments.out) if arguments.out.exists() else origin
        is_other = result["machine"]["cpu"] != origin["machine"]["cpu"] or result["versions"] != origin["versions"]
        if is_other and arguments.only:  # what follows from the arrays alone is the same everywhere
            parser.error(f"{arguments.out} was made on another machine or with other versions: choose another file")
        result["paper"] = on_paper()
        documents.write(arguments.out, result)
        for part in arguments.only:
            print(f"{part} ...", file=sys.stderr, flush=True)
            result[part] = run_apart(part) | {"made_by": made_by}
            documents.write(arguments.out, result)
    if arguments.markdown:
        write_tables(documents.read(arguments.markdown), arguments.page)
    if not arguments.out and not arguments.markdown:
        parser.error("give --out or --markdown")


if __name__ == "__main__":
    main()
