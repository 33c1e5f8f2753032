"""InfoBatch in PyTorch Lightning: a callback that tells the trainer what it does not expect, epochs of different lengths."""

from __future__ import annotations

import math
import sys
import warnings
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from ..engine.state import gather_state
from ..pruner import InfoBatch
from ..sampler import InfoBatchBatchSampler, InfoBatchSampler

LOWEST_VERSION = "2.5"
KEY = "infobatch_fast"  # in the trainer's checkpoint

try:
    if TYPE_CHECKING or "pytorch_lightning" not in sys.modules or "lightning.pytorch" in sys.modules:
        from lightning.pytorch import Callback
    else:  # the same code under its other name; each Trainer wants callbacks of its own
        from pytorch_lightning import Callback
except ImportError as error:
    raise ImportError(
        f"infobatch_fast.integrations.lightning needs lightning >= {LOWEST_VERSION}: pip install lightning. With "
        "pytorch_lightning, import that first"
    ) from error

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class InfoBatchCallback(Callback):
    """Lets a ``Trainer`` train with InfoBatch: epochs, their lengths, checkpoints and logged statistics.

    The loader takes ``sampler=pruner.sampler``, and ``training_step`` returns ``pruner.update(index, losses)``. The callback
    selects the epoch; sets the number of batches anew in each, which Lightning takes from the first epoch alone, so that
    validation runs and progress bars end where they should; puts the pruner's state into every checkpoint and takes it from
    there, in the middle of an epoch too; and logs ``infobatch/...`` at the end of each epoch. ``use_distributed_sampler`` may
    stay as it is, and ``reload_dataloaders_every_n_epochs`` is not needed.

    Args:
        pruner: The pruner. None takes ``pruner`` of the LightningModule or else of its LightningDataModule, made in ``setup``:
            with several ranks it must be made there, as the process group does not exist before.

    Raises:
        TypeError: ``pruner`` is no InfoBatch, or none was found.
        ValueError: The train loader does not draw from the pruner, its data set is of another size, or the pruner is not of as
            many ranks as the trainer.
        RuntimeError: ``training_step`` does not call ``update``.

    Example:
        >>> pruner = InfoBatch(dataset, num_epochs=90)                                          # doctest: +SKIP
        >>> loader = DataLoader(with_index(dataset), batch_size=256, sampler=pruner.sampler)    # doctest: +SKIP
        >>> Trainer(max_epochs=90, callbacks=[InfoBatchCallback(pruner)]).fit(model, loader)    # doctest: +SKIP
    """

    def __init__(self, pruner: InfoBatch | None = None) -> None:
        if pruner is not None and not isinstance(pruner, InfoBatch):
            raise TypeError(f"pruner must be an InfoBatch or None, got {pruner!r}")
        self._given = pruner
        self._pruner: InfoBatch | None = None
        self._epoch_ended = False  # in the checkpoint that training goes on from
        self._scored = -1  # losses before an epoch's first batch

    @property
    def pruner(self) -> InfoBatch:
        """The pruner in use.

        Raises:
            RuntimeError: Nothing was fitted yet.
        """
        if self._pruner is None:
            raise RuntimeError("there is no pruner before Trainer.fit")
        return self._pruner

    # ---- checkpoints ----

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the state, which all ranks send to the first one: it alone writes the file."""
        if self._pruner is not None:
            checkpoint[KEY] = gather_state(self._pruner.engine.epochs)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restores the state when training goes on; validation and tests leave the pruner alone."""
        if trainer.state.fn != "fit":
            return
        self._find_pruner(trainer, pl_module)
        if KEY in checkpoint:
            self.pruner.load_state_dict(checkpoint[KEY])
        elif trainer.is_global_zero:
            warnings.warn(
                "the checkpoint was saved without InfoBatchCallback, so no sample has a score yet, and the next epoch is full",
                stacklevel=2,
            )

    # ---- epochs ----

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds the pruner and checks that it is of as many ranks as the trainer."""
        self._find_pruner(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes up an epoch in its middle, or at its end, where a checkpoint was taken there."""
        loop = trainer.fit_loop
        progress = loop.epoch_loop.batch_progress
        drawn_from = self._check_loaders(trainer)
        self.pruner.set_epoch(_epochs_done(trainer))
        if any(sampler.is_stale() for sampler in drawn_from):  # it began before the pruner's state or the epoch was known
            iter(_part(loop, "_data_fetcher"))
        self._epoch_ended = loop.restarting and progress.is_last_batch
        if self._epoch_ended:  # its end is all that is left of that epoch
            self._set_lengths(trainer, progress.current.ready, of_loaders=False)
        else:
            self._set_lengths(trainer, progress.current.ready if loop.restarting else 0)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Selects the epoch and sets its lengths."""
        self._check_loaders(trainer)
        self.pruner.set_epoch(_epochs_done(trainer))
        self._set_lengths(trainer)
        self._epoch_ended = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Sets the lengths of an epoch that began unannounced, behind the end of one from a checkpoint."""
        if self._epoch_ended:
            self._epoch_ended = False
            progress, fetcher = trainer.fit_loop.epoch_loop.batch_progress, _part(trainer.fit_loop, "_data_fetcher")
            self._set_lengths(trainer, progress.current.ready - 1)
            fetcher.done = progress.is_last_batch = fetcher.fetched >= fetcher.length
        if batch_idx == 0:
            self._scored = self.pruner.engine.epochs.scored
        elif batch_idx == 1 and self.pruner.engine.epochs.scored == self._scored:
            raise RuntimeError(
                "the first training_step recorded no loss, so nothing would ever be pruned: let training_step return "
                "pruner.update(index, losses), with one loss a sample (reduction='none')"
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the statistics of the epoch. Waits for the device, once."""
        if self._epoch_ended:  # before the checkpoint that training goes on from; its statistics are there
            return
        stats = self.pruner.stats
        values = {
            "kept": stats.kept,
            "kept_fraction": stats.kept / stats.num_samples,
            "saved_fraction": stats.saved_fraction,
            "total_saved_fraction": stats.total_saved_fraction,
            "seen": stats.seen,
            "plan_seconds": stats.plan_seconds,
        }
        for tier, threshold in enumerate(stats.thresholds, start=1):
            values["threshold" if len(stats.thresholds) == 1 else f"threshold_{tier}"] = threshold
        # Equal on all ranks, and so is their maximum, to the bit; without sync_dist Lightning warns.
        pl_module.log_dict({f"infobatch/{name}": float(value) for name, value in values.items()}, reduce_fx="max", sync_dist=True)
        pl_module.log("infobatch/non_finite", float(stats.non_finite), reduce_fx="sum", sync_dist=True)

    # ---- what is checked and set ----

    def _find_pruner(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = self._given
        for owner in (pl_module, getattr(trainer, "datamodule", None)):
            found = getattr(owner, "pruner", None) if found is None else found
        if not isinstance(found, InfoBatch):
            raise TypeError(
                f"InfoBatchCallback() found no pruner in {type(pl_module).__name__}, nor in its data module: pass "
                "InfoBatchCallback(pruner), or set self.pruner = InfoBatch(...) in setup() of one of them"
            )
        ranks = (trainer.distributed_sampler_kwargs or {}).get("num_replicas", 1)
        if found.num_replicas != ranks:
            raise ValueError(
                f"the pruner has num_replicas={found.num_replicas} and the trainer {ranks} data-parallel ranks: make it where the "
                "process group exists, self.pruner = InfoBatch(...) in setup() of the LightningModule or the LightningDataModule, "
                "and pass InfoBatchCallback() without it"
            )
        self._pruner = found

    def _check_loaders(self, trainer: Trainer) -> list[InfoBatchSampler | InfoBatchBatchSampler]:
        """The pruner's samplers that the train loaders draw from.

        Raises:
            ValueError: They draw from something else.
        """
        ours: list[InfoBatchSampler | InfoBatchBatchSampler] = []
        problems: list[str] = []
        for loader in _part(trainer.fit_loop, "_combined_loader").flattened:
            if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
                continue  # it draws by itself, and filters by is_kept
            sampler = _sampler_of(loader)
            if not isinstance(sampler, (InfoBatchSampler, InfoBatchBatchSampler)):
                problems.append(_foreign_sampler(sampler, trainer))
            elif sampler.engine is not self.pruner.engine:
                problems.append(
                    "the train loader draws from another InfoBatch than the callback's: make one pruner, and pass its "
                    "sampler to the loader"
                )
            elif (size := _length(loader.dataset)) != self.pruner.num_samples:
                problems.append(
                    f"the train loader's data set has {size} samples and the pruner was made for "
                    f"{self.pruner.num_samples}: pass with_index(dataset) of the same data set"
                )
            else:
                ours.append(sampler)
        if problems and not ours:  # beside a loader of ours there may be others
            raise ValueError(problems[0])
        return ours

    def _set_lengths(self, trainer: Trainer, done: int = 0, of_loaders: bool = True) -> None:
        """Sets what Lightning has computed from the first epoch's number of batches.

        Args:
            trainer: Whose fit loop it is.
            done: Batches of this epoch that were trained on before; the loaders have the others.
            of_loaders: Whether any follow.
        """
        loop, combined, fetcher = (
            trainer.fit_loop,
            _part(trainer.fit_loop, "_combined_loader"),
            _part(trainer.fit_loop, "_data_fetcher"),
        )
        left: float = 0
        if of_loaders:
            left_out = done if self.pruner.lengths.is_dynamic else 0  # of a loader's length; with steps_per_epoch it stays whole
            limits = [_limit(left_out + _length(loader), trainer.limit_train_batches) - done for loader in combined.flattened]
            combined.limits = limits
            left = min(limits) if combined._mode == "min_size" else max(limits)
        loop.max_batches = total = done + left
        if total == math.inf:
            return
        fetcher.length = total
        interval = trainer.val_check_interval
        if isinstance(interval, float):
            trainer.val_check_batch = max(1, int(total * interval))
        elif isinstance(interval, int) and trainer.check_val_every_n_epoch is not None:
            trainer.val_check_batch = min(interval, total)  # an epoch that is shorter is validated at its end


def _epochs_done(trainer: Trainer) -> int:
    """The number that Lightning gives to samplers, and counts up just before an epoch's last hooks."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return int(progress.processed)


def _part(loop: Any, name: str) -> Any:
    """An attribute of Lightning's fit loop that its documentation does not name."""
    try:
        return getattr(loop, name)
    except AttributeError:
        raise RuntimeError(
            f"this version of Lightning has no FitLoop.{name}, which InfoBatchCallback needs: use another version"
        ) from None


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
    """Batches of ``length`` that ``limit_train_batches`` leaves; of a float at least one."""
    if isinstance(limit, int):
        return min(length, limit)
    return length if length == math.inf else max(1, int(length * limit))
