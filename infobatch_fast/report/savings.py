"""How many samples and how much time a run saved."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean, median
from typing import Any

Epoch = dict[str, Any]


@dataclass(frozen=True)
class Savings:
    """What pruning saved, epoch by epoch.

    Attributes:
        samples: Samples skipped up to and with each epoch.
        seconds: Seconds saved up to and with each epoch; None where no epoch was timed.
        spent: Seconds of the epochs that were timed.
        basis: Where the seconds come from, in words.
    """

    samples: list[int]
    seconds: list[float] | None
    spent: float
    basis: str


def measure(epochs: list[Epoch]) -> Savings:
    """Savings of a run.

    An epoch without pruning is estimated to take num_samples times the median seconds per sample. The median is over the full
    epochs, or over all epochs if none is full. A pruned epoch saves the difference from that estimate. Interrupted epochs have no
    time.

    Args:
        epochs: Lines of ``read_run``.
    """
    samples = list(accumulate(epoch["num_samples"] - epoch["kept"] for epoch in epochs))
    timed = [epoch for epoch in epochs if _is_timed(epoch)]
    if not timed:
        return Savings(samples, None, 0.0, "no epoch was timed")
    full = [epoch for epoch in timed if epoch["kept"] == epoch["num_samples"]]
    per_sample = median(epoch["seconds"] / epoch["kept"] for epoch in full or timed)
    saved = [
        epoch["num_samples"] * per_sample - epoch["seconds"] if _is_timed(epoch) and epoch["kept"] < epoch["num_samples"] else 0.0
        for epoch in epochs
    ]
    kind = f"the {len(full)} full epochs" if full else f"{len(timed)} pruned epochs, as no full one was timed"
    basis = f"estimated from {per_sample * 1e6:,.3g} us a sample, the median of {kind}"
    if len(timed) < len(epochs):
        basis += f"; {len(epochs) - len(timed)} epochs that were interrupted or not timed are left out"
    return Savings(samples, list(accumulate(saved)), sum(epoch["seconds"] for epoch in timed), basis)


def _is_timed(epoch: Epoch) -> bool:
    """Whether the time of this epoch tells the time per sample."""
    return bool(epoch.get("seconds")) and epoch["kept"] > 0 and not epoch.get("resumed")


def summarise(epochs: list[Epoch]) -> list[str]:
    """Sentences about a run, for the picture's title and the page."""
    savings, last = measure(epochs), epochs[-1]
    offered = sum(epoch["num_samples"] for epoch in epochs)
    of_run = f"{savings.samples[-1]:,} of {offered:,} samples skipped ({savings.samples[-1] / offered:.1%})"
    span = f"epochs {epochs[0]['epoch']} to {last['epoch']} of {last['num_samples']:,} samples"
    text = [f"{span}: {of_run}"]
    if savings.seconds is None:
        text.append("Time saved: unknown, as no epoch was timed")
    else:
        whole = savings.seconds[-1] + savings.spent  # below what was spent where epochs took longer and longer
        rate = f" ({savings.seconds[-1] / whole:.1%})" if whole > 0 else ""
        text.append(f"Time saved: {clock(savings.seconds[-1])}{rate}, {savings.basis}")
    noise = [epoch["added_noise"] for epoch in epochs if epoch.get("added_noise")]
    if noise:
        text.append(f"Noise added to the gradient: {fmean(noise):.2f} of what uniform pruning adds, on average over pruned epochs")
    lost = sum(epoch["non_finite"] for epoch in epochs)
    if lost:
        text.append(f"{lost:,} losses were NaN or infinite and were not recorded")
    return text


def clock(seconds: float) -> str:
    """Seconds in a suitable unit."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.3g} s"


def every(epochs: list[Epoch], most: int) -> list[Epoch]:
    """All epochs. If there are more than ``most``, that many evenly spaced ones, the first and the last included."""
    if len(epochs) <= most:
        return epochs
    return [epochs[place * (len(epochs) - 1) // (most - 1)] for place in range(most)]
