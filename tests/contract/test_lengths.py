"""Epochs of constant length and without end: plans follow each other, whatever the trainer counts."""

from __future__ import annotations

import io
import itertools
import math
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from infobatch_fast import InfoBatch, MeanThreshold, NoPruning, QuantileTiers, RandomPruning, with_index
from support.flows import Made, Trainer, ahead, first_difference, follow, plans  # noqa: F401
from support.items import Items
from support.loaders import WORKER_WARNINGS
from support.refusals import raises
from support.runs import loss_of, train

SIZE, BATCH, STEPS, EPOCHS = 203, 8, 11, 12


def constant(device: torch.device | str = "cpu", **kwargs: Any) -> InfoBatch:
    arguments = {"batch_size": BATCH, "steps_per_epoch": STEPS, "delta": 0.75, "seed": 3, "device": device}
    return InfoBatch(kwargs.pop("size", SIZE), EPOCHS, **{**arguments, **kwargs})


def endless(device: torch.device | str = "cpu", **kwargs: Any) -> InfoBatch:
    return InfoBatch(kwargs.pop("size", SIZE), 40, delta=1.0, seed=3, steps_per_epoch=math.inf, device=device, **kwargs)


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
    with raises(RuntimeError, "followed by another one"):
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


# ---- restarts ----


def saved(pruner: InfoBatch) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(pruner.state_dict(), file)
    file.seek(0)
    return file


@pytest.mark.parametrize("count", [0, 3, 12])
@pytest.mark.parametrize("kind", [constant, endless])
def test_a_run_that_is_cut_at_any_step_goes_on_bit_for_bit(device: torch.device, kind: Any, count: int) -> None:
    reference = Trainer(kind(device))
    total = 100
    for _ in range(-(-total // STEPS) if kind is constant else 1):
        for batch in itertools.islice(ahead(reference.pruner.sampler.batches(BATCH), count), total):
            reference.step(batch)
    total = len(reference.visited)
    for cut in range(1, 90, 1 if count else 5):
        trainer = Trainer(kind(device))
        file = None
        while file is None:
            for batch in ahead(trainer.pruner.sampler.batches(BATCH), count):
                trainer.step(batch)
                if len(trainer.visited) == cut * BATCH:
                    file = saved(trainer.pruner)
                    break
        trainer.pruner = kind(device)
        trainer.pruner.load_state_dict(torch.load(file, weights_only=True))
        assert trainer.pruner.progress == pytest.approx(cut * BATCH / (EPOCHS * STEPS * BATCH)) or kind is endless
        first = True
        while len(trainer.visited) < total:
            trainer.pruner.set_epoch(0)  # accelerate, after a restart
            steps = 0
            for batch in itertools.islice(
                ahead(trainer.pruner.sampler.batches(BATCH), count), (total - len(trainer.visited)) // BATCH
            ):
                trainer.step(batch)
                steps += 1
            if kind is constant:
                assert steps == (STEPS - cut % STEPS if first else STEPS), "the cut epoch gets its remaining steps"
                first = False
        assert first_difference(trainer.visited, reference.visited) is None, cut
        assert first_difference(trainer.weights, reference.weights) is None, cut


def test_spinning_through_past_epochs_after_a_restart_changes_nothing(device: torch.device) -> None:
    trainer, reference = Trainer(constant(device)), Trainer(constant(device))
    for each in (trainer, reference):
        for _ in range(2):
            for batch in each.pruner.sampler.batches(BATCH):
                each.step(batch)
        for batch in itertools.islice(each.pruner.sampler.batches(BATCH), 4):
            each.step(batch)
    file = saved(trainer.pruner)
    trainer.pruner = constant(device)
    trainer.pruner.load_state_dict(torch.load(file, weights_only=True))
    for past in range(2):
        trainer.pruner.set_epoch(past)
        list(itertools.islice(trainer.pruner.sampler.batches(BATCH), 2))
        trainer.pruner.set_epoch(past)
        list(trainer.pruner.sampler.batches(BATCH))  # prefetching workers exhaust them
    trainer.pruner.set_epoch(2)
    for _ in range(2):
        for each in (trainer, reference):
            for batch in each.pruner.sampler.batches(BATCH):
                each.step(batch)
    assert first_difference(trainer.visited, reference.visited) is None


def test_a_samplers_own_state_is_a_few_ints_and_a_loader_goes_on_by_it(device: torch.device) -> None:
    pruner = constant(device)
    train(pruner, BATCH)
    batches = pruner.sampler.batches(BATCH)
    iterator = iter(batches)
    for step in range(1, 6):
        next(iterator)
        assert batches.state_dict() == {"epoch": 0, "position": (STEPS + step) * BATCH, "drawn": (STEPS + step) * BATCH}
    rest = list(iterator)
    state = {"epoch": 0, "position": (STEPS + 5) * BATCH, "drawn": (STEPS + 5) * BATCH}
    again = constant(device)
    other = again.sampler.batches(BATCH)
    other.load_state_dict(state)
    assert other.state_dict() == state
    assert list(other) == rest
    assert len(list(other)) == STEPS


def test_a_checkpoint_of_a_run_with_dynamic_epochs_goes_on_in_both_modes_and_back(device: torch.device) -> None:
    old = InfoBatch(SIZE, EPOCHS, delta=0.75, seed=3, device=device)
    train(old, BATCH)
    state = old.state_dict()
    for kind in (constant, endless):
        pruner = kind(device)
        pruner.load_state_dict({name: value.clone() if hasattr(value, "clone") else value for name, value in state.items()})
        list(itertools.islice(pruner.sampler.batches(BATCH), 5))
        back = InfoBatch(SIZE, EPOCHS, delta=0.75, seed=3, device=device)
        back.load_state_dict(pruner.state_dict())
        assert back.epoch == pruner.epoch


# ---- steps and progress ----


@pytest.mark.parametrize("policy", [MeanThreshold(), QuantileTiers(), RandomPruning(0.4), NoPruning()], ids=str)
def test_expected_steps_come_true(policy: Any) -> None:
    pruner = InfoBatch(2000, 16, policy=policy)
    taken, expected = 0, []
    for epoch in range(16):
        pruner.set_epoch(epoch)
        assert pruner.steps(10, drop_last=True) in (pruner.steps(10), pruner.steps(10) - 1)
        expected.append(pruner.expected_steps(10))
        steps = pruner.steps(10)
        before = taken
        for batch in pruner.sampler.batches(10):
            pruner.update(batch, loss_of(torch.tensor(batch), epoch))
            taken += 1
        assert taken - before == steps
    assert abs(expected[-1] - taken) <= 16
    assert abs(expected[3] - taken) <= 0.05 * taken
    assert pruner.expected_steps(10) == expected[-1]
    if policy in (RandomPruning(0.4), NoPruning()):
        assert abs(expected[0] - taken) <= 0.03 * taken


def test_the_policies_expected_saved_fractions() -> None:
    assert MeanThreshold(0.6).expected_saved_fraction == 0.3
    assert RandomPruning(0.6).expected_saved_fraction == 0.6
    assert QuantileTiers().expected_saved_fraction == pytest.approx(0.2 * 0.75 + 0.65 * 0.5)
    assert NoPruning().expected_saved_fraction == 0.0
    assert InfoBatch(100, 10).expected_steps(10) == 10 + 7 * 8 + 20
    assert constant().expected_steps(BATCH) == EPOCHS * STEPS


def test_progress_grows_to_one_and_survives_a_restart(device: torch.device) -> None:
    pruner = InfoBatch(SIZE, 5, device=device)
    seen = [pruner.progress]
    for epoch in range(5):
        pruner.set_epoch(epoch)
        for batch in pruner.sampler.batches(BATCH):
            pruner.update(batch, loss_of(torch.tensor(batch), epoch).to(device))
            seen.append(pruner.progress)
            again = InfoBatch(SIZE, 5, device=device)
            again.load_state_dict(torch.load(saved(pruner), weights_only=True))
            assert again.progress == pytest.approx(seen[-1])
            len(again.sampler)
            assert again.progress == pytest.approx(seen[-1])
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0.0, 1.0)


# ---- what is refused ----


def test_bad_combinations_are_refused() -> None:
    for kwargs, kind, parts in (
        ({"steps_per_epoch": 5}, ValueError, ("steps_per_epoch=5", "needs batch_size")),
        ({"batch_size": 5}, ValueError, ("batch_size=5", "steps_per_epoch=S")),
        ({"batch_size": 5, "steps_per_epoch": math.inf}, ValueError, ("batch_size=5", "leave it out")),
        ({"batch_size": 0, "steps_per_epoch": 5}, ValueError, ("batch_size", "at least 1")),
        ({"batch_size": 5, "steps_per_epoch": 0}, ValueError, ("steps_per_epoch", "at least 1")),
        ({"batch_size": 5, "steps_per_epoch": -math.inf}, TypeError, ("steps_per_epoch", "-inf")),
        ({"batch_size": 5, "steps_per_epoch": 2.5}, TypeError, ("steps_per_epoch", "2.5")),
        ({"batch_size": 5, "steps_per_epoch": "2"}, TypeError, ("steps_per_epoch", "'2'")),
        ({"batch_size": 5, "steps_per_epoch": True}, TypeError, ("steps_per_epoch", "True")),
        ({"batch_size": "x", "steps_per_epoch": 5}, TypeError, ("batch_size", "'x'")),
    ):
        with raises(kind, *parts):
            InfoBatch(10, 3, **kwargs)  # type: ignore[arg-type]
    pruner = constant()
    with raises(ValueError, "batch_size must be 8", "steps_per_epoch=11", "got 7"):
        pruner.sampler.batches(7)
    with raises(ValueError, "batch_size must be 8", "got 7"):
        pruner.steps(7)
    with raises(ValueError, "batch_size must be 8", "got 7"):
        pruner.expected_steps(7)
    with raises(RuntimeError, "indices() needs epochs of one plan"):
        pruner.sampler.indices()
    with raises(ValueError, "epoch must be", "-1"):
        pruner.set_epoch(-1)
    state = pruner.state_dict()
    for broken, parts in (
        ({"done": -1}, ("done", "-1")),
        ({"late_ids": "0" * 16}, ("late_ids", "damaged")),
        ({"late_ids": "x"}, ("late_ids",)),
    ):
        with raises(ValueError, *parts):
            pruner.load_state_dict({**state, **broken})
