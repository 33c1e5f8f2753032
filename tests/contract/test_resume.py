"""Resume: wherever a run is cut, it goes on as if it had not been, to the bit."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from infobatch_fast import ImportanceSampling, InfoBatch, QuantileTiers, with_index
from support.loaders import WORKER_WARNINGS
from support.restarts import BATCH, EPOCHS, SIZE, restored, run_of, saved
from support.runs import decisions, loss_of, order, record, record_all, snapshot, train


def epochs_from(pruner: InfoBatch, epoch: int, selects: bool) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """Trains to the end: what each epoch visits, and all that is known after it."""
    for each in range(epoch, EPOCHS):
        if selects:
            pruner.set_epoch(each)
        visited = train(pruner, BATCH)
        assert pruner.epoch == each
        yield visited, knowledge(pruner)


def knowledge(pruner: InfoBatch) -> dict[str, Any]:
    """All that is known after an epoch; marks of what was visited included."""
    return snapshot(pruner) | decisions(pruner)


RUNS = {
    "mean, set_epoch": ({}, True),
    "mean, no set_epoch": ({}, False),
    "quantiles, warm-up": ({"policy": QuantileTiers(), "warmup_epochs": 1, "delta": 1.0}, True),
    "importance": ({"policy": ImportanceSampling(0.5, momentum=0.5), "delta": 1.0, "protect": [3, 8, 44]}, False),
    "steps of the full size": ({"rescale": "step", "delta": 1.0}, True),
    "in order": ({"shuffle": False, "seed": 3}, False),
}


@pytest.mark.parametrize("run", RUNS)
def test_a_run_that_is_cut_at_any_step_goes_on_bit_for_bit_with_no_sample_lost_or_repeated(device: torch.device, run: str) -> None:
    arguments, selects = RUNS[run]
    expected = list(epochs_from(run_of(device, **arguments), 0, selects))
    for epoch in range(EPOCHS):
        for step in range(-(-len(expected[epoch][0]) // BATCH) + 1):
            pruner = run_of(device, **arguments)
            for past in range(epoch):
                if selects:
                    pruner.set_epoch(past)
                train(pruner, BATCH)
            if selects:
                pruner.set_epoch(epoch)
            before = train(pruner, BATCH, steps=step)
            again = restored(saved(pruner), device, **arguments)
            del pruner
            visited, known = expected[epoch]
            assert before == visited[: step * BATCH]
            if len(before) == len(visited):  # it goes on in the next epoch
                assert list(epochs_from(again, epoch + 1, selects)) == expected[epoch + 1 :]
                continue
            rest, *later = epochs_from(again, epoch, selects)
            assert before + rest[0] == visited, (epoch, step)
            assert rest[1] == known, (epoch, step)
            assert later == expected[epoch + 1 :], (epoch, step)


def test_len_after_a_restart_is_what_is_left(device: torch.device) -> None:
    pruner = run_of(device)
    train(pruner, BATCH)
    pruner.set_epoch(1)
    length = len(pruner.sampler)
    train(pruner, BATCH, steps=3)
    again = restored(saved(pruner), device)
    assert len(again.sampler) == length - 12
    assert len(again.sampler.batches(BATCH)) == -(-(length - 12) // BATCH)
    visited = train(again, BATCH)
    assert len(visited) == length - 12
    assert len(again.sampler) == again.stats.kept
    assert again.epoch == 2


def test_a_second_and_a_third_cut_in_the_same_epoch(device: torch.device) -> None:
    pruner = run_of(device)
    train(pruner, BATCH)
    pruner.set_epoch(1)
    expected, visited = order(pruner), []
    for steps in (2, 0, 1, 3):
        visited += train(pruner, BATCH, steps)
        pruner = restored(saved(pruner), device)
        pruner.set_epoch(1)
    assert visited + train(pruner, BATCH) == expected


def test_what_is_broken_off_and_iterated_again_after_a_restart_starts_at_the_cut(device: torch.device) -> None:
    pruner = run_of(device)
    visited = train(pruner, BATCH, steps=3)
    again = restored(saved(pruner), device)
    rest = train(again, BATCH, steps=2)
    assert train(again, BATCH) == order(pruner)[12:]
    assert visited + rest == order(pruner)[:20]


def test_a_restart_before_any_plan(device: torch.device) -> None:
    pruner, reference = run_of(device), run_of(device)
    pruner = restored(saved(pruner), device)
    assert snapshot(pruner) == snapshot(reference)
    assert train(pruner) == train(reference)
    for each in (pruner, reference):
        each.set_epoch(1)  # selected, not planned
    pruner = restored(saved(pruner), device)
    assert decisions(pruner) == decisions(reference)
    assert train(pruner) == train(reference)


def test_a_restart_with_scores_recorded_since_the_plan_was_made_keeps_the_plan(device: torch.device) -> None:
    pruner = run_of(device)
    record_all(pruner)
    pruner.set_epoch(1)
    expected = decisions(pruner)
    record(pruner, [40], [1e6])  # a new plan would prune nearly everything
    again = restored(saved(pruner), device)
    kept = expected["kept_set"]
    assert decisions(again) == expected | {"scored": expected["scored"] + 1}
    assert sorted(list(again.sampler) + [40] * (40 in kept)) == kept


def test_set_epoch_to_a_later_epoch_after_a_restart_drops_what_is_left(device: torch.device) -> None:
    pruner, reference = run_of(device), run_of(device)
    for each in (pruner, reference):
        train(each, BATCH, steps=3)
    pruner = restored(saved(pruner), device)
    for each in (pruner, reference):
        each.set_epoch(2)
    assert order(pruner) == order(reference)


def test_visited_is_what_update_was_called_for_not_what_was_yielded(device: torch.device) -> None:
    pruner = run_of(device)
    ids = list(pruner.sampler)
    trained = ids[::3]
    record(pruner, trained, [1.0] * len(trained))
    again = restored(saved(pruner), device)
    assert list(again.sampler) == [sample for sample in ids if sample not in trained]


@WORKER_WARNINGS
def test_batches_that_workers_had_prefetched_and_nobody_trained_on_come_again(device: torch.device) -> None:
    def loader_of(pruner: InfoBatch) -> Any:
        return DataLoader(with_index(range(SIZE)), BATCH, sampler=pruner.sampler, num_workers=2, prefetch_factor=2)

    pruner = run_of(device)
    expected = order(pruner)
    visited: list[int] = []
    for index, _ in loader_of(pruner):
        if len(visited) == 5 * BATCH:
            break
        record(pruner, index, loss_of(index))
        visited += index.tolist()
    assert pruner.sampler.state_dict()["position"] > len(visited)
    again = restored(saved(pruner), device)
    loader = loader_of(again)
    again.sampler.load_state_dict(pruner.sampler.state_dict())  # a loader that restores positions of its own
    for index, _ in loader:
        record(again, index, loss_of(index))
        visited += index.tolist()
    assert visited == expected
    assert (again.stats.scored, again.epoch) == (SIZE, 0)


def test_the_policy_the_schedule_and_the_device_may_change_at_a_restart(device: torch.device) -> None:
    pruner = run_of(device)
    record_all(pruner)
    pruner.set_epoch(1)
    expected = order(pruner)
    visited = train(pruner, BATCH, steps=2)
    again = restored(saved(pruner), torch.device("cpu"), policy=QuantileTiers((0.5,), (0.9,)), delta=1.0)
    assert again.stats.thresholds == pruner.stats.thresholds, "the epoch in progress is finished by its saved plan"
    assert visited + train(again, BATCH) == expected
    again.set_epoch(2)
    assert again.stats.weights[1] == pytest.approx(10, rel=1e-3)


def test_a_run_goes_on_alike_on_another_number_of_threads() -> None:
    size, threads = 300_007, torch.get_num_threads()
    cpu = torch.device("cpu")
    rests = []
    try:
        for before, after in ((1, 1), (1, 2), (2, 1), (4, 3)):
            torch.set_num_threads(before)
            pruner = run_of(cpu, size=size)
            record_all(pruner)
            pruner.set_epoch(1)
            ids = pruner.sampler.indices(0, 100_000)
            record(pruner, ids, loss_of(ids, 1))
            file = saved(pruner)
            torch.set_num_threads(after)
            again = restored(file, cpu, size=size)
            rest = again.sampler.indices()
            again.set_epoch(2)
            rests.append((ids.tolist(), rest.tolist(), again.sampler.indices().tolist(), again.stats.thresholds))
    finally:
        torch.set_num_threads(threads)
    assert rests[1:] == rests[:1] * 3
    assert set(rests[0][0]).isdisjoint(rests[0][1])
