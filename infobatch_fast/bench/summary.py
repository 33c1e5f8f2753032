"""The short table of speed that stands in the README, made of the same JSON documents as the long ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .contender import Ours
from .report import Document, ratio_cell, size_name, table_head, table_line, time_cell

OPERATIONS = ("plan, mean", "order, batches of 256", "epoch, one by one", "update, B = 1024", "update, B = 4096")
SIZES = (10**6, 10**8, 10**9)


def insert(documents: Sequence[Document], path: Path) -> None:
    """Puts the summary between the two marks in ``path``.

    Raises:
        ValueError: The marks are not there.
    """
    fill(path, "speed", _lines(documents))


def fill(path: Path, part: str, lines: Sequence[str]) -> None:
    """Puts ``lines`` between the two marks for ``part`` in ``path``.

    Raises:
        ValueError: The marks are not there.
    """
    begin, end = f"<!-- {part}:begin -->", f"<!-- {part}:end -->"
    block, text = re.compile(f"({begin}\n).*?({end})", re.DOTALL), path.read_text()
    if not block.search(text):
        raise ValueError(f"{path} has no part between {begin} and {end}: add these two lines")
    path.write_text(block.sub(lambda match: match[1] + "\n".join([*lines, match[2]]), text))


def _lines(documents: Sequence[Document]) -> list[str]:
    lines: list[str] = []
    for document in documents:
        for device in sorted({row["device"] for row in document.get("rows", [])}):
            lines += [*_ratios(document, device), "", _source(document), ""]
        for run in document.get("training", []):
            lines += [*_training(run), "", _source(document), ""]
    return lines[:-1]


def _ratios(document: Document, device: str) -> list[str]:
    rows = [row for row in document["rows"] if row["device"] == device and row["operation"] in OPERATIONS]
    rows = [row for row in rows if row["samples"] in SIZES and Ours.name in row["contenders"]]
    names = [name for name in dict.fromkeys(name for row in rows for name in row["contenders"]) if name != Ours.name]
    lines = [
        f"Time on {device}, and how many times as long the others take (medians and quartiles of alternating runs; below 1 they "
        "are faster; -: has no such operation, or was left out for memory or time):",
        "",
        *table_head(["operation", "samples", "time", *names]),
    ]
    for row in sorted(rows, key=lambda row: (OPERATIONS.index(row["operation"]), row["samples"])):
        ratios = (ratio_cell(row["contenders"].get(name, {}).get("ratio")) for name in names)
        ours = time_cell(row["contenders"][Ours.name]["seconds"], row["unit"])
        lines.append(table_line([row["operation"], size_name(row["samples"]), ours, *ratios]))
    return lines


def _training(run: dict[str, Any]) -> list[str]:
    lines = [f"What a training step pays, {run['model']} on {run['device']}, batches of {run['batch']}:", ""]
    shares = run["epoch_share_percent"]
    sizes = [size for size in run["epoch_share_sizes"] if size in SIZES]
    lines += table_head(["variant", "step", "overhead (95 %)", *(f"share of an epoch at {size_name(size)}" for size in sizes)])
    for name, variant in run["variants"].items():
        over = variant.get("overhead_percent")
        interval = f"{over['mean']:+.2f} % ({over['low']:+.2f} to {over['high']:+.2f})" if over else "-"
        share = [f"{shares[name][str(size)]:.3g} %" if name in shares else "-" for size in sizes]
        lines.append(table_line([name, time_cell(variant["seconds"], "step"), interval, *share]))
    return [*lines, "", f"Share of an epoch: plan and sampler, {run['epoch_share_basis']}."]


def _source(document: Document) -> str:
    machine = document["machine"]
    commit = document["commit"] or "unknown"  # where the package lay outside of its source tree
    commit = commit[:10] + (" with changes" if commit.endswith("+changes") else "")
    gpus = "".join(f", {gpu['name']}" for gpu in machine["gpus"])
    return (
        f"{machine['cores']} cores of {machine['cpu']}{gpus}, {document['threads']} threads, torch "
        f"{document['versions']['torch']}; `{document['command']}` at {commit}."
    )
