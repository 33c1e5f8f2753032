"""Puts together the sources of the documentation's site: the pages of this repository where they lie, and a reference page.

    python scripts/site.py build/site-source && mkdocs build --strict

Pages link to each other, to examples and to results by paths in the repository, so the site has the same folders. The reference
is made of the docstrings by mkdocstrings.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHOWN = ("*.md", "*.png", "examples/*.py", "benchmarks/*.py", "benchmarks/results/*.json*", "scripts/*.py", "csrc/*.h", "LICENSE")
REFERENCE = {  # what a user imports, by what it is for
    "The three lines": ["InfoBatch", "with_index", "collate_with_index", "InfoBatchSampler", "InfoBatchBatchSampler", "EpochStats"],
    "Policies": ["MeanThreshold", "ImportanceSampling", "QuantileTiers", "RandomPruning", "NoPruning", "Policy"],
    "Losses of samples": ["per_sample", "token_losses", "pixel_losses"],
    "Schedules and streams": ["EpochProgressLR", "KeptOnly", "IndexedDataset"],
    "Static selection": [f"selection.{name}" for name in ("select", "error_norms", "gradient_norms", "ForgettingEvents")],
    "Logs": ["logs.JsonLines", "integrations.tensorboard.TensorBoardWriter"],
    "Trainers": [
        *("integrations.transformers.InfoBatchTrainer", "integrations.lightning.InfoBatchCallback"),
        "integrations.accelerate.prepare",
    ],
    "The published package's names": ["compat.InfoBatch", "compat.DataLoader"],
}


def reference() -> str:
    """A heading for each group, and for each name what mkdocstrings makes a section of."""
    parts = ["# Reference", "Everything that is public, from its docstrings."]
    for title, names in REFERENCE.items():
        parts += [f"## {title}", *(f"::: infobatch_fast.{name}" for name in names)]
    return "\n\n".join(parts) + "\n"


def main(target: Path) -> None:
    """Copies what is tracked, and writes the reference."""
    shutil.rmtree(target, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", *SHOWN], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name)
    (target / "reference.md").write_text(reference())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
