"""What is compared on the GPU: each method says which samples an epoch visits, what they weigh, and how the learning rate falls."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from infobatch_fast import ImportanceSampling, MeanThreshold, NoPruning, Policy, RandomPruning

DELTA = 0.875  # of the epochs, after which all samples are used again
Draw = Literal["all", "uniform", "mean", "importance"]


@dataclass(frozen=True)
class Method:
    """A way to train on a part of the visits of full training.

    Attributes:
        title: In tables.
        draw: Which samples an epoch visits: all of them, uniformly drawn ones, those of InfoBatch's mean threshold, or those of
            importance sampling.
        visits: The part of the visits of full training; None is what the mean threshold visits with the same seed.
        rescale: That of ``InfoBatch``: steps that are larger by N / kept, as in the paper, or as large as in full training.
        by: The learning rate falls by the epochs that are over, or by the samples that were visited.
        weighted: Whether kept samples weigh 1 / keep probability. Without, the gradient is biased towards the samples that are
            kept often.
    """

    title: str
    draw: Draw
    visits: float | None
    rescale: Literal["epoch", "step"] = "step"
    by: Literal["epochs", "visits"] = "visits"
    weighted: bool = True

    def policy(self, visits: float, epochs: int) -> Policy:
        """What draws the epochs of a run that visits this part. The first epoch is full, and those from delta on are."""
        if self.draw == "all":
            return NoPruning()
        if self.draw == "mean":
            return MeanThreshold()
        saved = (1 - visits) * epochs / (math.floor(DELTA * epochs) - 1)
        return RandomPruning(saved) if self.draw == "uniform" else ImportanceSampling(saved)


METHODS = {
    "full": Method("full data", "all", 1.0),
    "fewer-50": Method("fewer epochs", "all", 0.5),
    "uniform-50": Method("uniform pruning", "uniform", 0.5),
    "importance-50": Method("importance sampling", "importance", 0.5),
    "importance-50-biased": Method("importance sampling without weights (biased)", "importance", 0.5, weighted=False),
    "infobatch": Method("InfoBatch as it comes", "mean", None, "epoch", "epochs"),
    "infobatch-step": Method("InfoBatch, steps of full size, schedule by visits", "mean", None),
    "fewer": Method("fewer epochs", "all", None),
    "uniform": Method("uniform pruning", "uniform", None),
    "importance": Method("importance sampling", "importance", None),
    "uniform-50-epoch": Method("uniform pruning, larger steps, schedule by epochs", "uniform", 0.5, "epoch", "epochs"),
    "uniform-50-large": Method("uniform pruning, larger steps, schedule by visits", "uniform", 0.5, "epoch", "visits"),
    "uniform-50-early": Method("uniform pruning, schedule by epochs", "uniform", 0.5, "step", "epochs"),
    "infobatch-large": Method("InfoBatch, schedule by visits", "mean", None, "epoch", "visits"),
    "infobatch-early": Method("InfoBatch, steps of full size", "mean", None, "step", "epochs"),
    "importance-50-epoch": Method("importance sampling, larger steps, schedule by epochs", "importance", 0.5, "epoch", "epochs"),
}
MEASURED_BY = "infobatch"  # whose visits the methods with visits=None take


def visits_of(method: Method, done: dict[str, Any] | None, full: int) -> float:
    """The part of the visits of full training that a run is to take; ``done`` is the run of ``MEASURED_BY`` with the same seed."""
    if method.visits is not None:
        return method.visits
    return sum(done["visited"]) / full if done else 1.0
