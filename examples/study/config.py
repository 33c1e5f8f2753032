"""What is trained, and how: everything that decides a number of the study, apart from the seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

PRUNE_RATIO = 0.5  # the paper's settings for method "infobatch"
DELTA = 0.875  # of the epochs, after which all methods use all samples again
METHODS = {  # in the order in which they run: the last two need what "infobatch" saved with the same seed
    "full": "full data",
    "infobatch": "InfoBatch, mean threshold",
    "tiers": "InfoBatch, quantile tiers",
    "random": "random pruning",
    "fewer": "full data, fewer epochs",
}


@dataclass(frozen=True)
class Optimizer:
    """An optimiser by name: "sgd" (Nesterov momentum 0.9), "adamw", "lars" or "lamb"."""

    name: str
    rate: float  # the peak of the schedule: warm-up, then a cosine down to 0
    weight_decay: float


@dataclass(frozen=True)
class Config:
    """A workload at one scale.

    Attributes:
        workload: "digits", "cifar" or "text".
        epochs: Of all methods but "fewer".
        optimizers: Each of them trains with each method.
        sizes: Arguments of the model.
        train_size: Training samples, drawn anew for each seed; None is all there are.
        curve_size: Test samples behind the points of a curve; the last point is always measured on all.
        warmup: Fraction of the run in which the learning rate rises.
        batching: "even" cuts an epoch into batches of equal size, give or take one. "remainder" fills all but the last, as a
            DataLoader does: what is left over then differs from epoch to epoch, and may be a single sample.
        rescale: That of ``InfoBatch``.
        by: The learning rate falls by the "epochs" that are over, or by the samples that were visited, "visits".
    """

    workload: str
    epochs: int
    batch_size: int
    optimizers: tuple[Optimizer, ...]
    sizes: dict[str, Any]
    methods: tuple[str, ...] = tuple(METHODS)
    train_size: int | None = None
    curve_size: int | None = None
    warmup: float = 0.15
    batching: str = "even"
    prune_ratio: float = PRUNE_RATIO
    delta: float = DELTA
    quantiles: tuple[float, ...] = (0.2, 0.85)
    tier_ratios: tuple[float, ...] = (0.75, 0.5)
    rescale: Literal["epoch", "step"] = "epoch"
    by: str = "epochs"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Run:
    """What one training run did. All lists are by epoch.

    Attributes:
        prune_ratio: Of random pruning; None for other methods.
        metric: Test accuracy, or validation loss in bits a byte.
        visited: Samples.
        wall, cpu: Seconds in training: wall clock, and processor time of the process. Measuring is not counted.
        sampler: Those of the wall seconds in which plans were made, indices drawn and losses recorded and weighted.
        scores: Of the known losses at the moment when the epoch was planned: number, mean, median, deviation,
            skewness, and the fraction that is below the mean.
        session: Which of the file's "sessions" finished the run.
    """

    optimizer: str
    method: str
    seed: int
    epochs: int
    prune_ratio: float | None = None
    metric: list[float] = field(default_factory=list)
    visited: list[int] = field(default_factory=list)
    saved: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    sampler: list[float] = field(default_factory=list)
    thresholds: list[list[float]] = field(default_factory=list)
    scores: list[dict[str, float] | None] = field(default_factory=list)
    interruptions: int = 0
    session: int = 0


SGD = Optimizer("sgd", 0.02, 5e-4)
DIGITS = Config("digits", epochs=60, batch_size=64, optimizers=(SGD,), sizes={"model": "cnn", "widths": [32, 64]})
PRESETS = {
    "digits": DIGITS,
    "optimizers": Config(
        "digits",
        epochs=60,
        batch_size=64,
        optimizers=(SGD, Optimizer("adamw", 3e-3, 0.05), Optimizer("lars", 3.0, 5e-4), Optimizer("lamb", 1e-2, 0.05)),
        sizes={"model": "cnn", "widths": [32, 64]},
        methods=("full", "infobatch"),
    ),
    "cifar": Config(
        "cifar",
        epochs=16,
        batch_size=128,
        optimizers=(Optimizer("sgd", 0.05, 5e-4),),
        sizes={"model": "cnn", "widths": [16, 32, 64]},
        train_size=10_000,
        curve_size=2_000,
    ),
    "text": Config(
        "text",
        epochs=10,
        batch_size=32,
        optimizers=(Optimizer("adamw", 3e-3, 0.1),),
        sizes={"context": 64, "layers": 2, "width": 64, "heads": 4},
        train_size=4_000,
        curve_size=500,
    ),
}
