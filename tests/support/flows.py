"""What the tests of plans that follow each other share: loaders that run ahead, and what each plan decided when it was made."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from infobatch_fast import InfoBatch
from infobatch_fast.engine import ops
from infobatch_fast.engine.plan import Plan
from infobatch_fast.engine.planner import Planner
from support.runs import loss_of, record

SIZE, BATCH, STEPS, EPOCHS = 203, 8, 11, 12


def constant(device: torch.device | str = "cpu", **kwargs: Any) -> InfoBatch:
    arguments = {"batch_size": BATCH, "steps_per_epoch": STEPS, "delta": 0.75, "seed": 3, "device": device}
    return InfoBatch(kwargs.pop("size", SIZE), EPOCHS, **{**arguments, **kwargs})


def endless(device: torch.device | str = "cpu", **kwargs: Any) -> InfoBatch:
    return InfoBatch(kwargs.pop("size", SIZE), 40, delta=1.0, seed=3, steps_per_epoch=math.inf, device=device, **kwargs)


def ahead(batches: Iterable[list[int]], count: int) -> Iterator[list[int]]:
    """The batches, of which ``count`` are always taken before they are handed out, as workers do."""
    waiting: deque[list[int]] = deque()
    for batch in batches:
        waiting.append(batch)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


@dataclass
class Made:
    """A plan as it was made."""

    epoch: int
    pruned: bool
    order: list[int]
    kept: list[int]
    weight_of: dict[int, float]


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Made]:
    """The plans that are made during the test, in their order; restored ones are none."""
    made: list[Made] = []
    make = Planner.make

    def noting(self: Planner, epoch: int, pruned: bool) -> Plan:
        plan = make(self, epoch, pruned)
        everyone = torch.arange(self.table.num_samples, device=self.table.device)
        slots, found, _ = self.table.look_up(everyone)
        weights = ops.tier_weights(plan.cutoffs)
        marks = {i: mark for i, (slot, mark) in enumerate(zip(slots.tolist(), found.tolist(), strict=True)) if slot >= 0}
        kept = [i for i, mark in marks.items() if mark & 1]
        of = {i: weights[mark >> 2] for i, mark in marks.items()}
        made.append(Made(epoch, pruned, plan.order(0, plan.length).tolist(), kept, of))
        return plan

    monkeypatch.setattr(Planner, "make", noting)
    return made


class Trainer:
    """Trains on batches and notes what it trained on, and with which weights. A loss depends on the sample and the visit."""

    def __init__(self, pruner: InfoBatch) -> None:
        self.pruner = pruner
        self.visited: list[int] = []
        self.weights: list[float] = []
        self.losses: dict[int, float] = {}

    def step(self, batch: list[int] | torch.Tensor) -> None:
        ids = torch.as_tensor(batch)
        losses = loss_of(ids, len(self.visited) // 97) + 0.5
        weighted: Any = record(self.pruner, ids, losses, reduction="none").cpu()
        self.weights += (weighted / losses).tolist()
        self.visited += ids.tolist()
        self.losses |= dict(zip(ids.tolist(), losses.tolist(), strict=True))

    def assert_scores_are_its_own(self) -> None:
        """The score of every sample is the loss of its last visit."""
        ids = sorted(self.losses)
        assert self.pruner.scores(ids).tolist() == [self.losses[i] for i in ids]


def follow(trainer: Trainer, made: list[Made]) -> None:
    """All that was trained on are the plans' orders without a gap, each kept sample once a plan, by the weights of its plan."""
    whole = [sample for plan in made for sample in plan.order]
    weights = [plan.weight_of[sample] for plan in made for sample in plan.order]
    assert first_difference(trainer.visited, whole) is None
    assert first_difference(trainer.weights, weights) is None
    for plan in made:
        assert first_difference(sorted(plan.order), plan.kept) is None
    trainer.assert_scores_are_its_own()


def first_difference(values: Sequence[float], expected: Sequence[float]) -> tuple[int, float, float] | None:
    """Where ``values`` are not the beginning of ``expected``; pytest would take minutes to tell of long lists."""
    assert len(values) <= len(expected)
    pairs = enumerate(zip(values, expected, strict=False))
    return next(((i, a, b) for i, (a, b) in pairs if abs(a - b) > 1e-6 * abs(b)), None)
