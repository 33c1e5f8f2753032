"""Lightning's fit loop, as InfoBatchCallback sees it: what its loaders draw from, how long its epochs are, and how many."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from ..engine.sources import refuse_ids_inside
from ..pruner import InfoBatch
from ..sampler import InfoBatchBatchSampler, InfoBatchSampler

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def epochs_done(trainer: Trainer) -> int:
    """The number that Lightning gives to samplers, and counts up just before an epoch's last hooks."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return int(progress.processed)


def part(loop: Any, name: str) -> Any:
    """An attribute of Lightning's fit loop that its documentation does not name."""
    try:
        return getattr(loop, name)
    except AttributeError:
        raise RuntimeError(
            f"this version of Lightning has no FitLoop.{name}, which InfoBatchCallback needs: install a tested version"
        ) from None


def warn_of_epochs(trainer: Trainer, pruner: InfoBatch) -> None:
    """Warns if the pruner and the trainer have different numbers of epochs. The user gives both."""
    planned, trained, first_full = pruner.schedule.num_epochs, trainer.max_epochs, pruner.schedule.end
    if trained in (None, -1) or planned == trained or pruner.lengths.is_endless or trainer.fast_dev_run:
        return  # no number to compare with, or one that counts something else
    if planned < trained:
        if trainer.max_steps != -1:  # whichever comes first ends the run, and max_epochs may be out of reach
            return
        what = f"all epochs from {first_full} on are full, and pruner.progress stays at 1 from epoch {planned} on"
    else:
        full = "" if first_full < trained else "the full epochs at the end never come, and "
        what = f"{full}pruner.progress ends at {trained / planned:.2g}"
    if trainer.is_global_zero:
        warnings.warn(
            f"the pruner has num_epochs={planned} and the trainer max_epochs={trained}, so {what}: pass the same number to both, "
            f"InfoBatch(..., num_epochs={trained}) or Trainer(max_epochs={planned})",
            RuntimeWarning,
            stacklevel=2,
        )


def check_loaders(trainer: Trainer, pruner: InfoBatch) -> list[InfoBatchSampler | InfoBatchBatchSampler]:
    """The pruner's samplers that the train loaders draw from.

    Raises:
        ValueError: They draw from something else.
    """
    ours: list[InfoBatchSampler | InfoBatchBatchSampler] = []
    problems: list[str] = []
    for loader in part(trainer.fit_loop, "_combined_loader").flattened:
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            continue  # it draws by itself, and filters by is_kept
        sampler = _sampler_of(loader)
        if not isinstance(sampler, (InfoBatchSampler, InfoBatchBatchSampler)):
            problems.append(_foreign_sampler(sampler, trainer))
        elif sampler.engine is not pruner.engine:
            problems.append(
                "the train loader draws from another InfoBatch than the callback's: make one pruner, and pass its "
                "sampler to the loader"
            )
        elif (size := _length(loader.dataset)) != pruner.num_samples:
            problems.append(
                f"the train loader's data set has {size} samples, but the pruner was made for "
                f"{pruner.num_samples}: pass with_index(dataset) of the same data set"
            )
        else:
            refuse_ids_inside("the train loader's data set", loader.dataset)
            ours.append(sampler)
    if problems and not ours:  # beside a loader of ours there may be others
        raise ValueError(problems[0])
    return ours


def set_lengths(trainer: Trainer, pruner: InfoBatch, done: int = 0, of_loaders: bool = True) -> None:
    """Sets the lengths that Lightning has computed from the first epoch's number of batches.

    Args:
        trainer: The trainer of the fit loop.
        pruner: The pruner of the epochs.
        done: Batches of this epoch that were trained on before; the loaders have the others.
        of_loaders: Whether any batches follow.
    """
    loop, combined, fetcher = (
        trainer.fit_loop,
        part(trainer.fit_loop, "_combined_loader"),
        part(trainer.fit_loop, "_data_fetcher"),
    )
    left: float = 0
    whole: float = 0
    if of_loaders:
        left_out = done if pruner.lengths.is_dynamic else 0  # of a loader's length; with steps_per_epoch it stays whole
        lengths = [left_out + _length(loader) for loader in combined.flattened]
        combined.limits = limits = [_limit(length, trainer.limit_train_batches) - done for length in lengths]
        whole = max(lengths)
        left = min(limits) if combined._mode == "min_size" else max(limits)
    loop.max_batches = total = done + left
    pruner.engine.epochs.ends_at = None
    if total == math.inf:
        return
    fetcher.length = total
    if 0 < total < whole:
        pruner.engine.epochs.ends_at = total / whole
    interval = trainer.val_check_interval
    if isinstance(interval, float):
        trainer.val_check_batch = max(1, int(total * interval))
    elif isinstance(interval, int) and trainer.check_val_every_n_epoch is not None:
        trainer.val_check_batch = min(interval, total)  # an epoch that is shorter is validated at its end


class Steps:
    """Notices training steps that record no loss. It checks a step when the next one begins, after all hooks of the step."""

    def __init__(self) -> None:
        self._before: int | None = None  # losses when the step began; None before the first one
        self._steps = self._silent = 0  # of this epoch
        self._has_warned = False

    def begin(self, step: int, scored: int) -> None:
        """Step number ``step`` of an epoch begins, after ``scored`` losses.

        Raises:
            RuntimeError: The first one recorded none.
        """
        if step == 0:
            self._steps = self._silent = 0
        else:
            self._look_back(scored)
        self._before = scored

    def end_epoch(self, epoch: int, scored: int) -> None:
        """Called after the epoch's last step. Warns once. Batches that are skipped now and then are no mistake.

        Raises:
            RuntimeError: As for ``begin``.
        """
        self._look_back(scored)
        if self._silent > 0.1 * self._steps and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{self._silent} of {self._steps} training steps of epoch {epoch} recorded no loss, so their samples keep old "
                "scores, and samples without a score are never pruned: let each training_step return "
                "pruner.update(index, losses)",
                RuntimeWarning,
                stacklevel=2,
            )
        self._before = None

    def _look_back(self, scored: int) -> None:
        if self._before is None:
            return
        self._steps += 1
        self._silent += scored == self._before
        if self._silent == self._steps == 1:
            raise RuntimeError(
                "the first training_step recorded no loss, so nothing would ever be pruned: let training_step return "
                "pruner.update(index, losses), with one loss a sample (reduction='none')"
            )


def _sampler_of(loader: DataLoader[Any]) -> Any:
    """What a loader's indices come from, below samplers that only make batches of them."""
    sampler: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    while not isinstance(sampler, (InfoBatchSampler, InfoBatchBatchSampler)) and hasattr(sampler, "sampler"):
        sampler = sampler.sampler
    return sampler


def _foreign_sampler(sampler: Any, trainer: Trainer) -> str:
    name = type(sampler).__name__
    remedy = "pass DataLoader(with_index(dataset), sampler=pruner.sampler, batch_size=...) and no shuffle"
    if getattr(trainer, "overfit_batches", 0) > 0:
        remedy = "Trainer(overfit_batches=...) replaces every sampler, so leave InfoBatchCallback out with it"
    elif isinstance(sampler, DistributedSampler):
        remedy += "; Lightning wraps other samplers in one that shards again, but leaves pruner.sampler itself alone"
    return f"the train loader draws its samples by {name} and not from the pruner, so nothing would be pruned: {remedy}"


def _length(loader: Any) -> float:
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return math.inf


def _limit(length: float, limit: float) -> float:
    """How many of ``length`` batches ``limit_train_batches`` leaves; a float leaves at least one."""
    if isinstance(limit, int):
        return min(length, limit)
    return length if length == math.inf else max(1, int(length * limit))
