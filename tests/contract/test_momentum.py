"""Scores as moving averages: the blend of docs/algorithm.md to the bit, on every path that records."""

import math
import random
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from infobatch_fast import InfoBatch, MeanThreshold, NoPruning, QuantileTiers, RandomPruning
from support.compare import RULES, SCORES, assert_same_decisions, bits, policy_of
from support.oracle import Oracle, Rule
from support.ranks import arbitrary, needs_gloo, own_ids, run_ranks
from support.refusals import INTS, raises
from support.restarts import BATCH, restored, run_of, saved
from support.runs import ARBITRARY, loss_of, record, record_all, snapshot, train

pytestmark = ARBITRARY

MOMENTA = [0.9, 0.5, 1 / 3, 0.999, 2**-30, 1 - 2**-53, 1e-320]


def same_scores(pruner: InfoBatch, oracle: Oracle) -> bool:
    expected = [math.nan if score is None else score for score in oracle.scores]
    return bits(pruner.scores().tolist()) == bits(expected)


@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize("name", [name for name in SCORES if name != "unseen"])
def test_scores_are_blended_as_the_page_says(device: torch.device, name: str, momentum: float) -> None:
    n, rule, dice = 130, Rule("mean", (0.5,), momentum=momentum), random.Random(f"{name} {momentum}")
    pruner, oracle = InfoBatch(n, 9, policy=policy_of(rule), delta=1.0, device=device), Oracle(n, rule)
    for epoch in range(4):
        pruner.set_epoch(epoch)
        oracle.plan(epoch)
        assert_same_decisions(pruner, oracle)
        ids = dice.choices(range(n), k=90)  # some twice
        scores = [dice.choice((SCORES[name](dice) or 0.5, 0.0, math.nan, math.inf, 2.0**-149)) for _ in ids]
        record(pruner, ids, torch.tensor(scores))
        oracle.update(ids, scores)
        assert same_scores(pruner, oracle)


def test_the_later_of_two_losses_is_blended_with_the_score_before_the_call(device: torch.device) -> None:
    pruner = InfoBatch(4, 9, policy=MeanThreshold(momentum=0.5), device=device)
    record(pruner, [1], [8.0])
    record(pruner, [1, 2, 1, 2, 3, 3], [100.0, 7.0, 4.0, 3.0, 5.0, math.nan])
    assert pruner.scores([1, 2, 3]).tolist() == [6.0, 3.0, 5.0]


def test_a_loss_that_is_not_finite_leaves_the_average(device: torch.device) -> None:
    pruner = InfoBatch(4, 9, policy=QuantileTiers(momentum=0.75), device=device)
    record_all(pruner, [1.0, 2.0, 3.0, 4.0])
    record_all(pruner, [math.nan, math.inf, -math.inf, 8.0])
    assert pruner.scores().tolist() == [1.0, 2.0, 3.0, 5.0]
    assert pruner.stats.non_finite == 3


def test_separate_scores_are_averaged_and_the_loss_is_not(device: torch.device) -> None:
    pruner = InfoBatch(2, 9, policy=MeanThreshold(momentum=0.5), device=device)
    for value in (4.0, 8.0):
        loss = record(pruner, [0, 1], [1.0, 2.0], scores=torch.full((2,), value, device=device))
        assert loss.item() == 1.5
    assert pruner.scores().tolist() == [6.0, 6.0]


def test_a_bad_index_is_counted_once_and_harms_nothing(device: torch.device) -> None:
    pruner = InfoBatch(4, 9, policy=MeanThreshold(momentum=0.5), device=device)
    record_all(pruner, [1.0, 2.0, 3.0, 4.0])
    record(pruner, [9, 0, -1], [100.0, 3.0, 100.0])
    with raises(IndexError, "index: 2 out of range for 4 samples"):
        pruner.stats  # noqa: B018
    assert pruner.scores().tolist() == [2.0, 2.0, 3.0, 4.0]


class Operators(TorchDispatchMode):
    """Notes the operators of torch that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_momentum_takes_no_operator_of_torch(device: torch.device) -> None:
    names = []
    for policy in (MeanThreshold(), MeanThreshold(momentum=0.5)):
        pruner = InfoBatch(10, 9, policy=policy, device=device)
        record_all(pruner)
        index, losses = torch.arange(10, device=device), torch.ones(10, device=device)
        with Operators() as operators:
            pruner.update(index, losses)
        names.append(operators.names)
    assert names[0] == names[1]
    assert all(policy().momentum == 0.0 for policy in (MeanThreshold, QuantileTiers, RandomPruning, NoPruning))


def test_averages_do_not_depend_on_whether_the_thread_flushes_subnormal_numbers(device: torch.device) -> None:
    tiny, ids = 2.0**-149, list(range(6))
    for momentum in (0.5, 1e-40, 1e-320):
        rule = Rule("mean", (0.5,), momentum=momentum)
        pruner, oracle = InfoBatch(6, 9, policy=policy_of(rule), device=device), Oracle(6, rule)
        oracle.plan(0)
        for scores in ([0.0, 4 * tiny, -tiny, 2.0**-126, 3e38, 1.0], [-0.0, 2 * tiny, 3 * tiny, -(2.0**-127), 2.0**-126, tiny]):
            index, losses = torch.tensor(ids), torch.tensor(scores)
            pruner.sampler.indices()
            flushed = torch.set_flush_denormal(True)
            try:
                pruner.update(index.to(device), losses.to(device))
                mode = float(torch.tensor(tiny) * 1.0)
            finally:
                torch.set_flush_denormal(False)
            oracle.update(ids, scores)
            assert same_scores(pruner, oracle)
        assert mode == (0.0 if flushed else tiny)  # what it was is what it is after a call
    if not flushed:
        pytest.skip("this processor cannot flush denormals, so all but that was tested")


def test_duplicates_in_a_batch_of_any_size_are_blended_with_the_score_before_the_call(device: torch.device) -> None:
    n, rule = 300, Rule("mean", (0.5,), momentum=0.9)
    pruner, oracle = InfoBatch(n, 9, policy=policy_of(rule), device=device), Oracle(n, rule)
    oracle.plan(0)
    dice = random.Random(5)
    for size in (40, 256, 257, 1000, 5000, 9000):
        ids, scores = dice.choices(range(n), k=size), [dice.choice((dice.gauss(0, 1), 3.4e38, math.nan)) for _ in range(size)]
        record(pruner, ids, torch.tensor(scores))
        oracle.update(ids, scores)
        assert same_scores(pruner, oracle)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_compiled_update_blends_as_well(device: torch.device) -> None:
    pruners = [InfoBatch(100, 9, policy=MeanThreshold(momentum=0.9), delta=1.0, device=device) for _ in range(2)]
    eager, compiled = pruners
    step = torch.compile(lambda index, losses: compiled.update(index, losses * 2), fullgraph=True, backend="aot_eager")
    for epoch in range(3):
        index = torch.arange(epoch, 60, device=device)
        losses = loss_of(index, epoch).to(device)
        assert torch.equal(step(index, losses), eager.update(index, losses * 2))
    assert snapshot(compiled) == snapshot(eager)


def test_a_run_with_momentum_that_is_cut_goes_on_bit_for_bit(device: torch.device) -> None:
    policy = MeanThreshold(0.5, momentum=0.9)
    reference, pruner = run_of(device, policy=policy), run_of(device, policy=policy)
    for each in (reference, pruner):
        for _ in range(2):
            train(each, BATCH)
    visited = train(pruner, BATCH, steps=2)
    again = restored(saved(pruner), device, policy=policy)
    assert visited + train(again, BATCH) == train(reference, BATCH)
    assert torch.equal(again.scores(), reference.scores())


@pytest.mark.parametrize(("value", "error"), [*INTS[1:], (1.0, ValueError), (-0.1, ValueError), (math.nan, ValueError)])
def test_a_momentum_is_in_0_to_1(value: Any, error: type[Exception]) -> None:
    for make in (lambda m: MeanThreshold(momentum=m), lambda m: QuantileTiers(momentum=m)):
        with raises(error, "momentum must be", "in [0, 1)", f"got {value!r}"):
            make(value)


@arbitrary
def on_ranks() -> Any:
    pruner = InfoBatch(1030, 9, policy=policy_of(RULES["mean, momentum"]), delta=1.0)
    ids = own_ids(pruner)
    kept = []
    for epoch in range(4):
        pruner.set_epoch(epoch)
        kept.append(pruner.stats.kept)
        record(pruner, ids, loss_of(ids, epoch))
    return kept, pruner.stats.thresholds, pruner.engine.table.scores


@pytest.mark.slow
@needs_gloo
def test_the_averages_do_not_depend_on_the_number_of_ranks() -> None:
    (alone,) = run_ranks(1, on_ranks)
    ranks = run_ranks(3, on_ranks)
    assert torch.equal(torch.cat([rank[2] for rank in ranks]), alone[2])
    assert all(rank[:2] == alone[:2] for rank in ranks)
