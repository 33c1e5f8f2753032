"""EpochProgressLR in Lightning: where epochs are cut short, and after a restart, the learning rate is that of the run's place."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch

pytest.importorskip("lightning.pytorch")
from lightning.pytorch.callbacks import Callback

from infobatch_fast import EpochProgressLR, InfoBatch
from infobatch_fast.integrations.lightning import InfoBatchCallback
from support.lightning_runs import BATCH, EPOCHS, SIZE, WARNINGS, Model, loader_of, pruner_of, trainer_of

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]


class Scheduled(Model):
    """A model whose learning rate falls to 0 in a straight line, over the run."""

    def __init__(self, pruner: InfoBatch, by: Literal["epochs", "visits"]) -> None:
        super().__init__(pruner)
        self.by, self.rates = by, {}  # type: ignore[var-annotated]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.rates[self.trainer.global_step] = self.trainer.optimizers[0].param_groups[0]["lr"]
        return super().training_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        inner = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 1000)
        scheduler = EpochProgressLR(inner, self.used, 1000, self.by)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


@pytest.mark.parametrize("limit", [0.5, 2])
@pytest.mark.parametrize("epochs", [1, 6])
@pytest.mark.parametrize("by", ["epochs", "visits"])
def test_where_epochs_are_cut_short_the_learning_rate_ends_with_the_run(tmp_path: Path, by: Any, limit: float, epochs: int) -> None:
    pruner = InfoBatch(SIZE, epochs, delta=0.7)
    seen, kept = [], []

    class Notes(Callback):
        def on_train_epoch_end(self, *args: Any) -> None:
            seen.append(pruner.progress)
            kept.append(pruner.stats.kept)

    model = Scheduled(pruner, by)
    trainer = trainer_of(tmp_path, InfoBatchCallback(pruner), Notes(), max_epochs=epochs, limit_train_batches=limit)
    trainer.fit(model, loader_of(pruner))
    whole = [-(-each // BATCH) for each in kept]
    assert list(model.lengths.values()) == [limit if isinstance(limit, int) else int(limit * each) for each in whole]
    losses = [len(model.visited[epoch]) for epoch in range(epochs)]
    assert seen == pytest.approx([(epoch + losses[epoch] / kept[epoch]) / epochs for epoch in range(epochs)])
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0, abs=0.01)


class Saves(Callback):
    """A checkpoint after some of the steps."""

    def __init__(self, folder: Path, steps: tuple[int, ...]) -> None:
        self.folder, self.steps = folder, steps

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


@pytest.mark.parametrize("by", ["epochs", "visits"])
def test_a_run_that_goes_on_from_a_checkpoint_has_the_same_learning_rates(tmp_path: Path, by: Any) -> None:
    steps = (5, 12, 15, 20)  # in the first epoch, at its end, and in pruned ones
    pruner = pruner_of(delta=0.75)
    whole = Scheduled(pruner, by)
    trainer_of(tmp_path, InfoBatchCallback(pruner), Saves(tmp_path, steps)).fit(whole, loader_of(pruner))
    assert len(whole.lengths) == EPOCHS
    for step in steps:
        pruner = pruner_of(delta=0.75)
        rest = Scheduled(pruner, by)
        trainer_of(tmp_path, InfoBatchCallback(pruner)).fit(rest, loader_of(pruner), ckpt_path=tmp_path / f"{step}.ckpt")
        assert rest.rates == {at: rate for at, rate in whole.rates.items() if at >= step}
    share = pruner.visited_fraction if by == "visits" else pruner.progress
    assert share == 1.0
