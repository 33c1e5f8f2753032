"""The JSON files that hold what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Document = dict[str, Any]


def read(path: Path) -> Document:
    """Reads one of these files."""
    document: Document = json.loads(path.read_text())
    return document


def write(path: Path, document: Document) -> None:
    """Writes one of these files, and makes the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
