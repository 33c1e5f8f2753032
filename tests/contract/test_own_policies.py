"""A policy of the user's own is checked where its answers are used: wrong ones are named, and native code never reads them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from infobatch_fast import InfoBatch, MeanThreshold, Policy
from support.runs import record_all, snapshot


@dataclass(frozen=True)
class Own(Policy):
    """Answers as a test wants it."""

    kind: str = "right"
    ratios: Any = (0.5,)
    momentum: Any = 0.0

    @property
    def prune_ratio_of_tier(self) -> Any:
        return self.ratios

    def thresholds(self, table: Any, ranks: Any) -> Any:
        right = table.constant_threshold(0.5, ranks)
        values = right.values
        return {
            "right": right,
            "short": right._replace(values=values[:1]),
            "double": right._replace(values=values.double()),
            "strided": right._replace(values=values.repeat_interleave(2)[::2]),
            "seen": right._replace(seen=right.seen.int()),
            "a tuple": (values, right.seen),
            "nothing": None,
            "huge cutoffs": right._replace(
                tiers=torch.tensor([65536, 10**6, 1, 1, 0, 0, 0, 0], dtype=torch.int32, device=table.device)
            ),
            "no cutoffs": right._replace(tiers=torch.zeros(8, dtype=torch.int32, device=table.device)),
            "no values": right._replace(values=None),
            "tiers": right._replace(tiers=torch.zeros(8, device=table.device)),
            "negative": right._replace(negative=torch.zeros(2, dtype=torch.int64, device=table.device)),
            "ascending": right._replace(values=torch.tensor([0.1, 0.2, 0.3], device=table.device)),
            "nan": right._replace(values=torch.full_like(values, torch.nan)),
        }[self.kind]


def test_a_policy_that_raises_leaves_all_as_it_was(device: torch.device) -> None:
    class Moody(MeanThreshold):
        broken = False

        def thresholds(self, table: Any, ranks: Any) -> Any:
            if self.broken:
                raise ArithmeticError("not today")
            return super().thresholds(table, ranks)

    policy = Moody()
    pruner, other = (InfoBatch(300, 9, policy=each, delta=1.0, device=device) for each in (policy, MeanThreshold()))
    for each in (pruner, other):
        record_all(each)
        each.set_epoch(1)
    object.__setattr__(policy, "broken", True)
    for _ in range(2):
        with pytest.raises(ArithmeticError, match="not today"):
            len(pruner.sampler)
    object.__setattr__(policy, "broken", False)
    assert snapshot(pruner) == snapshot(other)
    assert pruner.sampler.indices().tolist() == other.sampler.indices().tolist()


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("short", TypeError, r"kind='short'.*must return values of torch.float32 \[3\]"),
        ("double", TypeError, r"must return values of torch.float32 \[3\] .* got torch.float64"),
        ("strided", TypeError, "must return values"),
        ("seen", TypeError, r"must return seen of torch.int64 \[1\] .* got torch.int32"),
        ("a tuple", TypeError, r"must return Thresholds, as the methods of its argument `table` do, got \(tensor"),
        ("nothing", TypeError, "must return Thresholds, .* got None"),
        ("huge cutoffs", ValueError, r"cutoffs are in \[1, 65536\], the first one 65536, got \(65536, 1000000, 1, 1\)"),
        ("no cutoffs", ValueError, r"got \(0, 0, 0, 0\)"),
        ("no values", TypeError, "must return values of torch.float32 .* got None"),
        ("tiers", TypeError, r"must return tiers of torch.int32 \[8\] .* got torch.float32"),
        ("negative", TypeError, r"must return negative of torch.int64 \[1\] .* got torch.int64 \[2\]"),
        ("ascending", ValueError, "must return descending values"),
        ("nan", ValueError, "must return descending values"),
    ],
)
def test_wrong_thresholds_are_named_before_a_plan_is_in_force(
    kind: str, error: type[Exception], message: str, device: torch.device
) -> None:
    pruner = InfoBatch(20, 5, policy=Own(kind), delta=1.0, device=device)
    with pytest.raises(error, match=message):
        len(pruner.sampler)
    assert pruner.engine.epochs.plan_in_force is None


@pytest.mark.parametrize(
    ("ratios", "message"),
    [((1.0,), "in \\[0, 1\\), got 1.0"), ((float("nan"),), "got nan"), ((0.5,) * 4, "at most 3 ratios"), ((-0.1,), "got -0.1")],
)
def test_wrong_prune_ratios_are_named(ratios: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"prune_ratio_of_tier.*{message}"):
        len(InfoBatch(20, 5, policy=Own(ratios=ratios), delta=1.0).sampler)


@pytest.mark.parametrize(
    ("momentum", "error"),
    [(1.0, ValueError), (-0.5, ValueError), (float("nan"), ValueError), ("0.5", TypeError), (None, TypeError)],
)
def test_a_momentum_that_would_freeze_or_turn_scores_is_refused(momentum: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"policy\.momentum"):
        InfoBatch(20, 5, policy=Own(momentum=momentum))


def test_a_right_policy_of_ones_own_plans_and_loads_its_checkpoint(device: torch.device) -> None:
    pruner = InfoBatch(1000, 5, policy=Own(), delta=1.0, device=device)
    record_all(pruner)
    pruner.set_epoch(1)
    assert 0.15 < pruner.stats.saved_fraction < 0.35
    other = InfoBatch(1000, 5, policy=Own(), delta=1.0, device=device)
    other.load_state_dict(copy.deepcopy(pruner.state_dict()))
    assert torch.equal(other.sampler.indices(), pruner.sampler.indices())


def test_losses_of_eight_bits_are_refused_before_anything_is_recorded(device: torch.device) -> None:
    pruner = InfoBatch(5, 3, device=device)
    losses = torch.ones(2, device=device).to(torch.float8_e4m3fn)
    with pytest.raises(TypeError, match="losses must be float16, bfloat16, float32 or float64"):
        pruner.update([1, 2], losses)
    assert pruner.stats.scored == 0
    assert pruner.scores().isnan().all()


def test_a_mask_of_bytes_is_not_taken_for_ids() -> None:
    with pytest.raises(TypeError, match=r"protect looks like a mask, as it holds 6 zeros and ones"):
        InfoBatch(6, 3, protect=torch.tensor([0, 1, 1, 0, 0, 1], dtype=torch.uint8))
    assert InfoBatch(6, 3, protect=torch.tensor([0, 1, 5], dtype=torch.uint8)).protected == 3


@pytest.mark.parametrize("lengths", [{"batch_size": 10, "steps_per_epoch": 1000}, {"steps_per_epoch": torch.inf}])
def test_a_state_stays_whole_when_a_plan_follows_before_it_is_written(lengths: Any) -> None:
    pruner = InfoBatch(1000, 9, seed=1, delta=1.0, **lengths)
    batches = iter(pruner.sampler.batches(10))
    for _ in range(100):
        pruner.update(torch.tensor(next(batches)), torch.rand(10))
    state = pruner.state_dict()
    next(batches)  # of the next plan, which a loader's thread may draw at any time
    assert pruner.epoch == 1
    InfoBatch(1000, 9, seed=1, delta=1.0, **lengths).load_state_dict(copy.deepcopy(state))
