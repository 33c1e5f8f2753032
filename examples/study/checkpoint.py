"""A run between two of its steps, on disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from clock import Clock
from config import Run
from torch import nn

from infobatch_fast import InfoBatch


@dataclass(frozen=True)
class Checkpoint:
    """All that changes in a run, and the file that holds it."""

    path: Path
    run: Run
    model: nn.Module
    optimizer: torch.optim.Optimizer
    pruner: InfoBatch
    generator: torch.Generator

    def save(self, clock: Clock, step: int) -> None:
        """After ``step`` steps of the epoch in progress. In one piece: an interrupted write leaves the checkpoint before."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "pruner": self.pruner.state_dict(),
            "generator": self.generator.get_state(),
            "clock": clock.seconds,
            "run": asdict(self.run),
            "step": step,
        }
        partial = self.path.with_suffix(".part")
        torch.save(state, partial)
        partial.replace(self.path)

    def load(self) -> tuple[Clock, int]:
        """Restores everything in place, if there is a file; returns the clock of the run and the steps of the epoch in progress.

        The file's name says the settings: a run of others has another file.
        """
        if not self.path.exists():
            return Clock(), 0
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.pruner.load_state_dict(state["pruner"])
        self.generator.set_state(state["generator"])
        for entry in fields(Run):
            if entry.name != "session":
                setattr(self.run, entry.name, state["run"][entry.name])
        self.run.interruptions += 1
        return Clock(*state["clock"]), state["step"]
