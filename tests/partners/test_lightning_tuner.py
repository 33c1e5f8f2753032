"""Lightning's tuners: they train for a trial, and the run that follows is as if they had not."""

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning.pytorch")
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.tuner import Tuner

from infobatch_fast import InfoBatch
from infobatch_fast.integrations.lightning import InfoBatchCallback
from support.lightning_runs import BATCH, EPOCHS, WARNINGS, Model, batches_of, loader_of, pruner_of, trainer_of

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]

STEPS = 20  # of a trial: more than an epoch has


class Tuned(Model):
    """Makes its own loader, and notes what one run alone trained on."""

    def __init__(self, pruner: InfoBatch | None, batch_size: int = BATCH) -> None:
        super().__init__(pruner)
        self.lr, self.batch_size, self.estimates = 0.1, batch_size, False
        self.tried: dict[int, list[int]] = {}

    def train_dataloader(self) -> Any:
        return loader_of(self.pruner, batch_size=self.batch_size)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.estimates:  # the loader is set up before there is a checkpoint, and the first plan made
            assert self.trainer.estimated_stepping_batches > 0
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def on_train_start(self) -> None:
        """A trial and the run call it alike."""
        self.tried, self.visited = self.visited, {}
        self.lengths, self.validated = {}, []


def state_of(pruner: InfoBatch) -> dict[str, Any]:
    """All that can be seen of it. The plan is made, as it is by every fit."""
    stats = pruner.stats
    named = {name: value for name, value in vars(stats).items() if name != "plan_seconds"}
    return {
        "epoch": pruner.epoch,
        "progress": pruner.progress,
        "expected": pruner.expected_steps(BATCH),
        "scores": pruner.scores().nan_to_num(-1).tolist(),
        "stats": {name: str(value) for name, value in named.items()},
    }


@pytest.fixture
def reference(tmp_path: Path) -> Tuned:
    """A run that nothing was tried before."""
    model = Tuned(pruner_of())
    trainer_of(tmp_path, InfoBatchCallback(model.pruner)).fit(model)
    return model


@pytest.mark.parametrize("estimates", [False, True], ids=["", "loader set up early"])
@pytest.mark.parametrize("in_setup", [False, True], ids=["pruner given", "pruner made in setup"])
def test_the_learning_rate_finder_leaves_the_pruner_as_it_was(
    tmp_path: Path, reference: Tuned, in_setup: bool, estimates: bool
) -> None:
    class Late(Tuned):
        def setup(self, stage: str) -> None:
            self.pruner = pruner_of()

    model = Late(None) if in_setup else Tuned(pruner_of())
    model.estimates = estimates
    trainer = trainer_of(tmp_path, InfoBatchCallback(None if in_setup else model.pruner))
    Tuner(trainer).lr_find(model, num_training=STEPS)
    assert len(model.visited[0]) == len(model.pruner.scores()), "it was trained on"
    assert state_of(model.pruner) == state_of(pruner_of())
    trainer.fit(model)
    assert model.visited == reference.visited
    assert model.lengths == reference.lengths
    assert model.validated == reference.validated
    assert state_of(model.pruner) == state_of(reference.pruner)


@pytest.mark.parametrize("comes_first", [False, True])
def test_so_it_does_as_a_callback_and_in_the_middle_of_a_run(tmp_path: Path, reference: Tuned, comes_first: bool) -> None:
    def run(finder: LearningRateFinder) -> Tuned:
        model = Tuned(pruner_of())
        callbacks = [finder, InfoBatchCallback(model.pruner)]
        trainer_of(tmp_path, *(callbacks if comes_first else reversed(callbacks))).fit(model)
        return model

    model = run(LearningRateFinder(num_training_steps=STEPS))
    assert model.tried, "it was called"
    assert model.visited == reference.visited
    assert state_of(model.pruner) == state_of(reference.pruner)

    class EachEpoch(LearningRateFinder):
        """As in Lightning's documentation."""

        tried = 0

        def on_fit_start(self, *args: Any) -> None:
            pass

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch in (1, 2):
                before = {epoch: list(visited) for epoch, visited in pl_module.visited.items()}
                self.lr_find(trainer, pl_module)
                self.tried += pl_module.visited != before
                pl_module.visited = before

    finder = EachEpoch(num_training_steps=STEPS)
    model = run(finder)
    assert finder.tried == 2
    assert {epoch: visited for epoch, visited in model.visited.items() if epoch} == {
        epoch: visited for epoch, visited in reference.visited.items() if epoch
    }
    assert state_of(model.pruner) == state_of(reference.pruner)


@pytest.mark.parametrize("by", ["tuner", "callback first", "callback last"])
def test_the_batch_size_finder_leaves_the_pruner_as_it_was_and_epochs_have_batches_of_the_new_size(
    tmp_path: Path, reference: Tuned, by: str
) -> None:
    model = Tuned(pruner_of(), batch_size=2)
    callbacks: list[Any] = [InfoBatchCallback(model.pruner)]
    if by == "tuner":
        trainer = trainer_of(tmp_path, *callbacks)
        Tuner(trainer).scale_batch_size(model, max_trials=3, init_val=4)
        assert model.visited, "it was trained on"
        assert state_of(model.pruner) == state_of(pruner_of())
    else:
        callbacks.insert(0 if by == "callback first" else 1, BatchSizeFinder(max_trials=3, init_val=4))
        trainer = trainer_of(tmp_path, *callbacks)
    trainer.fit(model)
    assert model.tried, "it was called"
    size = model.batch_size
    assert size == trainer.train_dataloader.batch_size  # type: ignore[union-attr]
    assert size in (16, 32), "4, 8, 16; Lightning 2.5.0 counts no first trial"
    assert {epoch: sorted(visited) for epoch, visited in model.visited.items()} == {
        epoch: sorted(visited) for epoch, visited in reference.visited.items()
    }
    assert model.lengths == {epoch: -(-len(visited) // size) for epoch, visited in model.visited.items()}
    assert model.validated == [(epoch, length - 1) for epoch, length in model.lengths.items()]
    assert state_of(model.pruner) == state_of(reference.pruner)


def fitted(model: Tuned, folder: Path, tunes: bool) -> Tuned:
    """A model after a run, before which a tuner may have tried some steps."""
    trainer = trainer_of(folder, InfoBatchCallback(model.pruner))
    if tunes:
        Tuner(trainer).lr_find(model, num_training=STEPS)
    trainer.fit(model)
    return model


def test_between_two_runs_of_a_pruner_a_tuner_changes_nothing_of_the_second(tmp_path: Path, reference: Tuned) -> None:
    def second(tunes: bool) -> Tuned:
        model = Tuned(pruner_of())
        trainer_of(tmp_path, InfoBatchCallback(model.pruner)).fit(model)
        return fitted(model, tmp_path, tunes)

    plain, tuned = second(False), second(True)
    assert len(plain.visited[0]) < len(reference.visited[0]), "all have scores"
    assert tuned.visited == plain.visited
    assert state_of(tuned.pruner) == state_of(plain.pruner)


def test_with_steps_per_epoch_a_tuner_changes_nothing_either(tmp_path: Path) -> None:
    def run(tunes: bool) -> Tuned:
        return fitted(Tuned(pruner_of(steps_per_epoch=7, batch_size=BATCH)), tmp_path, tunes)

    plain, tuned = run(False), run(True)
    assert sum(batches_of(visited) for visited in plain.visited.values()) == 7 * EPOCHS
    assert tuned.visited == plain.visited
    assert tuned.pruner.progress == plain.pruner.progress == 1
