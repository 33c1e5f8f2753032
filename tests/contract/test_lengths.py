"""Epochs of constant length and without end: plans follow each other, whatever the trainer counts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from infobatch_fast import InfoBatch, MeanThreshold, QuantileTiers, RandomPruning, with_index
from support.flows import BATCH, EPOCHS, SIZE, STEPS, Made, Trainer, ahead, constant, endless, follow, plans  # noqa: F401
from support.items import Items
from support.loaders import WORKER_WARNINGS
from support.refusals import raises
from support.runs import ARBITRARY, loss_of, train

# ---- constant ----


@pytest.mark.parametrize("count", [0, 1, 5, 30])
@pytest.mark.parametrize("selects", [True, False], ids=["set_epoch", "no set_epoch"])
def test_every_epoch_has_the_same_steps_and_the_next_plan_begins_where_the_last_one_ends(
    device: torch.device,
    plans: list[Made],  # noqa: F811
    selects: bool,
    count: int,
) -> None:
    pruner = constant(device)
    trainer = Trainer(pruner)
    batches = pruner.sampler.batches(BATCH)
    for epoch in range(EPOCHS):
        if selects:
            pruner.set_epoch(epoch)
        assert (len(batches), len(pruner.sampler), pruner.steps(BATCH)) == (STEPS, STEPS * BATCH, STEPS)
        lengths = []
        for batch in ahead(batches, count):
            trainer.step(batch)
            lengths.append(len(batch))
        assert lengths == [BATCH] * STEPS
        assert pruner.progress == pytest.approx((epoch + 1) / EPOCHS)
    follow(trainer, plans)
    assert [plan.epoch for plan in plans] == list(range(len(plans)))
    assert len(plans) == pruner.epoch + 1 > EPOCHS * STEPS * BATCH // SIZE


def test_single_indices_come_in_the_same_order_as_batches(device: torch.device) -> None:
    one, many = Trainer(constant(device)), Trainer(constant(device))
    for _ in range(EPOCHS):
        ids = iter(one.pruner.sampler)
        while batch := list(itertools.islice(ids, BATCH)):
            one.step(batch)
        for batch in many.pruner.sampler.batches(BATCH):
            many.step(batch)
    assert one.visited == many.visited
    assert one.weights == many.weights


@pytest.mark.parametrize("warmup", [0, 2, 5])
def test_a_plan_is_pruned_by_the_trainers_epoch_in_which_it_begins(plans: list[Made], warmup: int) -> None:  # noqa: F811
    pruner = constant(warmup_epochs=warmup)
    for _ in range(EPOCHS):
        train(pruner, BATCH)
    begin = 0
    for plan in plans:
        assert plan.pruned == (warmup <= begin // (STEPS * BATCH) < 9)
        begin += len(plan.order)
    assert {plan.pruned for plan in plans} == {True, False}
    assert not plans[-1].pruned


def test_draws_are_those_of_the_plans_number_so_that_no_plan_repeats_another(plans: list[Made]) -> None:  # noqa: F811
    pruner = constant(policy=RandomPruning(0.5), delta=1.0)
    for _ in range(EPOCHS):
        train(pruner, BATCH)
    assert len({tuple(plan.kept) for plan in plans[1:]}) == len(plans) - 1


@WORKER_WARNINGS
@pytest.mark.parametrize(
    "kind", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True, "prefetch_factor": 4}], ids=str
)
@pytest.mark.parametrize("use_batches", [True, False], ids=["batch_sampler", "sampler"])
def test_every_loss_finds_its_sample_in_a_real_loader(
    plans: list[Made],  # noqa: F811
    kind: dict[str, Any],
    use_batches: bool,
) -> None:
    pruner = constant()
    batching: dict[str, Any] = {"sampler": pruner.sampler, "batch_size": BATCH}
    if use_batches:
        batching = {"batch_sampler": pruner.sampler.batches(BATCH)}
    loader = DataLoader(with_index(Items(SIZE)), **batching, **kind)
    trainer = Trainer(pruner)
    for epoch in range(EPOCHS):
        pruner.set_epoch(epoch)
        assert len(loader) == STEPS
        steps = 0
        for index, items in loader:
            assert items[:, 0].tolist() == [100.0 + i for i in index.tolist()]
            trainer.step(index)
            steps += 1
        assert steps == STEPS
    follow(trainer, plans)


def test_peeking_and_abandoned_iterators_change_nothing(device: torch.device, plans: list[Made]) -> None:  # noqa: F811
    trainer = Trainer(constant(device))
    batches = trainer.pruner.sampler.batches(BATCH)
    for _ in range(EPOCHS):
        iter(batches)
        for taken in (1, 3, 8):
            list(itertools.islice(batches, taken))
        for batch in batches:
            trainer.step(batch)
        assert len(trainer.visited) % (STEPS * BATCH) == 0
    follow(trainer, [plan for i, plan in enumerate(plans) if i + 1 == len(plans) or plans[i + 1].epoch != plan.epoch])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_an_epoch_that_is_broken_off_and_iterated_again_goes_on_and_loses_nothing(
    device: torch.device,
    plans: list[Made],  # noqa: F811
    count: int,
) -> None:
    pruner = constant(device)
    trainer = Trainer(pruner)
    steps = []
    while len(steps) < 60:
        taken = 0
        for batch in itertools.islice(ahead(pruner.sampler.batches(BATCH), count), 4):
            trainer.step(batch)
            taken += 1
        steps.append(taken)
    assert steps == [4, 4, 3] * 20
    follow(trainer, plans)


@ARBITRARY
def test_set_epoch_after_an_epoch_that_was_broken_off_begins_a_whole_one(device: torch.device, plans: list[Made]) -> None:  # noqa: F811
    pruner = constant(device)
    trainer = Trainer(pruner)
    for epoch in range(EPOCHS):
        pruner.set_epoch(epoch)
        for batch in itertools.islice(ahead(pruner.sampler.batches(BATCH), 3), 5):
            trainer.step(batch)
        pruner.set_epoch(epoch)
    assert len(trainer.visited) == EPOCHS * 5 * BATCH
    follow(trainer, plans[: pruner.epoch + 1])
    pruner.set_epoch(EPOCHS)
    assert pruner.progress == 1.0


def test_an_iterator_that_another_one_followed_says_so(device: torch.device) -> None:
    pruner = constant(device, steps_per_epoch=20_000)
    first = iter(pruner.sampler.batches(BATCH))
    next(first)
    next(iter(pruner.sampler.batches(BATCH)))
    with raises(RuntimeError, "because another one was started"):
        list(first)


# ---- endless ----


@pytest.mark.parametrize("count", [0, 1, 7, 60])
@pytest.mark.parametrize("policy", [MeanThreshold(), QuantileTiers(), RandomPruning(0.7)], ids=str)
def test_an_endless_iteration_visits_each_plans_kept_set_once_with_its_own_weights(
    device: torch.device,
    plans: list[Made],  # noqa: F811
    policy: Any,
    count: int,
) -> None:
    pruner = endless(device, policy=policy)
    trainer = Trainer(pruner)
    for batch in itertools.islice(ahead(pruner.sampler.batches(BATCH), count), 500):
        assert len(batch) == BATCH
        trainer.step(batch)
    assert len(plans) > 20
    assert len({len(plan.kept) for plan in plans}) > 5
    follow(trainer, plans)


@WORKER_WARNINGS
@pytest.mark.parametrize("kind", [{}, {"num_workers": 2, "prefetch_factor": 8}], ids=str)
def test_an_endless_real_loader_with_prefetching_workers(plans: list[Made], kind: dict[str, Any]) -> None:  # noqa: F811
    pruner = endless()
    loader = DataLoader(with_index(Items(SIZE)), batch_size=BATCH, sampler=pruner.sampler, **kind)
    trainer = Trainer(pruner)
    for index, items in itertools.islice(loader, 300):
        assert items[:, 0].tolist() == [100.0 + i for i in index.tolist()]
        trainer.step(index)
    assert len(plans) > 10
    follow(trainer, plans)


def test_an_endless_sampler_has_no_length_and_goes_on_where_an_iteration_was_broken_off(
    device: torch.device,
    plans: list[Made],  # noqa: F811
) -> None:
    pruner = endless(device)
    for sized in (pruner.sampler, pruner.sampler.batches(5), DataLoader(range(SIZE), sampler=pruner.sampler, batch_size=3)):
        with raises(TypeError, "no length", "math.inf", "steps_per_epoch=S"):
            len(sized)
    with raises(TypeError, "no length"):
        pruner.steps(5)
    with raises(TypeError, "no length"):
        pruner.expected_steps(5)
    trainer = Trainer(pruner)
    for _ in range(50):
        for batch in itertools.islice(pruner.sampler.batches(5), 7):
            trainer.step(batch)
    follow(trainer, plans)


def test_endless_progress_and_schedule_count_plans(plans: list[Made]) -> None:  # noqa: F811
    pruner = InfoBatch(SIZE, 6, delta=0.5, steps_per_epoch=math.inf)
    seen = []
    for batch in itertools.islice(pruner.sampler.batches(BATCH), 200):
        pruner.update(batch, loss_of(torch.tensor(batch), pruner.epoch))
        seen.append(pruner.progress)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert [plan.pruned for plan in plans[:6]] == [True] * 3 + [False] * 3
