"""Epochs of constant length on several ranks: all take the same steps, and a restart loses nothing on any number of them."""

from __future__ import annotations

import io
import itertools
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from infobatch_fast import InfoBatch
from support.flows import Trainer, ahead
from support.ranks import needs_gloo, run_ranks

pytestmark = needs_gloo

SIZE, BATCH, STEPS, EPOCHS = 403, 8, 7, 10


def pruner_here() -> InfoBatch:
    return InfoBatch(SIZE, EPOCHS, delta=1.0, seed=5, batch_size=BATCH, steps_per_epoch=STEPS)


def train_all(count: int, stop: int, trainer: Trainer | None = None) -> Trainer:
    """Trains until ``stop`` steps are done in all."""
    trainer = trainer or Trainer(pruner_here())
    while len(trainer.visited) < stop * BATCH:
        left = stop - len(trainer.visited) // BATCH
        for batch in itertools.islice(ahead(trainer.pruner.sampler.batches(BATCH), count), left):
            trainer.step(batch)
    return trainer


def whole_run(count: int) -> dict[str, Any]:
    trainer = train_all(count, EPOCHS * STEPS)
    own = sorted(set(trainer.visited))
    trainer.assert_scores_are_its_own()
    return {"visited": trainer.visited, "weights": trainer.weights, "own": own, "plans": trainer.pruner.epoch}


@pytest.mark.parametrize("count", [0, 5])
def test_all_ranks_take_the_same_steps_and_make_the_same_plans(count: int) -> None:
    ranks = run_ranks(2, whole_run, count)
    assert [len(rank["visited"]) for rank in ranks] == [EPOCHS * STEPS * BATCH] * 2
    assert ranks[0]["plans"] == ranks[1]["plans"] > 1
    assert sorted(ranks[0]["own"] + ranks[1]["own"]) == list(range(SIZE))


def cut_and_go_on(count: int, cut: int, folder: str) -> dict[str, Any]:
    trainer = Trainer(pruner_here())
    done = 0
    while done < cut:  # cut in the middle of an iteration, with batches on their way
        for batch in ahead(trainer.pruner.sampler.batches(BATCH), count):
            trainer.step(batch)
            done += 1
            if done == cut:
                break
    dcp.save({"pruner": trainer.pruner.state_dict()}, checkpoint_id=folder)
    late = len(trainer.pruner.state_dict()["late_ids"]) // 16
    trainer.pruner = pruner_here()
    state = {"pruner": trainer.pruner.state_dict()}
    dcp.load(state, checkpoint_id=folder)
    trainer.pruner.load_state_dict(state["pruner"])
    train_all(count, EPOCHS * STEPS, trainer)
    dist.barrier()
    return {"visited": trainer.visited, "weights": trainer.weights, "late": late}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("cut", [3, 23, 24, 25, 40])
def test_a_run_on_two_ranks_that_is_cut_goes_on_bit_for_bit(cut: int, tmp_path: Any) -> None:
    expected = run_ranks(2, whole_run, 3)
    ranks = run_ranks(2, cut_and_go_on, 3, cut, str(tmp_path / "checkpoint"))
    for rank, reference in zip(ranks, expected, strict=True):
        assert rank["visited"] == reference["visited"]
        assert rank["weights"] == reference["weights"]
    assert ranks[0]["late"] == ranks[1]["late"]
    if cut in (23, 24, 25):
        assert ranks[0]["late"] > 0, "the cut is in the batches that were on their way when the next plan was made"


def late_at(cut: int, folder: str) -> list[int]:
    trainer = Trainer(pruner_here())
    done = 0
    while done < cut:
        for batch in ahead(trainer.pruner.sampler.batches(BATCH), 3):
            trainer.step(batch)
            done += 1
            if done == cut:
                break
    dcp.save({"pruner": trainer.pruner.state_dict()}, checkpoint_id=folder)
    return trainer.visited


def rest_on_one(folder: str) -> tuple[list[int], int]:
    pruner = pruner_here()
    state = {"pruner": pruner.state_dict()}
    dcp.load(state, checkpoint_id=folder)
    pruner.load_state_dict(state["pruner"])
    owed = len(pruner.state_dict()["late_ids"]) // 16
    ids = list(itertools.islice(itertools.chain.from_iterable(iter(lambda: list(pruner.sampler), None)), 3 * STEPS * BATCH))
    return ids, owed


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_two_ranks_may_go_on_as_one_and_what_was_on_its_way_on_both_comes_first(tmp_path: Any) -> None:
    folder = str(tmp_path / "checkpoint")
    before = run_ranks(2, late_at, 24, folder)
    ((ids, owed),) = run_ranks(1, rest_on_one, folder)
    visited = before[0] + before[1]
    assert owed > 0
    assert set(ids[:owed]) | set(visited) == set(range(SIZE)), "the first plan is full, and now all of it was visited"
    assert len(set(ids[:owed])) == owed


def disagree() -> str:
    steps = 5 + dist.get_rank()
    try:
        len(list(InfoBatch(SIZE, EPOCHS, batch_size=BATCH, steps_per_epoch=steps).sampler))
    except RuntimeError as error:
        return str(error)
    return "nothing was raised"


def test_ranks_with_other_lengths_are_told() -> None:
    for message in run_ranks(2, disagree):
        assert "lengths" in message
        assert "steps_per_epoch=5" in message


def test_torch_save_keeps_what_is_on_its_way() -> None:
    trainer = Trainer(pruner_here())
    for _ in range(8):
        for batch in ahead(trainer.pruner.sampler.batches(BATCH), 3):
            trainer.step(batch)
    file = io.BytesIO()
    torch.save(trainer.pruner.state_dict(), file)
    file.seek(0)
    assert torch.load(file, weights_only=True)["done"] == 8 * STEPS * BATCH
