"""InfoBatch in PyTorch Lightning: a callback that tells the trainer how long each epoch is, as their lengths differ."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from ..engine.epochs import Epochs
from ..engine.state import gather_state
from ..pruner import InfoBatch
from .lightning_loop import Steps, check_loaders, epochs_done, part, set_lengths, warn_of_epochs

LOWEST_VERSION, TESTED = "2.5", "2.5.0 and 2.6.6"
KEY = "infobatch_fast"  # in the trainer's checkpoint

try:
    if TYPE_CHECKING or "pytorch_lightning" not in sys.modules or "lightning.pytorch" in sys.modules:
        from lightning.pytorch import Callback
    else:  # the same code under its other name; each Trainer wants callbacks of its own
        from pytorch_lightning import Callback
except ImportError as error:
    raise ImportError(
        f"infobatch_fast.integrations.lightning needs lightning >= {LOWEST_VERSION} (tested: {TESTED}): pip install -U lightning. "
        "With pytorch_lightning, import that first"
    ) from error

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class Saved(NamedTuple):
    """What a pruner's state does not hold, for a tuner that puts that state back in the same run."""

    at_start: bool  # of the first epoch
    planned: tuple[int, int]  # samples, and those kept, of the plans before
    saved_fraction: float | None

    @classmethod
    def of(cls, epochs: Epochs) -> Saved:
        """Takes these values from the pruner as it is now."""
        plan, samples, kept = epochs.plan_in_force, epochs.planned_samples, epochs.planned_kept
        is_new = epochs.saved_plan() is None if plan is None else epochs.scored == 0
        if plan is not None:
            samples, kept = samples - epochs.table.num_samples, kept - plan.kept
        return cls(epochs.epoch == 0 and is_new, (samples, kept), epochs.saved_fraction)

    def put_back(self, epochs: Epochs) -> None:
        """Puts these values back after the state was loaded. If that was at the start of a run, it was no restart."""
        if self.at_start:
            epochs.begin_anew()
            epochs.planned_samples, epochs.planned_kept = self.planned
        epochs.saved_fraction = self.saved_fraction


class InfoBatchCallback(Callback):
    """Lets a ``Trainer`` train with InfoBatch: epochs, their lengths, checkpoints and logged statistics.

    The loader takes ``sampler=pruner.sampler``, and ``training_step`` returns ``pruner.update(index, losses)``. The callback
    selects the epoch. It sets the number of batches in each epoch, so that validation runs and progress bars end at the right
    step; Lightning alone would keep the number of the first epoch. It saves the pruner's state in every checkpoint and restores it
    from there, also in the middle of an epoch and after a tuner's trial. While Lightning does not train, it makes ``update`` raise
    an error. It logs ``infobatch/...`` at the end of each epoch. ``use_distributed_sampler`` may stay as it is, and
    ``reload_dataloaders_every_n_epochs`` is not needed.

    Args:
        pruner: The pruner. None takes ``pruner`` of the LightningModule, or else of its LightningDataModule, made in ``setup``.
            With several ranks make the pruner there, as the process group does not exist before.

    Raises:
        TypeError: ``pruner`` is not an InfoBatch, or none was found.
        ValueError: The train loader does not draw from the pruner, its data set has another size, or the pruner and the trainer
            differ in their number of ranks.
        RuntimeError: The first ``training_step`` of an epoch does not call ``update``.

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
        self._in_stage: InfoBatch | None = None  # the pruner that was told that this is no training
        self._saved: Saved | None = None  # with the newest checkpoint of this run
        self._epoch_ended = False  # in the checkpoint that training goes on from
        self._steps = Steps()

    @property
    def pruner(self) -> InfoBatch:
        """The pruner in use.

        Raises:
            RuntimeError: Nothing was fitted yet.
        """
        if self._pruner is None:
            raise RuntimeError("there is no pruner before Trainer.fit: read it during the run, or afterwards")
        return self._pruner

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forgets the previous run. The module's own ``setup`` follows, and makes another pruner."""
        if stage == "fit":
            self._pruner, self._saved = None, None

    # ---- checkpoints ----

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the pruner's state. All ranks send it to the first one, which alone writes the file."""
        if self._pruner is None and trainer.state.fn == "fit":  # a tuner saves the model before training starts
            self._find_pruner(trainer, pl_module)
            self.pruner.set_epoch(epochs_done(trainer))
        if self._pruner is not None:
            self._saved = Saved.of(self._pruner.engine.epochs)
            checkpoint[KEY] = gather_state(self._pruner.engine.epochs)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restores the state when training resumes, or when a tuner has tried some steps. Other runs leave the pruner alone."""
        if trainer.state.fn != "fit":
            return
        self._find_pruner(trainer, pl_module)
        if KEY in checkpoint:
            self.pruner.load_state_dict(checkpoint[KEY])
            if self._saved is not None:  # in this run, so it is no restart that loads, but a tuner that has tried some steps
                self._saved.put_back(self.pruner.engine.epochs)
        elif trainer.is_global_zero:
            warnings.warn(
                "the checkpoint was saved without InfoBatchCallback, so no sample has a score yet, and the next epoch is full",
                stacklevel=2,
            )

    # ---- what is no training ----

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on ``update`` raises, as in the other stages."""
        self._enter("the sanity check" if trainer.sanity_checking else "validation", trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As ``on_validation_start``."""
        self._enter("the test", trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As ``on_validation_start``."""
        self._enter("prediction", trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on ``update`` may be called again."""
        self._leave()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As ``on_validation_end``."""
        self._leave()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As ``on_validation_end``."""
        self._leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """As ``on_validation_end``, which is not called after an exception."""
        self._leave()

    def _enter(self, stage: str, trainer: Trainer, pl_module: LightningModule) -> None:
        found = self._look_for_pruner(trainer, pl_module)
        if isinstance(found, InfoBatch):  # there need not be one where nothing is trained
            self._in_stage, found.engine.stage = found, stage

    def _leave(self) -> None:
        if self._in_stage is not None:
            self._in_stage.engine.stage = None
            self._in_stage = None

    # ---- epochs ----

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds the pruner, and checks that it has as many ranks and epochs as the trainer."""
        self._find_pruner(trainer, pl_module)
        warn_of_epochs(trainer, self.pruner)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resumes in the middle of an epoch, or at its end, if a checkpoint was taken there."""
        loop = trainer.fit_loop
        progress = loop.epoch_loop.batch_progress
        drawn_from = check_loaders(trainer, self.pruner)
        self._epoch_ended = loop.restarting and progress.is_last_batch
        self._steps = Steps()
        self._select_first(trainer)
        if any(sampler.is_stale() for sampler in drawn_from):  # it began before the pruner's state or the epoch was known
            iter(part(loop, "_data_fetcher"))
        if self._epoch_ended:  # its end is all that is left of that epoch
            set_lengths(trainer, self.pruner, progress.current.ready, of_loaders=False)
        else:
            set_lengths(trainer, self.pruner, progress.current.ready if loop.restarting else 0)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Selects the epoch and sets its lengths."""
        check_loaders(trainer, self.pruner)
        self.pruner.set_epoch(epochs_done(trainer))
        set_lengths(trainer, self.pruner)
        self._epoch_ended = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Sets the lengths of an epoch that began unannounced, after the end of an epoch from a checkpoint."""
        if self._epoch_ended:
            self._epoch_ended = False
            progress, fetcher = trainer.fit_loop.epoch_loop.batch_progress, part(trainer.fit_loop, "_data_fetcher")
            set_lengths(trainer, self.pruner, progress.current.ready - 1)
            fetcher.done = progress.is_last_batch = fetcher.fetched >= fetcher.length
        self._steps.begin(batch_idx, self.pruner.engine.epochs.scored)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the statistics of the epoch. Waits for the device."""
        if self._epoch_ended:  # before the checkpoint that training goes on from; its statistics are there
            return
        self._steps.end_epoch(epochs_done(trainer) - 1, self.pruner.engine.epochs.scored)
        stats = self.pruner.stats
        values = {
            "kept": stats.kept,
            "kept_fraction": stats.kept / stats.num_samples,
            "saved_fraction": stats.saved_fraction,
            "total_saved_fraction": stats.total_saved_fraction,
            "seen": stats.seen,
            "plan_seconds": stats.plan_seconds,
        }
        values.update({f"threshold_{tier}": threshold for tier, threshold in enumerate(stats.thresholds)})
        # Equal on all ranks, and so is their maximum, to the bit; without sync_dist Lightning warns.
        pl_module.log_dict({f"infobatch/{name}": float(value) for name, value in values.items()}, reduce_fx="max", sync_dist=True)
        pl_module.log("infobatch/added_noise", stats.added_noise, sync_dist=True)  # of each rank's own scores: their mean
        pl_module.log("infobatch/non_finite", float(stats.non_finite), reduce_fx="sum", sync_dist=True)

    # ---- what is checked and set ----

    def _look_for_pruner(self, trainer: Trainer, pl_module: LightningModule) -> Any:
        found = self._given
        for owner in (pl_module, getattr(trainer, "datamodule", None)):
            found = getattr(owner, "pruner", None) if found is None else found
        return found

    def _find_pruner(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = self._look_for_pruner(trainer, pl_module)
        if not isinstance(found, InfoBatch):
            raise TypeError(
                f"InfoBatchCallback() found no pruner in {type(pl_module).__name__}, nor in its data module: pass "
                "InfoBatchCallback(pruner), or set self.pruner = InfoBatch(...) in setup() of one of them"
            )
        ranks = (trainer.distributed_sampler_kwargs or {}).get("num_replicas", 1)
        if found.num_replicas != ranks:
            raise ValueError(
                f"the pruner has num_replicas={found.num_replicas} and the trainer {ranks} data-parallel ranks: make the pruner "
                "where the process group exists, self.pruner = InfoBatch(...) in setup() of the LightningModule or the "
                "LightningDataModule, and pass InfoBatchCallback() without it"
            )
        self._pruner = found

    def _select_first(self, trainer: Trainer) -> None:
        """Selects the epoch that the trainer begins with. A pruner that was restored ignores those before its own."""
        pruner, epoch = self.pruner, epochs_done(trainer)
        if epoch == trainer.max_epochs:
            return  # a run that has ended begins none
        pruner.set_epoch(epoch)
        goes_on = pruner.epoch != epoch and pruner.lengths.is_dynamic and not self._epoch_ended
        if goes_on and trainer.is_global_zero:
            warnings.warn(
                f"the trainer begins with epoch {epoch}, but the pruner was restored in epoch {pruner.epoch} and resumes there: "
                "restore both from one checkpoint, Trainer.fit(..., ckpt_path=...), or begin with a new InfoBatch",
                RuntimeWarning,
                stacklevel=2,
            )
