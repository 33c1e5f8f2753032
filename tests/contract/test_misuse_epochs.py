"""Misuse of epochs and restarts is noticed, and the documented loops are right after any checkpoint."""

import copy
import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, IterableDataset

from infobatch_fast import InfoBatch, KeptOnly, with_index
from support.flows import Made, Trainer, plans  # noqa: F401
from support.runs import record, train

SIZE, EPOCHS, BATCH = 203, 6, 8


def pruner_of(device: torch.device | str = "cpu", **kwargs: Any) -> InfoBatch:
    return InfoBatch(SIZE, EPOCHS, **({"delta": 0.7, "device": device} | kwargs))


def restarted(pruner: InfoBatch, device: torch.device, **kwargs: Any) -> InfoBatch:
    again = pruner_of(device, **kwargs)
    again.load_state_dict(copy.deepcopy(pruner.state_dict()))
    return again


# ---- the documented loop ----


class Pairs(IterableDataset[tuple[int, int]]):
    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(i, i) for i in range(SIZE)])


def loaders(pruner: InfoBatch, kind: str) -> Any:
    if kind == "batches":
        return DataLoader(with_index(range(SIZE)), batch_sampler=pruner.sampler.batches(BATCH))
    if kind == "batches, drop_last":
        return DataLoader(with_index(range(SIZE)), batch_sampler=pruner.sampler.batches(BATCH, drop_last=True))
    if kind == "stream":
        return KeptOnly(Pairs(), pruner)
    return DataLoader(with_index(range(SIZE)), BATCH, sampler=pruner.sampler, num_workers=2 * (kind == "workers"))


def batches(pruner: InfoBatch, loader: Any, epoch: int) -> Iterator[torch.Tensor]:
    if not isinstance(loader, KeptOnly):
        pruner.set_epoch(epoch)
        return (index for index, _ in loader)
    loader.set_epoch(epoch)
    return (index for index, _ in DataLoader(loader, BATCH))


@pytest.mark.parametrize("kind", ["sampler", "workers", "batches", "batches, drop_last", "stream"])
def test_the_epoch_after_a_checkpoint_at_an_epochs_end_is_the_next_one_and_has_batches(device: torch.device, kind: str) -> None:
    pruner, end = pruner_of(device), 3
    loader = loaders(pruner, kind)
    for epoch in range(end):
        for index in batches(pruner, loader, epoch):
            record(pruner, index, [float(i % 7) for i in index])
    again = restarted(pruner, device)
    assert again.epoch == end
    assert again.progress == pytest.approx(end / EPOCHS)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = StepLR(optimizer, 1, 0.5)
    loader = loaders(again, kind)
    for epoch in range(again.epoch, EPOCHS):
        sizes = [record(again, index, [1.0] * len(index)) for index in batches(again, loader, epoch)]
        assert sizes, "an epoch has batches"
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr() == [0.5 ** (EPOCHS - end)]
    assert again.epoch == EPOCHS - 1


@pytest.mark.parametrize("left", [1, BATCH])
def test_an_epoch_of_which_anything_is_left_goes_on(device: torch.device, left: int) -> None:
    pruner = pruner_of(device)
    order = list(pruner.sampler)
    pruner.set_epoch(0)
    for batch in (order[:100], order[100 : SIZE - left]):
        record(pruner, batch, [1.0] * len(batch))
    again = restarted(pruner, device)
    assert (again.epoch, list(again.sampler)) == (0, order[-left:])


def test_losses_that_came_twice_do_not_end_an_epoch(device: torch.device) -> None:
    pruner = pruner_of(device)
    order = list(pruner.sampler.batches(SIZE // 2))
    pruner.set_epoch(0)
    for _ in range(2):
        record(pruner, order[0], [1.0] * len(order[0]))
    assert restarted(pruner, device).epoch == 0


def test_a_trainer_that_selects_the_epoch_that_had_ended_finds_nothing_left_of_it(device: torch.device) -> None:
    pruner = pruner_of(device)
    for epoch in range(3):
        pruner.set_epoch(epoch)
        train(pruner)
    again = restarted(restarted(pruner, device), device)  # and saved once more, before anything else
    assert again.epoch == 3
    again.set_epoch(2)
    assert (again.epoch, again.stats.scored, len(again.sampler), train(again)) == (2, pruner.stats.scored, 0, [])
    assert again.stats.kept == pruner.stats.kept
    again.set_epoch(3)
    pruner.set_epoch(3)
    assert train(again) == train(pruner) != []


# ---- what is noticed ----


@pytest.mark.parametrize("lengths", [{}, {"batch_size": 8, "steps_per_epoch": 20}], ids=["dynamic", "constant"])
def test_epochs_counted_from_one_are_noticed(device: torch.device, lengths: dict[str, int]) -> None:
    pruner = pruner_of(device, **lengths)
    record(pruner, [0], [1.0])
    for epoch in range(1, EPOCHS):
        pruner.set_epoch(epoch)
    with pytest.warns(
        RuntimeWarning, match=rf"set_epoch\({EPOCHS}\) is after the last .*num_epochs={EPOCHS}.*from 0 to {EPOCHS - 1}"
    ):
        pruner.set_epoch(EPOCHS)
    pruner.set_epoch(EPOCHS + 1)  # once is enough


def test_a_new_pruner_that_begins_in_a_later_epoch_is_noticed_at_once(device: torch.device) -> None:
    pruner = pruner_of(device)
    with pytest.warns(RuntimeWarning, match=r"set_epoch\(1\) was called first, and no sample has a score.*load_state_dict"):
        pruner.set_epoch(1)
    pruner.set_epoch(2)
    scored = pruner_of(device)
    scored.record([0], torch.ones(1, device=device))
    scored.set_epoch(1)
    restarted(pruner_of(device), device).set_epoch(1)


@pytest.mark.parametrize("selects", [True, False])
def test_an_epoch_that_is_trained_on_for_ever_is_noticed(device: torch.device, selects: bool) -> None:
    pruner = pruner_of(device)

    def train_without_counting() -> None:
        for _ in range(8):
            if selects:
                pruner.set_epoch(0)
            for batch in itertools.islice(pruner.sampler.batches(BATCH), 20):  # it is never iterated to its end
                record(pruner, batch, [1.0] * len(batch))

    with pytest.warns(RuntimeWarning, match=r"epoch 0 was trained on 3 times, and begins again.*set_epoch"):
        train_without_counting()
    assert pruner.epoch == 0


def test_without_an_end_there_is_no_last_epoch(device: torch.device) -> None:
    pruner_of(device, steps_per_epoch=math.inf).set_epoch(EPOCHS)


@pytest.mark.parametrize("skipped", [0, 1, 5, 17])
def test_batches_that_are_skipped_after_a_restart_are_noticed(device: torch.device, skipped: int) -> None:
    pruner = pruner_of(device)
    train(pruner, steps=9)
    again = restarted(pruner, device)
    for step, batch in enumerate(again.sampler.batches(BATCH)):
        if step >= skipped:
            record(again, batch, [1.0] * len(batch))
    if skipped == 0:
        again.set_epoch(1)
        return
    with pytest.warns(
        RuntimeWarning,
        match=f"yielded only the {SIZE - 72} samples left of epoch 0, but the first {min(skipped * 8, SIZE - 72)} of them",
    ):
        again.set_epoch(1)


def test_losses_that_are_late_after_a_restart_are_none_of_them(device: torch.device) -> None:
    pruner = pruner_of(device)
    train(pruner, steps=9)
    again = restarted(pruner, device)
    for batch in list(again.sampler.batches(BATCH))[:-2]:
        record(again, batch, [1.0] * len(batch))
    again.set_epoch(1)


def test_a_state_that_is_loaded_again_after_batches_were_left_out_takes_the_run_back(device: torch.device) -> None:
    pruner = pruner_of(device)
    train(pruner, steps=9)
    state = copy.deepcopy(pruner.state_dict())
    pruner.load_state_dict(state)
    for batch in list(pruner.sampler.batches(BATCH))[1:]:
        record(pruner, batch, [1.0] * len(batch))
    pruner.load_state_dict(state)
    assert len(train(pruner)) == SIZE - 72
    assert pruner.state_dict()["is_over"]


# ---- late losses ----


class Regrouped:
    """Hands batches of one shape out when they are full, as loaders do that group by length: a rare shape waits for long."""

    def __init__(self, pruner: InfoBatch, rare: int) -> None:
        self.pruner, self.rare = pruner, rare

    def __iter__(self) -> Iterator[list[int]]:
        groups: dict[bool, list[int]] = {True: [], False: []}
        for sample in self.pruner.sampler:
            group = groups[sample % self.rare == 0]
            group.append(sample)
            if len(group) == BATCH:
                yield group[:]
                group.clear()


def regroup(device: torch.device, rare: int, plans: list[Made]) -> int:  # noqa: F811
    """How many of the weights of a run are not of the plan that their samples were drawn under."""
    trainer = Trainer(InfoBatch(SIZE, 40, delta=1.0, seed=3, steps_per_epoch=math.inf, device=device))
    for _, batch in zip(range(150), Regrouped(trainer.pruner, rare), strict=False):
        trainer.step(batch)
    trainer.assert_scores_are_its_own()
    assert len(plans) > 5
    turns: dict[int, int] = {}
    wrong = 0
    for sample, weight in zip(trainer.visited, trainer.weights, strict=True):
        drawn_under = [plan for plan in plans if sample in plan.order][turns.get(sample, 0)]
        turns[sample] = turns.get(sample, 0) + 1
        wrong += abs(weight - drawn_under.weight_of[sample]) > 1e-6
    return wrong


@pytest.mark.parametrize("rare", [5, 16])
def test_losses_of_a_rare_group_have_the_weights_of_the_plan_that_they_were_drawn_under(
    device: torch.device,
    plans: list[Made],  # noqa: F811
    rare: int,
) -> None:
    assert regroup(device, rare, plans) == 0


def test_losses_that_take_longer_than_the_next_plan_are_counted_and_told(
    device: torch.device,
    plans: list[Made],  # noqa: F811
) -> None:
    with pytest.warns(RuntimeWarning, match=r"3 samples of the plans before plan 3 .* no loss until plan 4 was made"):
        regroup(device, 60, plans)
