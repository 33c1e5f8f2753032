"""The contract, sentence by sentence: losses that are not finite, and indices that do not belong here."""

import math
from collections.abc import Callable

import pytest
import torch

from infobatch_fast import InfoBatch
from support.runs import ARBITRARY, half_pruned, order, record, record_all, snapshot, train

pytestmark = ARBITRARY

BAD_INDICES = [1000, -1, 1 << 40, (1 << 63) - 1, -(1 << 63), 1007]

# ---- non-finite losses ----


def test_non_finite_losses_are_counted_and_not_stored_and_the_step_is_left_to_the_user(device: torch.device) -> None:
    pruner = half_pruned(device)
    result = record(pruner, [1, 2, 3, 4], [math.nan, math.inf, -math.inf, 7.0], reduction="none").tolist()
    assert math.isnan(result[0])
    assert result[1:] == [math.inf, -math.inf, 14.0]
    assert pruner.scores([1, 2, 3, 4]).tolist() == [0.0, 0.0, 0.0, 7.0]
    assert (pruner.stats.non_finite, pruner.stats.scored) == (3, 4)
    pruner.set_epoch(2)
    assert pruner.stats.non_finite == 0, "of this epoch"


def test_a_sample_that_had_only_non_finite_losses_stays_unseen(device: torch.device) -> None:
    pruner = InfoBatch(100, 10, device=device)
    record_all(pruner, [math.nan] * 50 + [1.0] * 50)
    pruner.set_epoch(1)
    assert pruner.stats.seen == 50
    assert pruner.is_kept(torch.arange(50)).all()


def test_what_overflows_float32_is_not_finite_and_what_underflows_is_zero(device: torch.device) -> None:
    pruner = InfoBatch(2, 10, device=device)
    losses = torch.tensor([1e300, 1e-300], dtype=torch.float64, device=device)
    assert pruner.update(torch.tensor([0, 1]), losses, reduction="none").tolist() == [1e300, 1e-300]
    assert pruner.scores()[0].isnan()
    assert pruner.scores()[1] == 0
    assert pruner.stats.non_finite == 1


# ---- indices that do not belong here ----


def test_bad_indices_never_touch_memory_and_the_others_of_the_call_are_recorded(device: torch.device) -> None:
    pruner = half_pruned(device)
    before = snapshot(pruner)
    weighted = record(pruner, BAD_INDICES, [5.0] * 6, reduction="none")
    assert weighted.tolist() == [5.0] * 6
    assert snapshot(pruner) == before | {"scored": 6}
    record(pruner, [*BAD_INDICES, 4], [5.0] * 7)
    assert pruner.scores([4]).item() == 5.0
    assert pruner.scores(BAD_INDICES).isnan().all()
    assert not pruner.is_kept(BAD_INDICES).any()  # type: ignore[union-attr]
    assert (pruner.weights(BAD_INDICES) == 1).all()


def next_of_the_next_epoch(pruner: InfoBatch) -> None:
    next(iter(pruner.sampler))


def len_of_the_next_epoch(pruner: InfoBatch) -> None:
    pruner.set_epoch(2)
    len(pruner.sampler)


def stats_of_this_epoch(pruner: InfoBatch) -> None:
    _ = pruner.stats


@pytest.mark.parametrize("look", [stats_of_this_epoch, len_of_the_next_epoch, next_of_the_next_epoch])
def test_bad_indices_are_raised_once_at_the_next_point_where_the_host_looks(
    device: torch.device, look: Callable[[InfoBatch], None]
) -> None:
    pruner = half_pruned(device)
    train(pruner)
    record(pruner, BAD_INDICES[:2], [5.0] * 2)  # no error here
    pattern = r"index: 2 out of range for 1000 samples, for instance (1000|-1); .*with_index\(Subset"
    with pytest.raises(IndexError, match=pattern):
        look(pruner)
    assert pruner.stats.epoch == (1 if look is stats_of_this_epoch else 2)
    pruner.set_epoch(2)
    expected = order(pruner)
    assert len(expected) == pruner.stats.kept
    assert train(pruner) == expected


def test_bad_indices_do_not_hide_the_count_of_non_finite_losses(device: torch.device) -> None:
    pruner = half_pruned(device)
    record(pruner, [3, 2000], [math.nan, 1.0])
    with pytest.raises(IndexError, match="2000"):
        _ = pruner.stats
    assert pruner.stats.non_finite == 1


@pytest.mark.parametrize("bad", BAD_INDICES)
def test_with_check_sync_bad_indices_are_raised_at_once_and_nothing_is_recorded(device: torch.device, bad: int) -> None:
    pruner = half_pruned(device, check="sync")
    record(pruner, [500], [math.nan])
    before = snapshot(pruner)
    with pytest.raises(IndexError, match=f"index: 1 out of range for 1000 samples, for instance {bad};"):
        record(pruner, [600, bad, 700], [5.0, 5.0, 5.0])
    assert snapshot(pruner) == before
    assert (pruner.stats.scored, pruner.stats.non_finite) == (1, 1)
    for call in (pruner.weights, pruner.is_kept):
        with pytest.raises(IndexError, match=f"for instance {bad};"):
            call([1, bad])
    assert record(pruner, [600, 700], [5.0, 5.0]).item() == 5.0
