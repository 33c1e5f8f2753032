"""The learning rate of InfoBatchTrainer: it follows the run's progress, even if a restarted run has another length."""

from __future__ import annotations

import warnings
from typing import Any, Literal

from torch.optim.lr_scheduler import LRScheduler

from ..pruner import InfoBatch
from ..schedules import EpochProgressLR


class RunSchedule(EpochProgressLR):
    """``EpochProgressLR`` that can resume in a run with other epochs, batches or ranks, as the Trainer's own schedulers can.

    Its state is what the Trainer's scheduler would save after as many steps. So a run with ``max_steps``, whose schedule counts
    steps, can load it too. The additional names become unused attributes of that run's scheduler.

    Args:
        scheduler: What the Trainer made, at its first step.
        pruner: Tells the share of the run that is done.
        total_steps: What ``scheduler`` was made for.
        by: As for ``EpochProgressLR``.
    """

    def __init__(
        self, scheduler: LRScheduler, pruner: InfoBatch, total_steps: int, by: Literal["epochs", "visits"] = "visits"
    ) -> None:
        super().__init__(scheduler, pruner, total_steps, by)
        self._made, self._steps = scheduler, 0

    def step(self, epoch: int | None = None) -> None:
        """As ``EpochProgressLR.step``."""
        super().step(epoch)
        self._steps += 1

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's state, at the optimizer's step."""
        ours = {"by": self._by, "reached": self.last_epoch, "reached_in": self._run_at(self._steps)}
        return self._made.state_dict() | {"last_epoch": self._steps} | ours

    def _run_at(self, steps: int) -> list[int]:
        """Identifies a place in a run: its epochs and total steps, and the ``steps`` done."""
        return [self._pruner.schedule.num_epochs, self._total, steps]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resumes at the progress of the pruner, which is restored already. Learning rates are the saved run's.

        If the run has the saved run's epochs and steps, it resumes at the saved run's step. By visits, that step may be ahead of
        the progress under a new plan.

        Raises:
            ValueError: The saved run's schedule has another ``by``.
        """
        if "by" in state_dict:  # not where the saved run counted steps
            self._check_by(state_dict)
        groups = self.optimizer.param_groups
        self._made.base_lrs = list(state_dict.get("base_lrs", [group["initial_lr"] for group in groups]))
        for group, rate in zip(groups, self._made.base_lrs, strict=True):
            group["lr"] = rate
        self._made.last_epoch = self.last_epoch = -1  # as before its first step
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected call of", category=UserWarning)  # of steps before the optimizer's
            is_same = state_dict.get("reached_in") == self._run_at(state_dict["last_epoch"])
            self._go_to(state_dict["reached"] if is_same else self._due())
        self._steps = state_dict["last_epoch"]
