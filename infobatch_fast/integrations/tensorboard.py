"""A run's statistics in TensorBoard."""

from __future__ import annotations

import math
from os import PathLike
from typing import Any

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError as error:
    raise ImportError(
        f"infobatch_fast.integrations.tensorboard needs tensorboard 2.12 or newer: pip install 'tensorboard>=2.12' ({error})"
    ) from error

from ..pruner import InfoBatch


class TensorBoardWriter:
    """Writes ``pruner.stats`` as scalars and ``pruner.histogram()`` as a histogram, once an epoch, under "infobatch/".

    Args:
        writer: A folder for the event files, or a ``SummaryWriter`` of yours, which you close yourself.

    Example:
        >>> board = TensorBoardWriter("runs/1")        # doctest: +SKIP
        >>> board.write(pruner)                        # doctest: +SKIP
    """

    def __init__(self, writer: str | PathLike[str] | SummaryWriter) -> None:
        if not isinstance(writer, (str, PathLike, SummaryWriter)):
            raise TypeError(f"writer must be a folder or a SummaryWriter, got {writer!r}")
        self._writer = writer
        self._is_ours = not isinstance(writer, SummaryWriter)

    def write(self, pruner: InfoBatch, step: int | None = None, **extra: float) -> None:
        """Writes the current epoch. Call it once an epoch, after the last step, on all ranks; rank 0 writes.

        Args:
            pruner: The pruner whose statistics are written.
            step: TensorBoard's step. None takes the epoch.
            **extra: More scalars.

        Raises:
            IndexError: As ``pruner.stats``; nothing is written then.
        """
        stats, (counts, edges) = pruner.stats, pruner.histogram()
        if pruner.rank != 0:
            return
        if not isinstance(self._writer, SummaryWriter):
            self._writer = SummaryWriter(str(self._writer))
        writer, step = self._writer, stats.epoch if step is None else step
        scalars: dict[str, float] = {
            "kept": stats.kept,
            "saved_fraction": stats.saved_fraction,
            "total_saved_fraction": stats.total_saved_fraction,
            "seen_fraction": stats.seen / stats.num_samples,
            "added_noise": stats.added_noise,
            "scored": stats.scored,
            "non_finite": stats.non_finite,
            "plan_seconds": stats.plan_seconds,
            **{f"threshold_{tier}": value for tier, value in enumerate(stats.thresholds) if math.isfinite(value)},
            **extra,
        }
        for name, value in scalars.items():
            writer.add_scalar(f"infobatch/{name}", value, step)
        seen = int(counts.sum())
        if seen:
            middle = (edges[1:] + edges[:-1]) / 2  # TensorBoard does not show the sums: bins are exact enough for them
            writer.add_histogram_raw(
                "infobatch/scores",
                min=float(edges[0]),
                max=float(edges[-1]),
                num=seen,
                sum=float((counts * middle).sum()),
                sum_squares=float((counts * middle**2).sum()),
                bucket_limits=edges[1:].tolist(),
                bucket_counts=counts.tolist(),
                global_step=step,
            )
        writer.flush()

    def close(self) -> None:
        """Closes what this object opened. A ``SummaryWriter`` of yours stays open."""
        if self._is_ours and isinstance(self._writer, SummaryWriter):
            self._writer.close()

    def __enter__(self) -> TensorBoardWriter:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
