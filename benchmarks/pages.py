"""Parts of Markdown pages: tables, intervals, where figures come from, and what stands between two marks."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]


def interval(percent: dict[str, float], digits: int = 3) -> str:
    mean, low, high = (f"{percent[key]:+.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} % ({low} to {high})"


def machine_of(document: dict[str, Any]) -> str:
    machine = document["machine"]
    gpus = "".join(f", {gpu['name']}" for gpu in machine["gpus"])
    return (
        f"{machine['cores']} cores of {machine['cpu']}{gpus}, {document['threads']} threads, torch {document['versions']['torch']}"
    )


def run_of(made_by: dict[str, Any]) -> str:
    commit = made_by["commit"] or "unknown"  # where the package lay outside of its source tree
    return f"`{made_by['command']}` at {commit[:10]}{' with changes' * commit.endswith('+changes')}"


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
