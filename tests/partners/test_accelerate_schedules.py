"""EpochProgressLR under accelerate, which steps it once for each process, and not in steps that only accumulate."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch.utils.data import DataLoader

pytest.importorskip("accelerate")

from infobatch_fast import EpochProgressLR, InfoBatch, RandomPruning, with_index
from infobatch_fast.integrations.accelerate import prepare
from support.accelerators import accelerator_of
from support.items import Items
from support.ranks import needs_gloo, run_ranks
from support.runs import loss_of

SIZE, BATCH, EPOCHS, TOTAL = 90, 4, 4, 1000


def run(folder: str, by: Literal["epochs", "visits"], resume: bool = False) -> list[tuple[int, int, float]]:
    """Epoch, first sample and learning rate of each batch; with a checkpoint in epoch 2 that ``resume`` goes on from."""
    accelerator = accelerator_of(gradient_accumulation_steps=2)
    pruner = InfoBatch(SIZE, EPOCHS, delta=0.75, policy=RandomPruning(0.6))
    loader = prepare(accelerator, DataLoader(with_index(Items(SIZE)), BATCH, sampler=pruner.sampler))
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    inner = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / TOTAL)
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, EpochProgressLR(inner, pruner, TOTAL, by))
    if resume:
        accelerator.load_state(folder)
    rows = []
    for epoch in range(pruner.epoch, EPOCHS):
        loader.set_epoch(epoch)
        for step, (index, _) in enumerate(loader):
            rows.append((epoch, int(index[0]), optimizer.param_groups[0]["lr"]))
            with accelerator.accumulate(model):
                losses = loss_of(index, epoch) + 0.0 * model(torch.ones(1, 1)).sum()
                accelerator.backward(pruner.update(index, losses))
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            if not resume and epoch == 2 and step == 1:
                accelerator.save_state(folder)
    assert (pruner.progress, pruner.visited_fraction) == (1.0, 1.0)
    assert scheduler.get_last_lr() == [0.0]
    return rows


def check(whole: list[tuple[int, int, float]], rest: list[tuple[int, int, float]], by: str) -> None:
    cut = next(at for at, row in enumerate(whole) if row[0] == 2) + 2
    assert rest == whole[cut:]
    first_of_last = next(rate for epoch, _, rate in whole if epoch == EPOCHS - 1)
    assert first_of_last == pytest.approx(1 / EPOCHS if by == "epochs" else 1 / (2 + 2 * 0.4), abs=0.05)


@pytest.mark.parametrize("by", ["epochs", "visits"])
def test_the_learning_rate_ends_with_the_run_and_goes_on_after_a_restart(tmp_path: Path, by: Any) -> None:
    check(run(str(tmp_path), by), run(str(tmp_path), by, resume=True), by)


@needs_gloo
def test_by_visits_all_ranks_have_the_same_learning_rates(tmp_path: Path) -> None:
    whole, rest = (run_ranks(2, run, str(tmp_path), "visits", resume) for resume in (False, True))
    for before, after in zip(whole, rest, strict=True):
        check(before, after, "visits")
    rates = [[row[2] for row in rank] for rank in whole]
    assert rates[0] == rates[1]
