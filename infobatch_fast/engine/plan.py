"""The plan of one epoch: which samples are kept, what they weigh, and in which order they come."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from . import ops


@dataclass(frozen=True)
class Plan:
    """Bits and a key: the marks in the table say what is kept, and ``order`` computes the epoch's order piece by piece.

    Attributes:
        weights: Weight of each tier that exists.
        length: Indices that this rank yields.
        own: Samples that this rank keeps.
        available: How many of these indices are this rank's own samples; positions from there on repeat the start of the order.
        restored: The plan goes on after a restart, without the samples that were visited before.
        directory: What ``epoch_order`` points into. The plan keeps it alive, as a planner of a larger data set may replace it.
        version: Version of the directory while this plan is the one written there.
        side_stream: Stream on which the order is computed ahead of its use; None on the CPU.
        token: Identifies the plan to others without keeping the plan and its table alive.
    """

    epoch: int
    pruned: bool
    cutoffs: ops.Cutoffs
    weights: tuple[float, ...]
    thresholds: tuple[float, ...]
    seen: int
    kept: int
    own: int
    available: int
    length: int
    tier_sizes: tuple[int, ...]
    tier_kept: tuple[int, ...]
    restored: bool
    seconds: float
    epoch_order: ops.EpochOrder
    directory: ops.BitDirectory
    version: int
    remaining: ops.BitDirectory | None
    device: torch.device
    side_stream: torch.cuda.Stream | None
    token: object = field(default_factory=object)

    def order(self, start: int, stop: int) -> torch.Tensor:
        """Sample ids at positions [start, stop) of this rank's epoch: int64 [stop - start], on the table's device.

        Raises:
            RuntimeError: The next plan was written over this one, perhaps by another thread.
        """
        with self.directory.lock:
            if self.directory.version != self.version:
                raise RuntimeError(
                    f"this iterator belongs to epoch {self.epoch}, but another plan has taken the place of its own: start a new "
                    "iteration after set_epoch() or load_state_dict()"
                )
            return self._order(start, stop)

    def unvisited(self, marks: torch.Tensor, most: int) -> torch.Tensor:
        """The last ``most`` samples of this rank that ``marks`` show as unvisited, in their order: int64. Waits for the device."""
        with self.directory.lock:
            remaining = ops.BitDirectory(ops.mark_remaining(self.epoch_order, self.own, marks))
            left = int(remaining.build()[0])
            return ops.order(self.epoch_order, remaining, max(0, left - most), left, self.device)

    def _order(self, start: int, stop: int) -> torch.Tensor:
        own = min(stop, self.available)
        pieces = [ops.order(self.epoch_order, self.remaining, start, own, self.device)] if start < own else []
        if own < stop:  # padding: from the start of the whole order
            first = max(start, own) - self.available
            pieces.append(ops.order(self.epoch_order, None, first, first + stop - max(start, own), self.device))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces or [torch.empty(0, dtype=torch.int64, device=self.device)])
