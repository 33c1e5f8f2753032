"""What is trained, and how: everything that decides a number of the study, apart from the method and the seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from methods import METHODS

AT_OTHER_RATES = (  # half of the visits, where the size of a step matters most, and the mean threshold
    *("full", "fewer-50", "uniform-50", "uniform-50-epoch", "importance-50", "importance-50-epoch"),
    *("infobatch", "infobatch-step", "fewer"),
)
IF_IT_PAYS = ("full", "fewer-50", "uniform-50", "importance-50", "importance-50-biased", "infobatch", "fewer")


@dataclass(frozen=True)
class Optimizer:
    """An optimiser by name: "sgd" (Nesterov momentum 0.9) or "adamw"."""

    name: str
    rate: float  # about the peak of the schedule: a rise, times a cosine down to 0
    weight_decay: float


@dataclass(frozen=True)
class Config:
    """A workload at one scale.

    Attributes:
        workload: "digits", "cifar" or "text".
        epochs: Of full training, and of all methods that prune.
        sizes: Arguments of the model.
        methods: Names in METHODS.
        rates: Multiples of the optimiser's peak rate. At those that are not 1 only ``AT_OTHER_RATES`` run.
        train_size: Training samples, images drawn anew for each seed, or the first windows of the text; None is all there are.
        mix: Of the training images of "cifar": "plain"; "redundant" holds a fifth of the images, each five times; "tail" holds
            fewer of each class than of the one before, down to a fiftieth.
        warmup: Fraction of the run in which the learning rate rises.
    """

    workload: str
    epochs: int
    batch_size: int
    optimizer: Optimizer
    sizes: dict[str, Any]
    methods: tuple[str, ...] = tuple(name for name in METHODS if name not in ("importance", "importance-50-low"))
    rates: tuple[float, ...] = (1.0,)
    train_size: int | None = None
    mix: str = "plain"
    warmup: float = 0.15

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def methods_at(self, rate: float) -> tuple[str, ...]:
        return tuple(name for name in self.methods if rate == 1 or name in AT_OTHER_RATES)


@dataclass
class Run:
    """What one training run did.

    Attributes:
        rate: Multiple of the optimiser's peak rate.
        visits: The part of the visits of full training that was asked for; that of the mean threshold is not asked for.
        policy: As Python writes it.
        accuracy: Of the test samples, or of the bytes of the test windows.
        nll: Mean negative log-likelihood of them in nats.
        visited: Samples in each epoch.
        noise: ``stats.added_noise`` of each epoch, when it is planned.
        wall, cpu: Seconds in training: wall clock, and processor time of the process. Measuring is not counted.
        sampler: Those of the wall seconds in which plans were made, indices drawn and losses recorded and weighted.
        session: Which of the file's "sessions" finished the run.
    """

    method: str
    seed: int
    rate: float = 1.0
    visits: float = 1.0
    policy: str = ""
    accuracy: float = 0.0
    nll: float = 0.0
    visited: list[int] = field(default_factory=list)
    noise: list[float] = field(default_factory=list)
    wall: float = 0.0
    cpu: float = 0.0
    sampler: float = 0.0
    interruptions: int = 0
    session: int = 0


CIFAR = Config(
    "cifar",
    epochs=16,
    batch_size=128,
    optimizer=Optimizer("sgd", 0.05, 5e-4),
    sizes={"model": "cnn", "widths": [16, 32, 64]},
    rates=(1.0, 0.5, 2.0, 4.0),
    train_size=10_000,
)
PRESETS = {
    "digits": Config(
        "digits",
        epochs=60,
        batch_size=64,
        optimizer=Optimizer("sgd", 0.02, 5e-4),
        sizes={"model": "cnn", "widths": [32, 64]},
        rates=(1.0, 0.5, 2.0, 4.0),
    ),
    "cifar": CIFAR,
    "redundant": replace(CIFAR, methods=IF_IT_PAYS, rates=(1.0,), mix="redundant"),
    "tail": replace(CIFAR, methods=IF_IT_PAYS, rates=(1.0,), mix="tail"),
    "text": Config(
        "text",
        epochs=10,
        batch_size=32,
        optimizer=Optimizer("adamw", 3e-3, 0.1),
        sizes={"context": 64, "layers": 2, "width": 64, "heads": 4},
        train_size=4_000,
    ),
}
