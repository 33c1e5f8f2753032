"""Lightning: every score is its sample's own loss, epochs really shrink, and the trainer knows how long each one is."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning.pytorch")
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from infobatch_fast import InfoBatch, QuantileTiers
from infobatch_fast.integrations.lightning import InfoBatchCallback
from support.lightning_runs import (
    BATCH,
    EPOCHS,
    SIZE,
    WARNINGS,
    Checks,
    Model,
    batches_of,
    loader_of,
    pruner_of,
    stateful_loader,
    trainer_of,
)

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]

LOADERS: dict[str, Any] = {
    "plain": {},
    "workers": {"num_workers": 2},
    "persistent workers": {"num_workers": 2, "persistent_workers": True},
    "stateful": {"make": stateful_loader},
    "stateful, workers": {"make": stateful_loader, "num_workers": 2},
    "batches": {"batch_size": 1, "sampler": None},
}


def loader_named(pruner: InfoBatch, name: str) -> Any:
    arguments = dict(LOADERS[name])
    if name == "batches":
        arguments["batch_sampler"] = pruner.sampler.batches(BATCH)
    return loader_of(pruner, **arguments)


@pytest.mark.parametrize("name", LOADERS)
def test_every_score_is_its_samples_own_loss_and_each_epoch_is_as_long_as_its_plan(
    tmp_path: Path, made: list[int], name: str
) -> None:
    pruner = pruner_of()
    model, checks = Model(pruner), Checks()
    trainer_of(tmp_path, InfoBatchCallback(pruner), checks).fit(model, loader_named(pruner, name))
    assert checks.epochs == list(model.visited) == made == list(range(EPOCHS))
    assert sorted(model.visited[0]) == list(range(SIZE))
    for epoch in range(1, EPOCHS):
        visited = model.visited[epoch]
        assert len(visited) == len(set(visited)) < SIZE
    assert model.lengths == {epoch: batches_of(visited) for epoch, visited in model.visited.items()}
    assert model.validated == [(epoch, length - 1) for epoch, length in model.lengths.items()], "once an epoch, at its end"


def test_the_pruner_may_be_made_in_setup_of_the_module_or_of_its_data_module(tmp_path: Path) -> None:
    import lightning.pytorch as pl

    class Module(Model):
        def setup(self, stage: str) -> None:
            self.pruner = pruner_of()

        def train_dataloader(self) -> Any:
            return loader_of(self.pruner)

    class Data(pl.LightningDataModule):
        def setup(self, stage: str) -> None:
            self.pruner = pruner_of()

        def train_dataloader(self) -> Any:
            return loader_of(self.pruner)

        def val_dataloader(self) -> Any:
            return DataLoader([0.0])  # type: ignore[arg-type]

    module, checks = Module(), Checks()
    trainer_of(tmp_path, InfoBatchCallback(), checks).fit(module)
    other = Model()
    callback = InfoBatchCallback()
    data = Data()
    trainer_of(tmp_path, callback, Checks()).fit(other, datamodule=data)
    assert callback.pruner is data.pruner
    assert other.visited == module.visited
    assert checks.epochs == list(range(EPOCHS))


# ---- lengths ----


@pytest.mark.parametrize("interval", [1.0, 0.5, 3, 12])
def test_validation_runs_in_every_epoch_at_the_places_that_its_interval_says(tmp_path: Path, interval: float) -> None:
    pruner = pruner_of()
    model = Model(pruner)
    trainer_of(tmp_path, InfoBatchCallback(pruner), val_check_interval=interval).fit(model, loader_of(pruner))
    expected = []
    for epoch, length in model.lengths.items():
        step = min(interval, length) if isinstance(interval, int) else max(1, int(length * interval))
        expected += [(epoch, batch) for batch in range(int(length)) if (batch + 1) % step == 0]
    assert model.lengths[1] < 12
    assert model.validated == expected
    assert {epoch for epoch, _ in model.validated} == set(range(EPOCHS))


def test_validation_in_every_second_epoch_and_by_batches_of_the_whole_run(tmp_path: Path) -> None:
    pruner = pruner_of()
    model = Model(pruner)
    trainer_of(tmp_path, InfoBatchCallback(pruner), check_val_every_n_epoch=2).fit(model, loader_of(pruner))
    assert [epoch for epoch, _ in model.validated] == [1, 3]
    pruner = pruner_of()
    model = Model(pruner)
    trainer = trainer_of(tmp_path, InfoBatchCallback(pruner), check_val_every_n_epoch=None, val_check_interval=13)
    trainer.fit(model, loader_of(pruner))
    assert len(model.validated) == sum(model.lengths.values()) // 13


@pytest.mark.parametrize("limit", [5, 0.5])
def test_limit_train_batches_limits_each_epoch_by_its_own_length(tmp_path: Path, limit: float) -> None:
    pruner = pruner_of()
    model, checks = Model(pruner), Checks()
    trainer_of(tmp_path, InfoBatchCallback(pruner), checks, limit_train_batches=limit).fit(model, loader_of(pruner))
    assert checks.epochs == list(range(EPOCHS))
    assert model.lengths == {epoch: batches_of(visited) for epoch, visited in model.visited.items()}
    if limit == 5:
        assert set(model.lengths.values()) == {5}
    else:
        assert model.lengths[0] == 6
        assert model.lengths[EPOCHS - 1] < 6
    assert [epoch for epoch, _ in model.validated] == list(range(EPOCHS))


def test_the_progress_bar_ends_where_the_epoch_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    totals = []

    class Bar(TQDMProgressBar):
        def on_train_epoch_end(self, *args: Any) -> None:
            totals.append((self.train_progress_bar.n, self.train_progress_bar.total))

    pruner = pruner_of()
    model = Model(pruner)
    trainer_of(tmp_path, InfoBatchCallback(pruner), Bar(), enable_progress_bar=True).fit(model, loader_of(pruner))
    assert totals == [(length, length) for length in model.lengths.values()]


# ---- gradients ----


@pytest.mark.parametrize("accumulated", [1, 2])
def test_weights_reach_the_gradient(tmp_path: Path, accumulated: int) -> None:
    pruner = pruner_of(policy=QuantileTiers((0.8,), (0.5,)))
    gradients: list[float] = []

    class Noting(Model):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            assert self.weight.grad is not None
            gradients.append(self.weight.grad.item())

    model = Noting(pruner)
    trainer_of(tmp_path, InfoBatchCallback(pruner), accumulate_grad_batches=accumulated).fit(model, loader_of(pruner))
    expected = []
    rest = list(model.expected_gradient)
    for length in model.lengths.values():
        of_epoch, rest = rest[: int(length)], rest[int(length) :]
        expected += [sum(of_epoch[first : first + accumulated]) / accumulated for first in range(0, len(of_epoch), accumulated)]
    assert gradients == pytest.approx(expected, rel=1e-6)
    known = [loss_mean for loss_mean in model.expected_gradient if loss_mean > 97]
    assert known, "no mean of losses alone is that large"


# ---- what is logged ----


def test_statistics_are_logged_once_an_epoch_and_can_be_monitored(tmp_path: Path) -> None:
    pruner = pruner_of()
    logger = CSVLogger(tmp_path, name="", version="")
    model = Model(pruner)
    seen = []

    class Reads(Checks):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            seen.append(pl_module.pruner.stats)

    trainer = trainer_of(tmp_path, InfoBatchCallback(pruner), Reads(), logger=logger, log_every_n_steps=1)
    trainer.fit(model, loader_of(pruner))
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    logged = [row for row in rows if row["infobatch/kept"]]
    assert [float(row["infobatch/kept"]) for row in logged] == [stats.kept for stats in seen]
    assert [float(row["infobatch/saved_fraction"]) for row in logged] == pytest.approx([stats.saved_fraction for stats in seen])
    assert [float(row["infobatch/threshold_0"]) for row in logged[1:]] == pytest.approx([stats.thresholds[0] for stats in seen[1:]])
    assert trainer.callback_metrics["infobatch/non_finite"] == 0
    assert trainer.callback_metrics["infobatch/total_saved_fraction"] == pytest.approx(seen[-1].total_saved_fraction)
    assert len(rows) == EPOCHS
