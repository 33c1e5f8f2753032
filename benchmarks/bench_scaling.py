"""How memory, traffic and balance scale with samples and ranks: what follows from the arrays, and what this machine measured.

    python benchmarks/bench_scaling.py --out benchmarks/results/scaling-NAME.json     # some minutes; 17 GB for all parts
    python benchmarks/bench_scaling.py --markdown benchmarks/results/scaling-NAME.json

The first form writes JSON, the second one puts its tables into docs/scaling.md between the markers. Each part runs in a process
of its own, one after the other; a part that needs more memory than is free is left out and says so.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
from scaling_model import POLICIES, WORLDS, OneOfMany, allocated, expected_balance, pruner_of, sent, table_bytes
from scaling_parts import PARTS
from scaling_tables import write_tables

from infobatch_fast.engine.ranks import Ranks
from infobatch_fast.machine import available_bytes, load, provenance

SIZES = (10**8, 10**9, 10**10, 10**11)
ROUNDS = 5


def on_paper() -> dict[str, Any]:
    rows = []
    for n in SIZES:
        for world in WORLDS:
            slots = max(Ranks(world, rank).shard(n)[1] for rank in range(world))
            state = 4 * n + 4 * math.ceil(n / 8)
            rows.append({"n": n, "world": world, "slots": slots, "bytes": table_bytes(slots), "state_bytes": state})
    traffic = []
    for name, policy in POLICIES.items():
        pruner = pruner_of(10_000, OneOfMany(4, 1), policy=policy)
        assert allocated(pruner) == table_bytes(pruner._table.num_slots)
        epochs = []
        for epoch in range(2):
            sent.clear()
            pruner.set_epoch(epoch)
            len(pruner.sampler)
            epochs.append(sent[:])
        traffic.append({"policy": name, "first_epoch": epochs[0], "each_epoch": epochs[1]})
    return {"memory": rows, "traffic": traffic, "balance": [expected_balance(n, world) for n in SIZES for world in WORLDS[1:]]}


def run_apart(part: str, rounds: int) -> dict[str, Any]:
    needed = PARTS[part][1]
    if available_bytes() < needed:
        return {"left_out": f"needs {needed / 1e9:.1f} GB, {available_bytes() / 1e9:.1f} GB are free"}
    command = [sys.executable, __file__, "--part", part, "--rounds", str(rounds)]
    before, start = load(), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout) | {"load_before": before, "load_after": load(), "seconds": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument("--markdown", type=Path, metavar="JSON", help="put the tables of this file into docs/scaling.md")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="plans timed of each kind")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="keep the other parts of --out")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(PARTS[args.part][0](args.rounds)))
        return
    if args.out:
        origin = provenance(sys.argv[1:], "python benchmarks/bench_scaling.py")
        made_by = {name: origin.pop(name) for name in ("command", "started", "commit", "load_before")}
        result = json.loads(args.out.read_text()) if args.out.exists() else origin
        if result["machine"]["cpu"] != origin["machine"]["cpu"] or result["versions"] != origin["versions"]:
            parser.error(f"{args.out} was made on another machine or with other versions: choose another file")
        result["paper"] = on_paper()
        for part in args.only:
            print(f"{part} ...", file=sys.stderr, flush=True)
            result[part] = run_apart(part, args.rounds) | {"made_by": made_by}
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(result, indent=1) + "\n")
    if args.markdown:
        write_tables(json.loads(args.markdown.read_text()), Path(__file__).parent.parent / "docs" / "scaling.md")
    if not args.out and not args.markdown:
        parser.error("give --out or --markdown")


if __name__ == "__main__":
    main()
