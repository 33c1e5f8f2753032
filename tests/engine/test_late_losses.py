"""Losses that come in after the next plan was made keep the weights of their own plan, and are no visits of the new one."""

from __future__ import annotations

import math

import torch

from infobatch_fast import InfoBatch
from infobatch_fast.engine.late import LateLosses, OnTheirWay, look_behind
from support.flows import Made, Trainer, ahead, first_difference, plans  # noqa: F401
from support.runs import ARBITRARY

pytestmark = ARBITRARY

SIZE = 203


def test_what_came_late_still_comes_again_after_a_restart_where_the_new_plan_keeps_it(
    device: torch.device,
    plans: list[Made],  # noqa: F811
) -> None:
    trainer = Trainer(InfoBatch(SIZE, 40, delta=1.0, steps_per_epoch=math.inf, device=device))
    source = ahead(trainer.pruner.sampler.batches(1), 48)
    for batch in source:
        trainer.step(batch)
        if len(plans) == 2 and len(trainer.visited) == SIZE:
            break
    again = InfoBatch(SIZE, 40, delta=1.0, device=device)
    again.load_state_dict(trainer.pruner.state_dict())
    assert again.epoch == 1
    assert first_difference(list(again.sampler), plans[1].order) is None, "nothing of the new plan was visited yet"


def planned(device: torch.device) -> InfoBatch:
    pruner = InfoBatch(40, 10, delta=1.0, seed=1, device=device)
    pruner.update(list(range(40)), torch.arange(40.0, device=device))
    pruner.set_epoch(1)
    len(pruner.sampler)
    return pruner


def visited(pruner: InfoBatch) -> list[int]:
    _, marks = pruner.engine.look_up(torch.arange(40))
    return ((marks & 2) != 0).nonzero().flatten().tolist()


def test_in_one_batch_a_sample_may_come_late_and_be_a_visit_of_the_new_plan(device: torch.device) -> None:
    pruner = planned(device)
    table = pruner.engine.table
    ids, weights = torch.tensor([5, 3, -1, 5], device=device), torch.tensor([7.0, 9.0, 1.0, 8.0], device=device)
    late = LateLosses(OnTheirWay(ids, weights), 3)
    now = pruner.weights([5, 3]).tolist()
    index = torch.tensor([5, 3, 3, 30, 5], device=device)
    got = late.record(table, index, torch.arange(5.0, device=device)).tolist()
    assert got == [7.0, 9.0, now[1], pruner.weights([30]).item(), 8.0]
    assert visited(pruner) == [3, 30], "5 came late twice, 3 late and as a visit"
    assert pruner.scores([5, 3, 30]).tolist() == [4.0, 2.0, 3.0]
    assert late.record(table, index[:1], torch.ones(1, device=device)).item() == now[0], "both turns of 5 were used up"
    assert visited(pruner) == [3, 5, 30]


def test_late_losses_leave_neighbours_marks_alone_and_bad_indices_counted_once(device: torch.device) -> None:
    pruner = planned(device)
    table = pruner.engine.table
    everyone = torch.arange(40, device=device)
    table.record(everyone[::3].contiguous(), torch.ones(14, device=device))
    late = LateLosses(OnTheirWay(everyone, torch.full((40,), 3.0, device=device)), 40)
    late.record(table, everyone[1::3].contiguous(), torch.ones(13, device=device))
    assert visited(pruner) == list(range(0, 40, 3))
    late.record(table, torch.tensor([2**62, -1, 40], device=device), torch.ones(3, device=device))
    assert table.faults.tolist()[:3] == [0, 3, 0]
    table.faults.zero_()


def test_looking_behind_finds_what_was_yielded_and_not_scored(device: torch.device) -> None:
    pruner = planned(device)
    plan = pruner.engine.epochs.plan()
    ids = list(pruner.sampler)
    order = ids[:-6] + ids[-4:-2]  # workers handed out 4 and 3 before 6 and 5
    pruner.update(order, torch.ones(len(order), device=device))
    samples, count = look_behind(plan, pruner.engine.table, 4)
    assert count == 4
    assert samples.ids[samples.ids >= 0].tolist() == ids[-6:-4] + ids[-2:]
    assert samples.weights[samples.ids >= 0].tolist() == pruner.weights(ids[-6:-4] + ids[-2:]).tolist()
