"""Lightning's DDP on two processes: nothing is sharded twice, checkpoints hold all ranks' scores, misplaced pruners are named."""

from __future__ import annotations

import os
import socket
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from support.ranks import flat, needs_gloo, preload, run_ranks

pytest.importorskip("lightning.pytorch")
preload("lightning.pytorch")
pytestmark = [needs_gloo, pytest.mark.skipif(sys.platform != "linux", reason="binds gloo to the loopback device lo")]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def as_torchrun_does(port: int) -> None:
    """No process group yet: Lightning makes it, from what a launcher leaves in the environment."""
    rank, world = dist.get_rank(), dist.get_world_size()
    dist.destroy_process_group()
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), GROUP_RANK="0", WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="test", GLOO_SOCKET_IFNAME="lo")
    warnings.simplefilter("ignore")  # Lightning's, of workers and loggers


def make_trainer(folder: Path, world: int, *callbacks: Any, **kwargs: Any) -> Any:
    from support.lightning_runs import trainer_of

    return trainer_of(folder, *callbacks, devices=world, strategy="ddp", **kwargs)


def model_of(batches: bool = False, **arguments: Any) -> Any:
    from support.lightning_runs import BATCH, Model, loader_of, pruner_of

    class Ranked(Model):
        def setup(self, stage: str) -> None:
            self.pruner = pruner_of(**arguments)

        def train_dataloader(self) -> Any:
            if batches:
                return loader_of(self.pruner, batch_size=1, sampler=None, batch_sampler=self.pruner.sampler.batches(BATCH))
            return loader_of(self.pruner, num_workers=0)

    return Ranked()


def train_and_save(folder: Path, port: int, world: int, batches: bool) -> dict[str, Any]:
    as_torchrun_does(port)
    from lightning.pytorch.callbacks import ModelCheckpoint

    from infobatch_fast.integrations.lightning import InfoBatchCallback

    model = model_of(batches)
    checkpoints = ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)
    callback = InfoBatchCallback()
    trainer = make_trainer(
        folder,
        world,
        callback,
        checkpoints,
        enable_checkpointing=True,
        use_distributed_sampler=not batches,
        accumulate_grad_batches=1,
    )
    gradients: list[float] = []
    model.on_before_optimizer_step = lambda optimizer: gradients.append(model.weight.grad.item())
    trainer.fit(model)
    return {
        "visited": model.visited,
        "lengths": model.lengths,
        "validated": model.validated,
        "scores": callback.pruner.scores().tolist(),
        "gradients": gradients,
        "expected": model.expected_gradient,
        "sampler": type(trainer.train_dataloader.sampler).__name__,
        "kept": trainer.callback_metrics["infobatch/kept"].item(),
        "stats": callback.pruner.stats.kept,
    }


def go_on(folder: Path, port: int, world: int, step: int) -> dict[str, Any]:
    as_torchrun_does(port)
    from infobatch_fast.integrations.lightning import InfoBatchCallback

    model, callback = model_of(), InfoBatchCallback()
    make_trainer(folder, world, callback).fit(model, ckpt_path=folder / f"step={step}.ckpt")
    return {"visited": model.visited, "validated": model.validated, "scores": callback.pruner.scores().tolist()}


def joined(results: list[dict[str, Any]]) -> torch.Tensor:
    """The scores of all ranks; each knows its own."""
    scores = torch.tensor([result["scores"] for result in results])
    assert (scores.isfinite().sum(0) == 1).all(), "every sample has one owner"
    return scores.nan_to_num(0).sum(0)


@pytest.mark.parametrize("batches", [False, True], ids=["sampler", "batch sampler"])
def test_two_ranks_visit_each_kept_sample_once_and_go_on_from_any_rank_zero_checkpoint(tmp_path: Path, batches: bool) -> None:
    from support.lightning_runs import EPOCHS, SIZE, loss_of

    results = run_ranks(2, train_and_save, tmp_path, free_port(), 2, batches)
    expected = torch.full((SIZE,), torch.nan)
    for epoch in range(EPOCHS):
        of_ranks = [result["visited"][epoch] for result in results]
        together = flat(of_ranks)
        assert len(of_ranks[0]) == len(of_ranks[1]), "ranks keep step; the shorter one repeats its first samples"
        assert set(of_ranks[0]).isdisjoint(of_ranks[1])
        assert (sorted(set(together)) == list(range(SIZE))) == (epoch == 0)
        visited = torch.tensor(together)
        expected[visited] = loss_of(visited, epoch)
    assert torch.equal(joined(results), expected)
    for result in results:
        assert result["lengths"] == {epoch: -(-len(visited) // 8) for epoch, visited in result["visited"].items()}
        assert [epoch for epoch, _ in result["validated"]] == list(range(EPOCHS))
        mean = [sum(pair) / 2 for pair in zip(*(each["expected"] for each in results), strict=True)]
        assert result["gradients"] == pytest.approx(mean, rel=1e-6)
        assert result["sampler"] == ("SequentialSampler" if batches else "InfoBatchSampler")
        assert result["kept"] == result["stats"]
    assert results[0]["lengths"][EPOCHS - 1] < results[0]["lengths"][0]
    if batches:
        return

    for step in (3, int(results[0]["lengths"][0]) + 2):  # in the middle of epochs 0 and 1
        again = run_ranks(2, go_on, tmp_path, free_port(), 2, step)
        assert torch.equal(joined(again), expected)
        for before, after in zip(results, again, strict=True):
            whole = flat(before["visited"].values())
            rest = flat(after["visited"].values())
            assert 0 < len(rest) < len(whole)
            assert whole[-len(rest) :] == rest
            assert after["validated"] == before["validated"][-len(after["validated"]) :]
            assert {epoch for epoch, _ in after["validated"]} == set(after["visited"])

    alone = run_ranks(1, go_on, tmp_path, free_port(), 1, 3)[0]
    first = flat(result["visited"][0][: 3 * 8] for result in results)
    assert sorted(first + alone["visited"][0]) == list(range(SIZE)), "one rank finishes the epoch of two"


def refusals(folder: Path, port: int) -> list[str]:
    from infobatch_fast.integrations.lightning import InfoBatchCallback

    as_torchrun_does(port)
    from support.lightning_runs import BATCH, Model, loader_of, pruner_of
    from support.ranks import error_of

    early = pruner_of()  # before there is a process group
    messages = [error_of(lambda: make_trainer(folder, 2, InfoBatchCallback(early)).fit(Model(early), loader_of(early)))]

    class Shuffled(Model):
        def setup(self, stage: str) -> None:
            self.pruner = pruner_of()

        def train_dataloader(self) -> Any:
            return loader_of(self.pruner, sampler=None, shuffle=True)

    messages.append(error_of(lambda: make_trainer(folder, 2, InfoBatchCallback()).fit(Shuffled())))
    messages.append(error_of(lambda: make_trainer(folder, 2, InfoBatchCallback()).fit(model_of(batches=True))))
    assert BATCH
    return messages


def test_a_pruner_made_too_early_and_samplers_that_lightning_would_replace_say_what_to_change(tmp_path: Path) -> None:
    for early, shuffled, rebuilt in run_ranks(2, refusals, tmp_path, free_port()):
        assert "num_replicas=1 and the trainer 2 data-parallel ranks" in early
        assert "in setup() of the LightningModule" in early
        assert "DistributedSampler and not from the pruner" in shuffled
        assert "sampler=pruner.sampler" in shuffled
        assert "Trainer(use_distributed_sampler=False)" in rebuilt
        assert "sampler=pruner.sampler, batch_size=..." in rebuilt
