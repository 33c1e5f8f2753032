"""Tables and plots of what ``python -m infobatch_fast bench`` and bench_training.py measured.

python benchmarks/report.py benchmarks/results/{bench,training}-*.json --results benchmarks/results --speed docs/speed.md

With ``--gpus benchmarks/results/gpu-*.json`` the plot of the plan has a curve of each GPU.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pages import fill, interval, machine_of, run_of, table

from infobatch_fast.bench import documents
from infobatch_fast.bench.contender import Ours
from infobatch_fast.bench.documents import Document
from infobatch_fast.bench.table import Row, own_rows, rivals, size_name, spread_cell, time_cell

HOW_TO_READ = """\
Medians, with quartiles in brackets (with fewer than four runs: the range). All contenders of a row ran alternately in one process,
and a ratio is the median over rounds of (their time / infobatch_fast's time of the same round): above 1, infobatch_fast is faster.
"Floor" is what the operation cannot do without on that machine, done by torch alone: one read of the scores for a plan; for an
order a random read for each index, and the Python ints; for an epoch a read of the scores and an order's floor (as a tensor: the
random reads); storing the losses (`index_copy_`) for an update. "-" stands where a contender does not have the operation, or did
not fit into memory.
"""
# What docs/speed.md shows:
OPERATIONS = ("plan, mean", "order, batches of 256", "epoch, one by one", "update, B = 1024", "update, B = 4096")
SIZES = (10**6, 10**8, 10**9)


def devices(document: Document) -> list[str]:
    return sorted({row["device"] for row in document.get("rows", [])})


def speed(rows: Sequence[Row], short: bool) -> list[str]:
    """A line for each operation and size: what infobatch_fast takes, and how many times as long the others."""
    names, lines = rivals(rows), []
    for row in rows:
        ours = row["contenders"][Ours.name]
        cells = [
            row["operation"],
            size_name(row["samples"]),
            time_cell(ours["seconds"]) + " an index" * (row["unit"] == "an index"),
        ]
        if not short:
            cells += [f"{ours['ns']:.3g} {row['unit']}", f"{ours['gb_s']:.3g}", spread_cell(ours["of_floor"])]
        ratios = (row["contenders"].get(name, {}).get("ratio") for name in names)
        lines.append([*cells, *(spread_cell(ratio) if ratio else "-" for ratio in ratios)])
    if short:
        return table(["operation", "samples", "time", *names], lines)
    return table(["operation", "samples", "time", "ns", "GB/s", "x floor", *(f"vs {name}" for name in names)], lines)


def page(measured: Sequence[Document], folder: Path, gpus: Sequence[dict[str, Any]]) -> list[str]:
    """All operations at all sizes, with a plot of the plan that is put into ``folder``."""
    from plan_plot import draw  # noqa: PLC0415 - needs matplotlib, which the part of docs/speed.md does not

    lines = ["# Measured", "", HOW_TO_READ]
    for document in measured:
        for device in devices(document):
            rows = own_rows(document, device)
            loads = " and ".join(str(document.get(f"load_{when}")) for when in ("before", "after"))
            left_out = {
                f"{name}, {size_name(row['samples'])} samples: {why}" for row in rows for name, why in row["left_out"].items()
            }
            lines += [f"## {document['machine']['cpu']}: {device}", ""]
            lines += [f"{machine_of(document)}; {run_of(document)}. Load averages before and after: {loads}.", ""]
            lines += [f"![Time of a plan by number of samples]({draw(document, device, folder, gpus).name})", ""]
            lines += [*speed(rows, short=False), "", *(f"- left out: {line}" for line in sorted(left_out)), ""]
    return lines


def summary(measured: Sequence[Document]) -> list[str]:
    """The part of docs/speed.md."""
    lines: list[str] = []
    for document in measured:
        parts = [in_short(document, device) for device in devices(document)]
        parts += [training(run) for run in document.get("training", [])]
        for part in parts:
            lines += [*part, "", f"{machine_of(document)}; {run_of(document)}.", ""]
    return lines[:-1]


def in_short(document: Document, device: str) -> list[str]:
    rows = [row for row in own_rows(document, device) if row["operation"] in OPERATIONS and row["samples"] in SIZES]
    return [
        f"Time on {device}, and how many times as long the others take (medians and quartiles of alternating runs; below 1 they "
        "are faster; -: has no such operation, or was left out for memory or time):",
        "",
        *speed(rows, short=True),
    ]


def training(run: dict[str, Any]) -> list[str]:
    shares = run["epoch_share_percent"]
    sizes = [size for size in run["epoch_share_sizes"] if size in SIZES]
    rows = []
    for name, variant in run["variants"].items():
        over = variant.get("overhead_percent")
        share = [f"{shares[name][str(size)]:.3g} %" if name in shares else "-" for size in sizes]
        rows.append([name, time_cell(variant["seconds"]), interval(over, 2) if over else "-", *share])
    head = ["variant", "step", "overhead (95 %)", *(f"share of an epoch at {size_name(size)}" for size in sizes)]
    lines = [f"What a training step pays, {run['model']} on {run['device']}, batches of {run['batch']}:", "", *table(head, rows)]
    return [*lines, "", f"Share of an epoch: plan and sampler, {run['epoch_share_basis']}."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--gpus", nargs="*", default=[], type=Path, metavar="FILE", help="of scripts/gpu_check.py, for the plot")
    parser.add_argument("--results", type=Path, metavar="DIR", help="where tables.md and its plots go")
    parser.add_argument("--speed", type=Path, metavar="FILE", help="a file whose part for the speed is filled in")
    arguments = parser.parse_args()
    try:
        measured = [documents.read(path) for path in arguments.files]
    except (OSError, documents.NoMeasurement) as error:
        parser.error(f"{error}; nothing was changed")
    if empty := [
        str(path) for path, one in zip(arguments.files, measured, strict=True) if not (one.get("rows") or one.get("training"))
    ]:
        parser.error(f"{', '.join(empty)}: no rows of operations or training in it; nothing was changed")
    if arguments.results:
        gpus = [json.loads(path.read_text()) for path in arguments.gpus]
        (arguments.results / "tables.md").write_text("\n".join(page(measured, arguments.results, gpus)).rstrip() + "\n")
    if arguments.speed:
        fill(arguments.speed, "speed", summary(measured))


if __name__ == "__main__":
    main()
