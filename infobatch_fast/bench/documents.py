"""The JSON files that hold what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Document = dict[str, Any]


class NoMeasurement(ValueError):
    """A file that holds nothing that was measured."""


def read(path: Path) -> Document:
    """Reads one of these files.

    Raises:
        NoMeasurement: The file is of another kind.
    """
    try:
        document: Document = json.loads(path.read_text())
    except ValueError as error:
        raise NoMeasurement(f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict) or "machine" not in document:
        raise NoMeasurement(f"{path} holds no measurements: pass a file that `python -m infobatch_fast bench --out FILE` wrote")
    return document


def write(path: Path, document: Document) -> None:
    """Writes one of these files, and makes the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
