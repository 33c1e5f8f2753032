"""What is compared: each method says which samples an epoch visits, what they weigh, and how the learning rate falls."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from infobatch_fast import ImportanceSampling, MeanThreshold, NoPruning, Policy, RandomPruning

DELTA = 0.875  # of the epochs, after which all samples are used again
Draw = Literal["all", "uniform", "mean", "importance"]
TITLES: dict[Draw, str] = {
    "all": "fewer epochs",
    "uniform": "uniform pruning",
    "mean": "InfoBatch's mean threshold",
    "importance": "importance sampling",
}


@dataclass(frozen=True)
class Method:
    """A way to train on a part of the visits of full training.

    Attributes:
        draw: Which samples an epoch visits: all of them, uniformly drawn ones, those of InfoBatch's mean threshold, or those of
            importance sampling.
        visits: The part of the visits of full training; None is what the mean threshold visits with the same seed.
        rescale: That of ``InfoBatch``: steps that are larger by N / kept, as in the paper, or as large as in full training.
        by: The learning rate falls by the epochs that are over, or by the samples that were visited.
        min_keep: That of ``ImportanceSampling``, whose default is None.
        weighted: Whether kept samples weigh 1 / keep probability. Without, the gradient is biased towards the samples that are
            kept often.
    """

    draw: Draw
    visits: float | None
    rescale: Literal["epoch", "step"] = "step"
    by: Literal["epochs", "visits"] = "visits"
    min_keep: float | None = None
    weighted: bool = True

    @property
    def title(self) -> str:
        if self.draw == "all" and self.visits == 1:
            return "full data"
        floor = f", min_keep={self.min_keep:g}" if self.min_keep else ""
        return TITLES[self.draw] + floor + ("" if self.weighted else " without weights (biased)")

    def policy(self, visits: float, epochs: int) -> Policy:
        """What draws the epochs of a run that visits this part. The first epoch is full, and those from delta on are."""
        if self.draw == "all":
            return NoPruning()
        if self.draw == "mean":
            return MeanThreshold()
        saved = round((1 - visits) * epochs / (math.floor(DELTA * epochs) - 1), 6)
        return RandomPruning(saved) if self.draw == "uniform" else ImportanceSampling(saved, min_keep=self.min_keep)


STEPS: dict[str, dict[str, Any]] = {  # what is appended to a method's name
    "": {},
    "-early": {"by": "epochs"},
    "-large": {"rescale": "epoch"},
    "-epoch": {"rescale": "epoch", "by": "epochs"},
}
METHODS: dict[str, Method] = {
    "full": Method("all", 1.0),
    "fewer-50": Method("all", 0.5),
    **{f"uniform-50{end}": Method("uniform", 0.5, **steps) for end, steps in STEPS.items()},
    **{f"importance-50{end}": Method("importance", 0.5, **steps) for end, steps in STEPS.items()},
    "importance-50-low": Method("importance", 0.5, min_keep=0.1),
    "importance-50-biased": Method("importance", 0.5, weighted=False),
    "fewer-70": Method("all", 0.7),
    "uniform-70": Method("uniform", 0.7),
    "uniform-70-epoch": Method("uniform", 0.7, **STEPS["-epoch"]),
    "importance-70": Method("importance", 0.7),
    "importance-70-epoch": Method("importance", 0.7, **STEPS["-epoch"]),
    "importance-70-biased": Method("importance", 0.7, weighted=False),
    "infobatch": Method("mean", None, **STEPS["-epoch"]),
    "infobatch-large": Method("mean", None, **STEPS["-large"]),
    "infobatch-early": Method("mean", None, **STEPS["-early"]),
    "infobatch-step": Method("mean", None),
    "fewer": Method("all", None),
    "uniform": Method("uniform", None),
    "importance": Method("importance", None),
}
MEASURED_BY = "infobatch"  # whose visits the methods with visits=None take


def visits_of(method: Method, done: dict[str, Any] | None, full: int) -> float:
    """The part of the visits of full training that a run is to take; ``done`` is the run of ``MEASURED_BY`` with the same seed.

    The mean threshold is not asked: it takes what it takes, and 1 stands for that.
    """
    if method.visits is not None or method.draw == "mean":
        return method.visits or 1.0
    assert done is not None, f"the run of {MEASURED_BY} comes first"
    return float(sum(done["visited"]) / full)


def orphans(names: list[str]) -> str:
    """The names of methods that take as many visits as ``MEASURED_BY``, where that is not among them."""
    takers = [name for name in names if METHODS[name].visits is None and METHODS[name].draw != "mean"]
    return "" if MEASURED_BY in names else ", ".join(takers)
