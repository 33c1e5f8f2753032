"""A training run with a schedule inside EpochProgressLR, whose learning rates are noted."""

from __future__ import annotations

import io
from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR

from infobatch_fast import EpochProgressLR, InfoBatch

from .runs import loss_of

SIZE, BATCH, EPOCHS, TOTAL = 203, 8, 8, 26 * 8


def sequential(optimizer: Any, total: int) -> SequentialLR:
    parts: list[LRScheduler] = [LinearLR(optimizer, 0.1, total_iters=20), CosineAnnealingLR(optimizer, T_max=total - 20)]
    return SequentialLR(optimizer, parts, milestones=[20])


SCHEDULERS: dict[str, Any] = {
    "one cycle": lambda optimizer, total: OneCycleLR(optimizer, max_lr=1.0, total_steps=total),
    "cosine": lambda optimizer, total: CosineAnnealingLR(optimizer, T_max=total, eta_min=0.01),
    "warm-up, cosine": sequential,
    "lambda": lambda optimizer, total: LambdaLR(optimizer, lambda step: 1 - step / total),
}


class Run:
    """A training run of an optimizer of one parameter, with the learning rate of each step."""

    def __init__(self, name: str, by: Literal["epochs", "visits"] = "epochs", make: Any = EpochProgressLR, **kwargs: Any) -> None:
        self.pruner = InfoBatch(SIZE, EPOCHS, **kwargs)
        self.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        self.scheduler = make(SCHEDULERS[name](self.optimizer, TOTAL), self.pruner, TOTAL, by)
        self.rates: list[float] = []

    def epoch(self, epoch: int, accumulate: int = 1, stop: int | None = None) -> None:
        self.pruner.set_epoch(epoch)
        for step, batch in enumerate(self.pruner.sampler.batches(BATCH)):
            if step == stop:
                return
            self.pruner.update(batch, loss_of(torch.tensor(batch), epoch))
            if (step + 1) % accumulate == 0:
                self.rates.append(self.optimizer.param_groups[0]["lr"])
                self.optimizer.step()
                self.scheduler.step()
                assert self.scheduler.get_last_lr() == [self.optimizer.param_groups[0]["lr"]]

    def go_on(self, states: Any) -> None:
        for part, state in zip((self.pruner, self.optimizer, self.scheduler), states, strict=True):
            part.load_state_dict(state)

    def saved(self) -> Any:
        file = io.BytesIO()
        parts = (self.pruner, self.optimizer, self.scheduler)
        torch.save([part.state_dict() for part in parts], file)
        file.seek(0)
        return torch.load(file, weights_only=False)
