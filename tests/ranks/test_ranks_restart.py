"""Training that is ended by SIGKILL at random steps goes on from its last checkpoint, with other numbers of ranks too.

What is right after that: the model that comes out was trained in each epoch on exactly the samples which the epoch keeps, each
once, but for the repeats that bring ranks to equal steps. Samples that were visited between the checkpoint and the kill are
visited again, since what the model had learned from them is lost.

Here the model *is* the count of its training steps by epoch and sample. It is summed over ranks in each step, as gradients are,
and stands in the checkpoint beside the pruner, so it remembers what it was trained on and nothing else.
"""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from infobatch_fast import ImportanceSampling, InfoBatch, Policy, QuantileTiers
from support.ranks import Killed, needs_gloo, run_ranks
from support.runs import kept_set, loss_of, record, train

pytestmark = needs_gloo

N, EPOCHS, BATCH, SAVE_EVERY = 601, 5, 8, 5
MOMENTS = ("before", "after", "saving")


class Fate(NamedTuple):
    """Where a rank is killed: ``steps`` after the start of its process."""

    steps: int
    rank: int
    moment: str  # before or after the losses are recorded, or while the checkpoint after them is written


def die(*args: Any, **kwargs: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def last_checkpoint(folder: str) -> Path | None:
    """DCP writes ``.metadata`` last, by renaming, so a checkpoint that has it is whole."""
    whole = [file.parent for file in Path(folder).glob("*/.metadata")]
    return max(whole, key=lambda path: int(path.name), default=None)


def train_on(folder: str, policy: Policy | None, fate: Fate | None) -> dict[str, torch.Tensor]:
    """A training script: goes on from the last checkpoint to the end of the run, or to its death."""
    pruner = InfoBatch(N, EPOCHS, policy=policy, delta=0.8, seed=21)
    model = {
        "trained": torch.zeros(EPOCHS, N, dtype=torch.int64),
        "padding": torch.zeros(EPOCHS, dtype=torch.int64),
        "step": torch.tensor(0),
    }
    checkpoint = last_checkpoint(folder)
    if checkpoint:
        dcp.load({"pruner": pruner, "model": model}, checkpoint_id=checkpoint)
    mortal = fate is not None and fate.rank == dist.get_rank()
    steps = 0
    for epoch in range(pruner.epoch, EPOCHS):
        pruner.set_epoch(epoch)
        position = 0
        for batch in pruner.sampler.batches(BATCH):
            steps += 1
            last = mortal and fate is not None and steps == fate.steps
            if last and fate.moment == "before":
                die()
            record(pruner, batch, loss_of(torch.tensor(batch), epoch))
            if last and fate.moment == "after":
                die()
            gradient = torch.bincount(torch.tensor(batch), minlength=N)
            position += len(batch)
            repeats = torch.tensor([min(len(batch), max(0, position - pruner.engine.epochs.plan().available))])
            dist.all_reduce(gradient)
            dist.all_reduce(repeats)
            model["trained"][epoch] += gradient
            model["padding"][epoch] += repeats[0]
            model["step"] += 1
            if mortal and fate is not None and steps >= fate.steps and fate.moment == "saving":
                dcp.FileSystemWriter.finish = die  # rank 0 is about to write .metadata
                dcp.FileSystemWriter.write_data = die if fate.rank else dcp.FileSystemWriter.write_data
            if int(model["step"]) % SAVE_EVERY == 0:
                dcp.save({"pruner": pruner, "model": model}, checkpoint_id=f"{folder}/{int(model['step'])}")
    return model


def expect(policy: Policy | None) -> list[list[int]]:
    """The kept sets of a run that nothing interrupts, on one rank."""
    pruner, kept = InfoBatch(N, EPOCHS, policy=policy, delta=0.8, seed=21), []
    for epoch in range(EPOCHS):
        pruner.set_epoch(epoch)
        kept.append(kept_set(pruner))
        train(pruner, BATCH)
    return kept


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "worlds", "policy"),
    [(1, (1, 2, 2, 3), None), (2, (2, 3), QuantileTiers()), (3, (1, 2, 3), ImportanceSampling())],
    ids=["one to three ranks", "two or three ranks, quantile tiers", "one to three ranks, importance sampling"],
)
def test_a_killed_run_trains_each_epoch_on_exactly_its_kept_samples(
    seed: int, worlds: tuple[int, ...], policy: Policy | None, tmp_path: Path
) -> None:
    dice, deaths, model = random.Random(seed), [], None
    while model is None:
        world, moment = dice.choice(worlds), MOMENTS[len(deaths) % 3]
        fate = Fate(dice.randrange(1, 5 * SAVE_EVERY), dice.randrange(world), moment) if len(deaths) < 7 else None
        try:
            model = run_ranks(world, train_on, str(tmp_path), policy, fate)[0]
        except Killed:
            deaths.append((world, last_checkpoint(str(tmp_path))))
    assert len(deaths) == 7
    assert len(set(deaths)) >= 5  # it got on in between

    for epoch, kept in enumerate(expect(policy)):
        trained = model["trained"][epoch]
        assert trained.nonzero().flatten().tolist() == kept
        assert int(trained.sum()) - len(kept) == int(model["padding"][epoch])
