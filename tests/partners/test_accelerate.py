"""Accelerate, and the trainer, on one rank and on two: each visits its own samples, and every score is the sample's own loss."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from support.items import Items
from support.ranks import needs_gloo, own_ids, run_ranks

pytest.importorskip("accelerate")

from accelerate.state import AcceleratorState, PartialState

from infobatch_fast import InfoBatch, with_index
from infobatch_fast.integrations.accelerate import load, prepare, save
from support.accelerators import accelerator_of

SIZE, BATCH = 90, 4


def run(folder: str, workers: int, batch_sampler: bool, resume: bool = False) -> list[dict[str, Any]]:
    """Four epochs of a model with one parameter, with a checkpoint in epoch 2 that ``resume`` goes on from."""
    accelerator = accelerator_of(gradient_accumulation_steps=2)
    pruner = InfoBatch(SIZE, num_epochs=4, delta=1.0)
    order = {"batch_sampler": pruner.sampler.batches(BATCH)} if batch_sampler else {"sampler": pruner.sampler, "batch_size": BATCH}
    loader = prepare(accelerator, DataLoader(with_index(Items(SIZE)), num_workers=workers, **order))
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    if resume:
        accelerator.load_state(folder)
    notes = []
    for epoch in range(pruner.epoch, 4):
        loader.set_epoch(epoch)
        visited, steps = [], 0
        for index, items in loader:
            with accelerator.accumulate(model):
                losses = model(items[:, :1])[:, 0] * (1 + epoch)
                loss = pruner.update(index, losses)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    steps += 1
                optimizer.step()
                optimizer.zero_grad()
            visited += index.tolist()
            if not resume and epoch == 2 and len(visited) == 2 * BATCH:
                accelerator.save_state(folder)
                notes.append({"before": list(visited)})
        scores = pruner.scores(visited)
        expected = (100.0 + torch.tensor(visited)) * (1 + epoch)
        notes.append({"epoch": epoch, "visited": visited, "exact": torch.equal(scores, expected), "steps": steps})
        notes[-1] |= {"own": own_ids(pruner).tolist(), "batches": len(loader), "kept": pruner.stats.kept}
    return notes


def check(ranks: list[list[dict[str, Any]]]) -> None:
    for epoch in range(4):
        rows = [next(note for note in rank if note.get("epoch") == epoch) for rank in ranks]
        assert all(row["exact"] for row in rows)
        assert all(set(row["visited"]) <= set(row["own"]) for row in rows)
        assert len(set.union(*(set(row["visited"]) for row in rows))) == rows[0]["kept"]
        assert len({row["steps"] for row in rows}) == 1
        assert all(row["steps"] == -(-row["batches"] // 2) for row in rows)
        assert (rows[0]["kept"] == SIZE) == (epoch == 0)


@pytest.mark.parametrize(("workers", "batch_sampler"), [(0, False), (2, True)])
@pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")
def test_scores_are_the_samples_own_losses_and_the_state_goes_on(tmp_path: Path, workers: int, batch_sampler: bool) -> None:
    whole = run(str(tmp_path), workers, batch_sampler)
    check([whole])
    rest = run(str(tmp_path), workers, batch_sampler, resume=True)
    before = next(note["before"] for note in whole if "before" in note)
    all_of = {note["epoch"]: note["visited"] for note in whole if "epoch" in note}
    assert before + rest[0]["visited"] == all_of[2]
    assert rest[1]["visited"] == all_of[3]


@needs_gloo
def test_two_ranks_visit_their_own_samples_and_no_rank_is_sharded_twice(tmp_path: Path) -> None:
    whole = run_ranks(2, run, str(tmp_path), 0, False)
    check(whole)
    rest = run_ranks(2, run, str(tmp_path), 0, False, True)
    for before, after in zip(whole, rest, strict=True):
        all_of = {note["epoch"]: note["visited"] for note in before if "epoch" in note}
        seen = next(note["before"] for note in before if "before" in note)
        assert (seen + after[0]["visited"])[: len(all_of[2])] == all_of[2]


def train_on_ranks(folder: str) -> dict[str, Any]:
    from support.line_trainer import trainer_of, value_of

    accelerator_of()
    PartialState._reset_state()
    AcceleratorState._reset_state(True)
    trainer = trainer_of(Path(folder), arguments={"num_train_epochs": 3, "ddp_backend": "gloo"}, per_sample_loss=value_of)
    trainer.train()
    own = own_ids(trainer.pruner)
    kept = [entry["infobatch_kept"] for entry in trainer.state.log_history if "infobatch_kept" in entry]
    return {"own": own.tolist(), "scores": trainer.pruner.scores(own).tolist(), "kept": kept, "ranks": trainer.pruner.num_replicas}


@needs_gloo
def test_the_trainer_on_two_ranks_scores_each_sample_with_its_own_loss(tmp_path: Path) -> None:
    pytest.importorskip("transformers", minversion="5.3.0")
    ranks = run_ranks(2, train_on_ranks, str(tmp_path))
    assert sorted(ranks[0]["own"] + ranks[1]["own"]) == list(range(24))
    for rank in ranks:
        assert rank["ranks"] == 2
        torch.testing.assert_close(torch.tensor(rank["scores"]), torch.tensor(rank["own"]) + 1.0)
        assert rank["kept"][0] == 24
        assert rank["kept"][1] < 24


def test_a_loader_with_another_sampler_is_refused() -> None:
    with pytest.raises(TypeError, match=r"construct it with sampler=pruner\.sampler"):
        prepare(accelerator_of(), DataLoader(Items(SIZE), shuffle=True))


@pytest.mark.parametrize(
    ("kwargs", "message"), [({"split_batches": True}, "split_batches"), ({"dispatch_batches": True}, "dispatch")]
)
def test_a_loader_that_would_be_shared_out_is_refused(kwargs: dict[str, bool], message: str) -> None:
    from accelerate.utils import DataLoaderConfiguration

    accelerator = accelerator_of(dataloader_config=DataLoaderConfiguration(**kwargs))
    pruner = InfoBatch(SIZE, 2)
    with pytest.raises(ValueError, match=message):
        prepare(accelerator, DataLoader(with_index(Items(SIZE)), sampler=pruner.sampler, batch_size=4))


def test_a_folder_without_a_state_is_named(tmp_path: Path) -> None:
    pruner = InfoBatch(SIZE, 2)
    with pytest.raises(FileNotFoundError, match="holds no state of an InfoBatch"):
        load(pruner, tmp_path)
    save(pruner, tmp_path / "state")
    with pytest.raises(ValueError, match="data set of 90 samples, but this pruner has 91"):
        load(InfoBatch(SIZE + 1, 2), tmp_path / "state")


def shard_twice() -> list[str]:
    accelerator, pruner = accelerator_of(), InfoBatch(24, num_epochs=4)
    loader = accelerator.prepare(DataLoader(with_index(Items(24)), batch_size=2, sampler=pruner.sampler))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        for epoch in range(2):
            pruner.set_epoch(epoch)
            for index, _ in loader:
                pruner.update(index, torch.ones(len(index)))
    return [str(warning.message) for warning in caught]


@needs_gloo
def test_a_loader_that_is_sharded_a_second_time_is_noticed(tmp_path: Path) -> None:
    for messages in run_ranks(2, shard_twice):
        assert any("shards the sampler a second time" in message and "accelerate.prepare" in message for message in messages)
