"""Forgetting events and scores of several ranks, joined: what a single process would have."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist

from infobatch_fast import InfoBatch
from infobatch_fast.selection import ForgettingEvents, select
from support.ranks import error_of, needs_gloo, own_ids, record_own, run_ranks
from support.runs import loss_of

SIZE, EPOCHS = 40, 6
pytestmark = needs_gloo


def is_right(index: torch.Tensor, epoch: int) -> torch.Tensor:
    return (loss_of(index, epoch) < 0.6) & (index % 10 != 0)  # each tenth is never right


def count_own(rank_ids: torch.Tensor) -> ForgettingEvents:
    events = ForgettingEvents(SIZE)
    for epoch in range(EPOCHS):
        events.update(rank_ids, is_right(rank_ids, epoch))
    return events


def gather_twice() -> list[Any]:
    pruner = InfoBatch(SIZE, EPOCHS)
    events = count_own(own_ids(pruner))
    own = events.scores().isnan().sum().item()
    first, second = events.gather(), events.gather()
    states = [{name: value.tolist() for name, value in whole.state_dict().items()} for whole in (first, second)]
    record_own(pruner)
    scores = pruner.scores().nan_to_num(-math.inf)
    dist.all_reduce(scores, dist.ReduceOp.MAX)
    scores[scores == -math.inf] = math.nan
    return [own, states, select(scores, 0.5).tolist(), error_of(ForgettingEvents(SIZE + dist.get_rank()).gather)]


def test_all_ranks_have_what_a_single_process_has_and_gathering_again_adds_nothing() -> None:
    everything = torch.arange(SIZE)
    alone = {name: value.tolist() for name, value in count_own(everything).state_dict().items()}
    for own, states, kept, error in run_ranks(2, gather_twice):
        assert own in (16, 24), "a rank sees its own samples"
        assert states == [alone, alone]
        assert kept == select(loss_of(everything), 0.5).tolist()
        assert error.startswith("RuntimeError: ForgettingEvents was constructed differently on the ranks")
        assert f"'num_samples': {{0: '{SIZE}', 1: '{SIZE + 1}'}}" in error
