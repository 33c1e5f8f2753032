"""Learning-rate schedules that end with the run, although the number of steps is not known beforehand."""

from __future__ import annotations

from typing import Any, Literal

from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from .engine.checks import check_choice, check_int
from .engine.expected import epochs_share, visits_share
from .pruner import InfoBatch

SHARES = {"epochs": epochs_share, "visits": visits_share}


class EpochProgressLR(LRScheduler):
    """Drives a scheduler by the fraction of the run that is done, not by counted steps.

    After each ``step`` the inner scheduler stands at step floor(share * total_steps + 1/2). It never goes back. The share of the
    run that is done is ``pruner.progress`` or ``pruner.visited_fraction``. So the run ends where the schedule ends, however many
    steps were pruned, and gradient accumulation changes nothing. If epochs are cut short (``drop_last``, a trainer's limit of
    batches, a loop that breaks off), an epoch counts as done where the previous one ended.

    Args:
        scheduler: Any torch scheduler that was built for ``total_steps`` steps, for instance ``OneCycleLR(total_steps=...)`` or
            ``CosineAnnealingLR(T_max=...)``. A scheduler that needs a metric cannot be driven.
        pruner: Tells the share of the run that is done.
        total_steps: The number of steps that ``scheduler`` was built for. Any number that is fine enough will do, such as the steps
            of the run without pruning.
        by: "visits": each visit of a sample is the same part of the schedule. "epochs": each epoch is the same part. The full
            epochs at the end hold more steps than others, so more steps run at the end of the schedule. Take "epochs" if a trainer
            cuts all epochs to the same number of batches. With ``steps_per_epoch=S`` both are the same.

    Raises:
        TypeError: ``scheduler`` is not a torch scheduler, or is ``ReduceLROnPlateau``.
        ValueError: ``total_steps`` is not at least 1; ``scheduler`` was built for another number or has stepped already; or ``by``
            is neither "visits" nor "epochs".

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> pruner = InfoBatch(4, num_epochs=1)
        >>> inner = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
        >>> scheduler = EpochProgressLR(inner, pruner, total_steps=100)
        >>> _ = pruner.update([0, 1], torch.tensor([1.0, 2.0]))
        >>> optimizer.step(); scheduler.step()
        >>> round(scheduler.get_last_lr()[0], 6)
        0.5
    """

    def __init__(
        self, scheduler: LRScheduler, pruner: InfoBatch, total_steps: int, by: Literal["epochs", "visits"] = "visits"
    ) -> None:
        check_choice("by", by, tuple(SHARES))
        # LRScheduler.__init__ is not called: it would set the learning rates, which are the inner scheduler's.
        if isinstance(scheduler, (ReduceLROnPlateau, EpochProgressLR)) or not isinstance(scheduler, LRScheduler):
            remedy = "write EpochProgressLR(scheduler, pruner, total_steps=...), where scheduler is one of torch's"
            if isinstance(scheduler, ReduceLROnPlateau):
                remedy = "ReduceLROnPlateau follows a metric and needs no steps; call it by itself"
            raise TypeError(f"scheduler must be a torch scheduler that counts steps, got {type(scheduler).__name__}: {remedy}")
        if not isinstance(pruner, InfoBatch):
            raise TypeError(f"pruner must be an InfoBatch, got {type(pruner).__name__}")
        total_steps = check_int("total_steps", total_steps, 1)
        cycles = [each for each in _all_of(scheduler) if isinstance(each, OneCycleLR)]
        if isinstance(scheduler, OneCycleLR) and scheduler.total_steps != total_steps:
            raise ValueError(
                f"total_steps={total_steps}, but scheduler was built for {scheduler.total_steps}: pass the same number to both"
            )
        if scheduler.last_epoch > 0:
            raise ValueError(
                f"scheduler has taken {scheduler.last_epoch} steps already: wrap it before it steps, and restore it by "
                "EpochProgressLR.load_state_dict"
            )
        self.optimizer = scheduler.optimizer
        self._inner, self._pruner, self._total, self._by = scheduler, pruner, total_steps, by
        self._end = total_steps - 1 if cycles else total_steps  # OneCycleLR's last step is numbered total_steps - 1
        self._step_count = 1  # accelerate counts here
        self.last_epoch = 0

    def step(self, epoch: int | None = None) -> None:
        """Steps the inner scheduler to the run's progress. Call it after ``optimizer.step()``.

        Raises:
            ValueError: ``epoch`` was given.
        """
        if epoch is not None:
            raise ValueError(f"epoch={epoch!r} was given: EpochProgressLR follows the pruner, call step() without arguments")
        self._step_count += 1
        self._go_to(self._due())

    def _due(self) -> int:
        """The step of the inner scheduler where the run is."""
        return min(int(SHARES[self._by](self._pruner.engine.epochs) * self._total + 0.5), self._end)

    def _go_to(self, due: int) -> None:
        while self.last_epoch < due:
            self._inner.step()
            self.last_epoch += 1

    def get_last_lr(self) -> list[Any]:
        """Learning rates of the parameter groups."""
        return self._inner.get_last_lr()

    def get_lr(self) -> list[Any]:
        """As ``get_last_lr``; torch's schedulers compute their rates here."""
        return self.get_last_lr()

    @property
    def base_lrs(self) -> list[Any]:  # type: ignore[override]
        """Initial learning rates of the parameter groups."""
        return [group["initial_lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The inner scheduler's state, and its step."""
        return {
            "scheduler": self._inner.state_dict(),
            "last_epoch": self.last_epoch,
            "total_steps": self._total,
            "by": self._by,
            "ended_at": self._pruner.engine.epochs.ended_at,
            "saved_fraction": self._pruner.engine.epochs.saved_fraction,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resumes where ``state_dict`` was taken. Restore the pruner by its own ``load_state_dict``.

        Raises:
            ValueError: ``state_dict`` is not that of an ``EpochProgressLR`` with this ``total_steps`` and ``by``.
        """
        is_dict = isinstance(state_dict, dict)
        if not is_dict or not {"scheduler", "last_epoch", "total_steps"} <= state_dict.keys() or not self._fits(state_dict):
            got = f"total_steps={state_dict.get('total_steps')!r} and keys {sorted(state_dict)}" if is_dict else repr(state_dict)
            raise ValueError(
                f"state_dict must be that of an EpochProgressLR with total_steps={self._total}, got {got}: construct the "
                "scheduler, and the one inside it, with the total_steps of the saved run"
            )
        self._check_by(state_dict)
        self._inner.load_state_dict(state_dict["scheduler"])
        self.last_epoch = state_dict["last_epoch"]
        epochs = self._pruner.engine.epochs  # whose own state does not hold these
        epochs.ended_at = state_dict.get("ended_at", 1.0)
        if epochs.saved_fraction is None:  # else a plan that was made since knows better
            epochs.saved_fraction = state_dict.get("saved_fraction")

    def _fits(self, state_dict: dict[str, Any]) -> bool:
        """Whether its numbers are such as ``state_dict`` writes."""
        saved, ended = state_dict.get("saved_fraction"), state_dict.get("ended_at", 1.0)
        numbers = isinstance(ended, float) and (saved is None or isinstance(saved, float))
        return numbers and 0 < ended <= 1 and 0 <= (saved or 0) <= 1 and state_dict["total_steps"] == self._total

    def _check_by(self, state_dict: dict[str, Any]) -> None:
        """Makes sure that the saved schedule followed the same share of the run. States without ``by`` followed the epochs."""
        by = state_dict.get("by", "epochs")
        if by != self._by:
            raise ValueError(
                f"state_dict was saved with by={by!r}, but this schedule has by={self._by!r}, so the learning rate would jump: "
                f"construct it with by={by!r}, or InfoBatchTrainer with schedule_by={by!r}"
            )


def _all_of(scheduler: Any) -> list[Any]:
    """A scheduler and all schedulers inside it."""
    return [scheduler] + [each for part in getattr(scheduler, "_schedulers", []) for each in _all_of(part)]
