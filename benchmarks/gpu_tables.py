"""Markdown of what scripts/gpu_check.py found: a page with all of it, and the part of docs/speed.md for GPUs.

python benchmarks/gpu_tables.py benchmarks/results/gpu-*.json --markdown benchmarks/results/gpu.md --speed docs/speed.md
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pages import fill, interval, table

from infobatch_fast.bench.table import size_name, time_cell
from infobatch_fast.bench.table import time_name as seconds

Document = Figure = dict[str, Any]
Row = tuple[str, dict[int, str]]  # a name, and a cell for each number of samples

KTHVALUE = "Plain torch finds order statistics by `kthvalue`, in one block of threads."
HOW_TO_READ = f"""\
`make gpu-check` measures, `make report` makes this page of the JSON files beside it. Medians, with quartiles in brackets. A plan
ends when the host knows its length. Its floor is two reads of the scores at the bandwidth of a copy; plain torch makes the same
plan in its operators. {KTHVALUE} An update ends where the GPU has done it: one of
200 in a captured graph, or of 200 calls in a row (eager).
"""


def counted(figure: Figure) -> str:
    kinds = {"kernel": "kernel", "Memset": "memset", "Memcpy": "transfer"}
    return ", ".join(f"{figure[kind]} {name}{'s' * (figure[kind] > 1)}" for kind, name in kinds.items() if kind in figure)


PLAN, UPDATE = "plan by {policy}", "update, B = {batch}"
# What a figure tells: under which heading, which side of it, in which words, and whether in docs/speed.md too.
LINES: tuple[tuple[str, str, str, Callable[[Figure], str], bool], ...] = (
    ("plan", PLAN, "time", lambda figure: time_cell(figure["seconds"]), True),
    ("plan", PLAN, "times its floor", lambda figure: f"{figure['times_floor']:.2f}", True),
    ("plan in plain torch", PLAN, "times as long in plain torch", lambda figure: f"{figure['times_ours']:,.1f}", True),
    ("launches of a plan", PLAN, "launches", counted, False),
    ("update", UPDATE, "in a graph", lambda figure: seconds(figure["graph_seconds"]), True),
    ("update", UPDATE, "eager", lambda figure: seconds(figure["eager_seconds"]), True),
    ("update", UPDATE, "time of the host", lambda figure: seconds(figure["host_seconds"]["index on the device"]), False),
    ("update", UPDATE, "the same, index on the CPU", lambda figure: seconds(figure["host_seconds"]["index on the CPU"]), False),
    ("launches of an update", UPDATE, "launches", counted, False),
    ("order", "order", "1e9 ids a second", lambda figure: f"{figure['ids_a_second'] / 1e9:.1f}", True),
    ("memory", "bytes a sample", "held", lambda figure: f"{figure['held_bytes_a_sample']:.2f}", True),
    ("memory", "bytes a sample", "at most", lambda figure: f"{figure['peak_bytes_a_sample']:.2f}", True),
)


def figures(document: Document, stage: str) -> list[Figure]:
    return document["stages"].get(stage, {}).get("figures") or []


def rows(document: Document, short: bool) -> list[Row]:
    """What the package takes: a row for each side of a thing, or in short one for each thing."""
    found: dict[str, dict[str, dict[int, str]]] = {}
    for what, heading, side, words, in_short in LINES:
        for figure in figures(document, "speed"):
            if figure.get("what") == what and (in_short or not short):
                thing = found.setdefault(heading.format(**figure), {})
                thing.setdefault(side, {})[figure["samples"]] = words(figure)
    if not short:
        return [(f"{thing}: {side}", cells) for thing, sides in found.items() for side, cells in sides.items()]
    sizes = sorted({size for sides in found.values() for cells in sides.values() for size in cells})
    joined = [{size: "; ".join(cells.get(size, "-") for cells in sides.values()) for size in sizes} for sides in found.values()]
    return [(f"{thing}: {'; '.join(sides)}", cells) for (thing, sides), cells in zip(found.items(), joined, strict=True)]


def kernels(document: Document) -> list[Row]:
    """The kernels alone, by the program without Python: time, and the share of the bandwidth of a copy where it is one percent."""
    found = [figure for figure in figures(document, "speed") if "median_us" in figure]
    several = Counter((figure["kernel"], figure["n"]) for figure in found)
    lines: dict[str, dict[int, str]] = {}
    for figure in found:
        name = figure["kernel"] + (f", {figure['items']:,} ids" if several[figure["kernel"], figure["n"]] > 1 else "")
        share = f" ({100 * figure['of_copy']:.0f} %)" if figure["of_copy"] >= 0.01 else ""
        lines.setdefault(name, {})[figure["n"]] = f"{seconds(figure['median_us'] / 1e6)}{share}"
    return list(lines.items())


def by_samples(first: str, lines: list[Row]) -> list[str]:
    sizes = sorted({size for _, cells in lines for size in cells})
    head = [first, *(size_name(size) if size else "no" for size in sizes)]
    return [*table(head, ([name, *(cells.get(size, "-") for size in sizes)] for name, cells in lines)), ""] if lines else []


def training(document: Document) -> list[str]:
    timed = [figure for figure in figures(document, "training") if "device" in figure]
    if not timed:
        return []
    rows = []
    for figure in timed:
        name = f"step, {figure['how']}" if "how" in figure else "from logits to gradients alone"
        of_device = figure["device"]
        cells = [name, time_cell(of_device["plain"]), f"{1e6 * of_device['more']['median']:+.1f} us"]
        rows.append([*cells, interval(of_device["percent"]), interval(of_device["percent_again"])])
    lines = [f"A training step of {timed[0]['model']}, batches of {timed[0]['batch']}, with 95 % intervals:", ""]
    lines += table(["", "time without pruning", "pruning adds", "of a step", "a second run without it adds"], rows)
    for figure in figures(document, "training"):
        if "percent_of_epoch" in figure:
            lines += ["", f"A plan of its {figure['samples']:,} samples takes {figure['percent_of_epoch']:.2g} % of an epoch."]
    return [*lines, ""]


def training_in_short(document: Document) -> list[str]:
    """How much longer a step takes with pruning."""
    steps = [figure for figure in figures(document, "training") if "how" in figure]
    if not steps:
        return []
    added = "; ".join(f"{step['how']} {interval(step['device']['percent'])}" for step in steps)
    return [f"What pruning adds to a training step of {steps[0]['model']}, with 95 % intervals: {added}.", ""]


def checks(document: Document) -> str:
    """Whether what was asked on the GPU passed, and how much that was."""
    names = {"native": "Both backends side by side", "tests": "Tests", "sanitizers": "compute-sanitizer"}
    stages = {what: document["stages"][name] for name, what in names.items() if name in document["stages"]}
    return " ".join(f"{what}: {stage['line']}{'' if stage['passed'] else ' (FAILED)'}." for what, stage in stages.items())


def source(document: Document) -> str:
    commits = ", ".join(dict.fromkeys(stage["commit"][:10] for stage in document["stages"].values()))
    copies = [figure["bytes_a_second"] / 1e9 for figure in figures(document, "speed") if figure.get("what") == "copy"]
    card = f"{document['memory_bytes'] / 2**30:.0f} GiB" + "".join(
        f", copies at {copy:,.0f} GB/s read and written" for copy in copies
    )
    versions = f"driver {document['driver']}, CUDA {document['toolkit']}, torch {document['torch']}"
    return f"{document['device']} ({card}), {versions}; `make gpu-check` at {commits}."


def page(documents: list[Document]) -> list[str]:
    lines = ["# On a GPU", "", HOW_TO_READ]
    for document in documents:
        lines += [f"## {document['device']}", "", source(document), "", checks(document), ""]
        lines += by_samples("samples", rows(document, short=False)) + training(document)
        lines += by_samples("a kernel alone, and its share of the bandwidth of a copy", kernels(document))
    return lines


def summary(documents: list[Document]) -> list[str]:
    lines = []
    for document in documents:
        lines += ["", "On a GPU, by number of samples ([all of it](../benchmarks/results/gpu.md)):", ""]
        lines += [*by_samples("samples", rows(document, short=True)), KTHVALUE, "", *training_in_short(document), source(document)]
    return lines[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="without any nothing is written")
    parser.add_argument("--markdown", type=Path, required=True)
    parser.add_argument("--speed", type=Path)
    arguments = parser.parse_args()
    if documents := [json.loads(path.read_text()) for path in arguments.files]:
        arguments.markdown.write_text("\n".join(page(documents)).rstrip() + "\n")
        if arguments.speed:
            fill(arguments.speed, "gpu", summary(documents))


if __name__ == "__main__":
    main()
