"""Markdown tables of measured JSON documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from . import growth
from .contender import Ours

Document = dict[str, Any]

HOW_TO_READ = """\
Medians, with quartiles in brackets (with fewer than four runs: the range). All contenders of a row ran alternately in one process,
and a ratio is the median over rounds of (their time / infobatch_fast's time of the same round): above 1, infobatch_fast is faster.
"Floor" is what the operation cannot do without on that machine, done by torch alone: one read of the scores for a plan; for an
order a random read for each index, and the Python ints (as a tensor: a copy); for an epoch a read of the scores and an order's
(as a tensor: the random reads); storing the losses (`index_copy_`) for an update; writing the scores for a checkpoint. "-" stands
where a contender does not have the operation, or did not fit into memory.
"""


def markdown(documents: Sequence[Document]) -> str:
    """Tables of all documents, one section each."""
    text = ["# Measured", "", HOW_TO_READ]
    for document in documents:
        text += _section(document)
    return "\n".join(text).rstrip() + "\n"


def _section(document: Document) -> list[str]:
    machine, versions = document["machine"], document["versions"]
    gpus = ", ".join(gpu["name"] for gpu in machine["gpus"])
    text = [f"## {machine['cpu']}, {machine['cores']} cores{', ' + gpus if gpus else ''}", ""]
    text += [
        f"- command: `{document['command']}`",
        f"- commit {document['commit'] or 'unknown'}, {document['started']}; infobatch_fast {versions['infobatch_fast']}, "
        f"torch {versions['torch']}, NumPy {versions['numpy']}, Python {versions['python']}",
        f"- {document['threads']} threads, {machine['instructions']}, {machine['memory_bytes'] / 2**30:.0f} GiB, huge pages "
        f"{machine['huge_pages']}; load average before {document['load_before']}, after {document.get('load_after')}",
    ]
    if document.get("quick"):
        text.append("- quick figures: few rounds, for development")
    text.append("")
    for device in sorted({row["device"] for row in document.get("rows", [])}):
        text += _operations(document, device) + _bounds(document, device) + _growth(document, device)
        text += _memory(document, device)
    if document.get("training"):
        text += _training(document["training"])
    return text


def _names(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Contenders other than ours, in the order of their first row."""
    names = dict.fromkeys(name for row in rows for name in row["contenders"])
    return [name for name in names if name != Ours.name]


def _operations(document: Document, device: str) -> list[str]:
    rows = [row for row in document["rows"] if row["device"] == device]
    scaling = [row for row in rows if row["operation"].endswith("by threads")]
    rows = [row for row in rows if row not in scaling]
    names = _names(rows)
    text = [f"### Operations on {device}", ""]
    text += table_head(["operation", "samples", "time", "ns", "GB/s", "x floor", *(f"vs {name}" for name in names)])
    places = {name: place for place, name in enumerate(dict.fromkeys(row["operation"] for row in rows))}
    for row in sorted(rows, key=lambda row: (row["batch"] or 0, places[row["operation"]], row["samples"])):
        ours = row["contenders"].get(Ours.name)
        if ours is None:
            continue
        cells = [row["operation"], size_name(row["samples"]), time_cell(ours["seconds"], row["unit"])]
        cells += [f"{ours['ns']:.3g} {row['unit']}", f"{ours['gb_s']:.3g}", ratio_cell(ours.get("of_floor"))]
        cells += [ratio_cell(row["contenders"].get(name, {}).get("ratio")) for name in names]
        text.append(table_line(cells))
    left_out = {f"{name}, {size_name(row['samples'])} samples: {why}" for row in rows for name, why in row["left_out"].items()}
    text += ["", *(f"- left out: {line}" for line in sorted(left_out)), *([""] if left_out else [])]
    if scaling:
        text += [
            f"### Plan by threads, {size_name(scaling[0]['samples'])} samples",
            "",
            *table_head(["threads", "time", "ns a sample"]),
        ]
        for row in scaling:
            ours = row["contenders"][Ours.name]
            text.append(table_line([str(row["threads"]), time_cell(ours["seconds"], ""), f"{ours['ns']:.3g}"]))
        text.append("")
    return text


def _bounds(document: Document, device: str) -> list[str]:
    text = []
    if rows := [row for row in document.get("parts", []) if row["device"] == device]:
        text += [f"### What the time goes into on {device}", ""]
        text += [
            "Parts of the operations, and what torch alone takes for the memory that they must touch, in alternating runs.",
            "",
        ]
        text += _parts(rows)
    if philox := document.get("philox", {}).get(device):
        text += [
            f"Arithmetic of a plan's draws (calculated): {philox['operations_a_sample']:.3g} operations a sample, "
            f"{philox['lanes']} a cycle at the stated {philox['clock_hertz'] / 1e9:.2f} GHz: "
            f"{philox['ns_a_sample']:.3g} ns a sample.",
            "",
        ]
    return text


def _parts(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each part, a column for each size and number of threads; ns of an item, as the operation's name says."""
    columns = list(dict.fromkeys((row["samples"], row["threads"]) for row in rows))
    lines = dict.fromkeys((row["operation"], row["part"]) for row in rows)
    found = {(row["operation"], row["part"], row["samples"], row["threads"]): row["ns"] for row in rows}
    text = table_head(
        ["operation", "part", *(f"{size_name(size)}, {threads} thread{'s' * (threads > 1)}" for size, threads in columns)]
    )
    for operation, part in lines:
        cells = (found.get((operation, part, *column)) for column in columns)
        text.append(table_line([f"{operation}, ns", part, *("-" if cell is None else f"{cell:.3g}" for cell in cells)]))
    return [*text, ""]


def _growth(document: Document, device: str) -> list[str]:
    names = dict.fromkeys(row["operation"] for row in document["rows"] if row["device"] == device)
    table = []
    for operation in names:
        fits = {name: growth.slope(points) for name, points in growth.of_operation(document, device, operation).items()}
        if (
            operation.startswith(("plan", "epoch", "update", "order"))
            and not operation.endswith("threads")
            and fits.get(Ours.name) is not None
        ):
            table.append((operation, fits))
    if not table:
        return []
    columns = list(dict.fromkeys(name for _, fits in table for name in fits))
    text = [f"### How time grows with the number of samples on {device}", ""]
    text += ["The exponent b of the fitted time = a N^b: 1 is linear, 0 is flat. An order's time is that of one index.", ""]
    text += table_head(["operation", *columns])
    for operation, fits in table:
        text.append(table_line([operation, *(_number(fits.get(name)) for name in columns)]))
    return [*text, ""]


def _memory(document: Document, device: str) -> list[str]:
    rows = [row for row in document.get("memory", []) if row["device"] == device]
    if not rows:
        return []
    kind = "gpu_" if device == "cuda" else ""
    names = list(dict.fromkeys(row["contender"] for row in rows))
    text = [f"### Memory on {device}, bytes a sample", ""]
    text += ["Held after a plan and its first ids / at most until then, above a process that has done the same with 100,000.", ""]
    text += table_head(["samples", *names])
    for size in sorted({row["samples"] for row in rows}):
        found = {row["contender"]: row for row in rows if row["samples"] == size}
        cells = []
        for name in names:
            row = found.get(name)
            held, peak = (row.get(f"{kind}{key}_bytes", 0) for key in ("held", "peak")) if row else (0, 0)
            cells.append(f"{held / size:.1f} / {peak / size:.1f}" if row else "-")
        text.append(table_line([size_name(size), *cells]))
    return [*text, ""]


def _training(runs: Sequence[dict[str, Any]]) -> list[str]:
    text = []
    for run in runs:
        text += [f"### What a training step pays: {run['model']} on {run['device']}, batches of {run['batch']}", ""]
        text += [f"{run['steps']} steps of each, alternately; overhead = step time with / without - 1, with its 95 % interval."]
        text += [
            "The last column is what weighting and recording a loss adds, timed without a model, as a share of the plain step.",
            "",
        ]
        text += table_head(["variant", "step", "overhead", "of it in the loss"])
        for name, variant in run["variants"].items():
            over = variant.get("overhead_percent")
            interval = f"{over['mean']:+.2f} % ({over['low']:+.2f} to {over['high']:+.2f})" if over else "-"
            loss = variant.get("loss_percent")
            share = f"{loss['median']:.3f} % ({loss['low']:.3f} to {loss['high']:.3f})" if loss else "-"
            text.append(table_line([name, time_cell(variant["seconds"], "step"), interval, share]))
        text += ["", f"Share of an epoch in plan and sampler, {run['epoch_share_basis']}:", ""]
        text += table_head(["samples", *run["epoch_share_percent"]])
        for size in run["epoch_share_sizes"]:
            shares = (run["epoch_share_percent"][name][str(size)] for name in run["epoch_share_percent"])
            text.append(table_line([size_name(size), *(f"{share:.3g} %" for share in shares)]))
        text.append("")
    return text


def table_head(cells: Sequence[str]) -> list[str]:
    """The first two lines of a table."""
    return [table_line(cells), table_line(["---"] * len(cells))]


def table_line(cells: Sequence[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def size_name(size: int) -> str:
    """A number of samples, in short."""
    power = len(str(size)) - 1
    return f"1e{power}" if size == 10**power else f"{size:,}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def ratio_cell(spread: dict[str, Any] | None) -> str:
    """A ratio with its quartiles."""
    return "-" if spread is None else f"{spread['median']:.3g} ({spread['low']:.3g}-{spread['high']:.3g})"


def time_cell(spread: dict[str, Any], unit: str) -> str:
    """A time with its quartiles, in a fitting unit."""
    scale, name = next(
        (s, n) for s, n in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")) if spread["median"] >= s or n == "ns"
    )
    low, middle, high = (spread[key] / scale for key in ("low", "median", "high"))
    return f"{middle:.3g} {name} ({low:.3g}-{high:.3g}){' ' + unit if unit == 'an index' else ''}"
