"""Lightning's checkpoints: wherever one was taken, the run goes on from it as if it had not been cut."""

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning.pytorch")
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from infobatch_fast.integrations.lightning import InfoBatchCallback
from support.lightning_runs import (
    BATCH,
    EPOCHS,
    SIZE,
    WARNINGS,
    Model,
    batches_of,
    loader_of,
    loss_of,
    pruner_of,
    stateful_loader,
    trainer_of,
)

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]


class Saves(Callback):
    """A checkpoint at every point where Lightning's own callback may take one, and what was visited until then."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.taken = folder, {}  # type: ignore[var-annotated]

    def save(self, trainer: Any, model: Any, moment: str) -> None:
        path = self.folder / f"{moment} {len(self.taken)}.ckpt"
        trainer.save_checkpoint(path)
        self.taken[path] = (trainer.current_epoch, {epoch: list(visited) for epoch, visited in model.visited.items()})

    def on_train_batch_end(self, trainer: Any, model: Any, *args: Any) -> None:
        self.save(trainer, model, "batch")

    def on_validation_end(self, trainer: Any, model: Any) -> None:
        self.save(trainer, model, "validation")

    def on_train_epoch_end(self, trainer: Any, model: Any) -> None:
        self.save(trainer, model, "epoch")


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "stateful": ({"make": stateful_loader}, {}),
    "half epochs validated": ({}, {"val_check_interval": 0.5}),
    "longer epochs at the end": ({}, {"delta": 0.5}),
    "by steps": ({}, {"max_steps": 40}),
    "half epochs trained": ({}, {"limit_train_batches": 0.5}),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_from_every_checkpoint_with_no_sample_lost_or_repeated(tmp_path: Path, kind: str) -> None:
    loader_arguments, arguments = KINDS[kind]
    arguments = dict(arguments)
    delta = arguments.pop("delta", 1.0)
    pruner = pruner_of(delta=delta)
    reference, saves = Model(pruner), Saves(tmp_path)
    trainer_of(tmp_path, InfoBatchCallback(pruner), saves, **arguments).fit(reference, loader_of(pruner, **loader_arguments))
    assert len(saves.taken) > sum(reference.lengths.values())
    steps = sum(batches_of(visited) for visited in reference.visited.values())
    for path, (epoch, before) in saves.taken.items():
        again = pruner_of(delta=delta)
        model = Model(again)
        trainer = trainer_of(tmp_path, InfoBatchCallback(again), **arguments)
        trainer.fit(model, loader_of(again, **loader_arguments), ckpt_path=path)
        every = {each: before.get(each, []) + model.visited.get(each, []) for each in reference.visited}
        if kind == "by steps" and path.name.startswith("epoch"):
            # With max_steps Lightning itself counts an epoch that it does not train, after a checkpoint of an epoch's end.
            assert all(len(visited) == len(set(visited)) for visited in every.values()), path
            assert all(every[each] == reference.visited[each] for each in range(epoch + 1)), path
            continue
        assert every == reference.visited, path
        assert sorted(model.visited) == sorted(set(model.visited)), path
        assert trainer.global_step == steps, path
        for each in range(epoch + 1, EPOCHS):
            if each in model.lengths and "steps" not in kind:
                assert model.lengths[each] == reference.lengths[each], path
        again_validated = [validated for validated in model.validated if validated[0] > epoch]
        assert again_validated == [validated for validated in reference.validated if validated[0] > epoch], path
        torch.testing.assert_close(again.scores(), pruner.scores(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("interval", [1.0, 0.5, 4])
def test_the_pruner_in_a_checkpoint_of_an_epochs_end_may_stand_at_that_end_or_before_the_next_epoch(
    tmp_path: Path, interval: float
) -> None:
    pruner = pruner_of()
    reference, saves = Model(pruner), Saves(tmp_path)
    trainer_of(tmp_path, InfoBatchCallback(pruner), saves, val_check_interval=interval).fit(reference, loader_of(pruner))
    stood = {"at the end": 0, "before the next": 0}
    for path, (epoch, before) in saves.taken.items():
        if len(before[epoch]) < len(reference.visited[epoch]):
            continue
        checkpoint = torch.load(path, weights_only=True)
        for place in stood:
            between = pruner_of()
            between.load_state_dict(checkpoint["infobatch_fast"])
            if place == "before the next":
                between.set_epoch(epoch + 1)
            elif between.epoch != epoch:
                continue
            torch.save(checkpoint | {"infobatch_fast": between.state_dict()}, tmp_path / "between.ckpt")
            again = pruner_of()
            model = Model(again)
            trainer = trainer_of(tmp_path, InfoBatchCallback(again), val_check_interval=interval)
            trainer.fit(model, loader_of(again), ckpt_path=tmp_path / "between.ckpt")
            assert model.visited == {each: reference.visited[each] for each in range(epoch + 1, EPOCHS)}, (path, place)
            lengths = [reference.lengths[each] for each in range(epoch + 1, EPOCHS)]
            assert list(model.lengths.values()) == lengths, (path, place)
            later = [validated for validated in reference.validated if validated[0] > epoch]
            assert [validated for validated in model.validated if validated[0] > epoch] == later, (path, place)
            torch.testing.assert_close(again.scores(), pruner.scores(), rtol=0, atol=0)
            stood[place] += 1
    assert stood["before the next"] >= 2 * EPOCHS, "after the last batch and after the epoch, at least"


@pytest.mark.slow
@pytest.mark.parametrize("make", ["DataLoader", "StatefulDataLoader"])
@pytest.mark.parametrize("persistent", [False, True])
def test_what_workers_had_prefetched_and_nobody_trained_on_comes_again(tmp_path: Path, make: str, persistent: bool) -> None:
    arguments: dict[str, Any] = {"num_workers": 2, "persistent_workers": persistent}
    if make == "StatefulDataLoader":
        arguments["make"] = stateful_loader
    pruner = pruner_of()
    reference = Model(pruner)
    checkpoints = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=7, save_top_k=-1)
    trainer_of(tmp_path, InfoBatchCallback(pruner), checkpoints, enable_checkpointing=True).fit(
        reference, loader_of(pruner, **arguments)
    )
    total = [sample for visited in reference.visited.values() for sample in visited]
    for step in (7, 21):  # in the middle of epochs 0 and 2
        again = pruner_of()
        model = Model(again)
        path = tmp_path / f"step={step}.ckpt"
        trainer_of(tmp_path, InfoBatchCallback(again)).fit(model, loader_of(again, **arguments), ckpt_path=path)
        rest = [sample for visited in model.visited.values() for sample in visited]
        assert rest == total[-len(rest) :]
        assert sum(batches_of(visited) for visited in model.visited.values()) == sum(reference.lengths.values()) - step


@pytest.mark.filterwarnings("ignore:the pruner has num_epochs=4")
def test_a_checkpoint_holds_the_state_as_it_was_and_is_read_without_pickle(tmp_path: Path) -> None:
    pruner = pruner_of()
    model, path = Model(pruner), tmp_path / "last.ckpt"
    trainer = trainer_of(tmp_path, InfoBatchCallback(pruner), max_epochs=1)
    trainer.fit(model, loader_of(pruner))
    trainer.save_checkpoint(path)
    checkpoint = trainer._checkpoint_connector.dump_checkpoint()
    pruner.record([0], torch.tensor([1e6]))
    state = torch.load(path, weights_only=True)["infobatch_fast"]
    assert torch.equal(state["scores"], checkpoint["infobatch_fast"]["scores"]), "a copy: savers in the background may take long"
    again = pruner_of()
    again.load_state_dict(state)
    assert again.scores().tolist() == loss_of(torch.arange(SIZE), 0).tolist()


@pytest.mark.filterwarnings("ignore:the pruner has num_epochs=4")
def test_validating_a_checkpoint_leaves_the_pruner_alone(tmp_path: Path) -> None:
    pruner = pruner_of()
    model, path = Model(pruner), tmp_path / "first.ckpt"
    callback = InfoBatchCallback(pruner)
    trainer = trainer_of(tmp_path, callback, max_epochs=1)
    trainer.fit(model, loader_of(pruner))
    trainer.save_checkpoint(path)
    trainer = trainer_of(tmp_path, callback)
    trainer.fit(model, loader_of(pruner))
    expected = pruner.scores().tolist()
    trainer.validate(model, ckpt_path=path)
    assert (pruner.epoch, pruner.scores().tolist()) == (EPOCHS - 1, expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_checkpoint_of_a_run_without_the_callback_starts_with_no_scores(tmp_path: Path, workers: int) -> None:
    pruner = pruner_of()
    model, path = Model(pruner), tmp_path / "without.ckpt"
    trainer = trainer_of(tmp_path, max_epochs=2)
    trainer.fit(model, loader_of(pruner))
    trainer.save_checkpoint(path)
    again = pruner_of()
    model = Model(again)
    with pytest.warns(UserWarning, match="saved without InfoBatchCallback"):
        trainer_of(tmp_path, InfoBatchCallback(again)).fit(model, loader_of(again, num_workers=workers), ckpt_path=path)
    assert list(model.visited) == [2, 3]
    assert sorted(model.visited[2]) == list(range(SIZE))
    assert len(model.visited[3]) < SIZE


@pytest.mark.filterwarnings("ignore:the pruner has num_epochs=4")
def test_fitting_again_goes_on_with_the_scores(tmp_path: Path) -> None:
    pruner = pruner_of()
    model = Model(pruner)
    trainer = trainer_of(tmp_path, InfoBatchCallback(pruner), max_epochs=2)
    trainer.fit(model, loader_of(pruner))
    trainer.fit_loop.max_epochs = EPOCHS
    trainer.fit(model, loader_of(pruner, num_workers=2))
    reference, other = Model(pruner_of()), pruner_of()
    reference.pruner = other
    trainer_of(tmp_path, InfoBatchCallback(other)).fit(reference, loader_of(other))
    assert model.visited == reference.visited
    model.visited.clear()
    trainer_of(tmp_path, InfoBatchCallback(pruner), max_epochs=2).fit(model, loader_of(pruner, num_workers=2))
    assert list(model.visited) == [0, 1]
    for visited in model.visited.values():
        assert len(visited) == len(set(visited)) < SIZE, "all have scores, in the first epoch of the second run too"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_that_were_set_up_before_the_state_was_known_go_on_right(tmp_path: Path, workers: int) -> None:
    class Estimating(Model):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            assert self.trainer.estimated_stepping_batches > 0
            return super().configure_optimizers()

    class Late(InfoBatchCallback):
        """As with strategies that restore callbacks after the model was set up."""

        def on_load_checkpoint(self, *args: Any) -> None:
            self.kept_back = args

        def on_train_start(self, *args: Any) -> None:
            if hasattr(self, "kept_back"):
                super().on_load_checkpoint(*self.kept_back)
            super().on_train_start(*args)

    pruner = pruner_of()
    reference, saves = Estimating(pruner), Saves(tmp_path)
    trainer_of(tmp_path, InfoBatchCallback(pruner), saves).fit(reference, loader_of(pruner))
    for callback in (InfoBatchCallback, Late):
        for path, (_, before) in list(saves.taken.items())[3::9]:
            again = pruner_of()
            model = Estimating(again)
            trainer_of(tmp_path, callback(again)).fit(model, loader_of(again, num_workers=workers), ckpt_path=path)
            every = {each: before.get(each, []) + model.visited.get(each, []) for each in reference.visited}
            assert every == reference.visited, (callback, path)


def test_epochs_of_constant_length_stay_so_after_a_restart_in_their_middle(tmp_path: Path) -> None:
    steps = 7

    def run(*callbacks: Any, **arguments: Any) -> Model:
        pruner = pruner_of(steps_per_epoch=steps, batch_size=BATCH)
        model = Model(pruner)
        trainer_of(tmp_path, InfoBatchCallback(pruner), *callbacks).fit(model, loader_of(pruner), **arguments)
        return model

    saves = Saves(tmp_path)
    reference = run(saves)
    ends = [(epoch, steps - 1) for epoch in range(EPOCHS)]
    assert reference.validated == ends
    in_epoch_1 = [path for path, (epoch, _) in saves.taken.items() if path.name.startswith("batch") and epoch == 1][: steps - 1]
    for path in in_epoch_1:
        model = run(ckpt_path=path)
        assert set(model.lengths.values()) == {steps}, path
        assert model.validated == ends[1:], path
        before = saves.taken[path][1]
        assert {each: before.get(each, []) + model.visited.get(each, []) for each in reference.visited} == reference.visited, path
