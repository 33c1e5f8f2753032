"""Any sequence of operations leaves a pruner where the contract says: random ones against the oracle and a model of the epochs."""

import copy
import math
import os
from collections.abc import Sequence

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from infobatch_fast import InfoBatch
from support.compare import RULES, assert_same_decisions, bits, policy_of
from support.life import DELTA, NUM_EPOCHS, WARMUP, Life
from support.runs import ARBITRARY, snapshot

pytestmark = ARBITRARY

ODD_LOSSES = [math.nan, math.inf, -math.inf, 3.5e38, -1e39, 1e300, 1e-50, -0.0, 0.0, 3.4e38, 2.0**-149, 1e-12]
LOSSES = st.sampled_from(ODD_LOSSES) | st.floats(-10, 100)


class Sequences(RuleBasedStateMachine):
    device: torch.device

    @initialize(
        n=st.sampled_from([1, 2, 7, 8, 9, 33, 130]),
        name=st.sampled_from(sorted(RULES)),
        protect=st.booleans(),
        seed=st.sampled_from([0, 1, 2**64 - 1]),
        shuffle=st.booleans(),
    )
    def construct(self, n: int, name: str, protect: bool, seed: int, shuffle: bool) -> None:
        self.n, self.rule, self.seed, self.shuffle = n, RULES[name], seed, shuffle
        self.protected = range(0, n, 3) if protect else None
        self.life = Life(n, self.rule, seed, shuffle, self.protected or ())
        self.pruner = self.new_pruner()

    def new_pruner(self) -> InfoBatch:
        kind = {"seed": self.seed, "shuffle": self.shuffle, "device": self.device, "protect": self.protected}
        return InfoBatch(self.n, NUM_EPOCHS, policy=policy_of(self.rule), delta=DELTA, warmup_epochs=WARMUP, **kind)

    def do_update(self, ids: Sequence[int], losses: Sequence[float]) -> None:
        values = torch.tensor(losses, dtype=torch.float64, device=self.device)
        weighted = self.pruner.update(torch.tensor(ids, dtype=torch.int64), values, reduction="none")
        expected = [loss * weight for loss, weight in zip(losses, self.life.update(ids, losses), strict=True)]
        assert list(map(repr, weighted.tolist())) == list(map(repr, expected))

    @rule(data=st.data())
    def update_any_samples(self, data: st.DataObject) -> None:
        batch = data.draw(st.lists(st.tuples(st.integers(0, self.n - 1), LOSSES), max_size=12))
        self.do_update([sample for sample, _ in batch], [loss for _, loss in batch])

    @rule(data=st.data())
    def update_every_sample(self, data: st.DataObject) -> None:
        losses = data.draw(st.randoms(use_true_random=False))
        self.do_update(range(self.n), [losses.lognormvariate(0, 1) for _ in range(self.n)])

    @rule(epoch=st.integers(0, NUM_EPOCHS + 1))
    def set_epoch(self, epoch: int) -> None:
        self.pruner.set_epoch(epoch)
        self.life.set_epoch(epoch)
        assert self.pruner.epoch == self.life.epoch

    @rule(steps=st.integers(-1, 1))
    def set_an_epoch_nearby(self, steps: int) -> None:
        self.set_epoch(max(0, self.life.epoch + steps))

    @rule()
    def iterate_to_the_end(self) -> None:
        assert list(self.pruner.sampler) == self.life.begin()
        self.life.end()

    @rule(size=st.sampled_from([1, 3, 64]), data=st.data())
    def train_a_whole_epoch(self, size: int, data: st.DataObject) -> None:
        losses = data.draw(st.randoms(use_true_random=False))
        order = self.life.begin()
        batches = [order[first : first + size] for first in range(0, len(order), size)]
        seen = 0
        for batch in self.pruner.sampler.batches(size):
            assert batch == batches[seen]
            seen += 1
            self.do_update(batch, [losses.lognormvariate(0, 1) for _ in batch])
        assert seen == len(batches)
        self.life.end()

    @rule(steps=st.integers(1, 40), score=st.booleans())
    def break_off(self, steps: int, score: bool) -> None:
        order = self.life.begin()
        for step, sample in zip(range(steps), self.pruner.sampler, strict=False):
            assert sample == order[step]
            if score:
                self.do_update([sample], [1.0 + sample / 7])
        if steps > len(order):
            self.life.end()

    @rule()
    def peek_at_the_first(self) -> None:
        order = self.life.begin()
        assert next(iter(self.pruner.sampler), None) == (order[0] if order else None)
        if not order:
            self.life.end()

    @rule()
    def make_an_iterator_and_forget_it(self) -> None:
        iter(self.pruner.sampler)
        iter(self.pruner.sampler.batches(2))

    @rule()
    def ask_for_the_length(self) -> None:
        length = self.life.length()
        assert len(self.pruner.sampler) == length
        assert len(self.pruner.sampler.batches(4)) == math.ceil(length / 4)
        assert self.pruner.epoch == self.life.epoch

    @rule()
    def ask_for_the_order(self) -> None:
        length = self.life.length()
        assert self.pruner.sampler.indices().tolist() == self.life.order()
        assert self.pruner.sampler.indices(length // 3, length // 2).tolist() == self.life.order()[length // 3 : length // 2]

    @rule(data=st.data())
    def ask_about_samples(self, data: st.DataObject) -> None:
        self.life.need_plan()
        ids = data.draw(st.lists(st.integers(0, self.n - 1), max_size=8))
        index = torch.tensor(ids, dtype=torch.int64)
        oracle = self.life.oracle
        assert self.pruner.weights(index).tolist() == [oracle.weights[sample] for sample in ids]
        assert self.pruner.is_kept(index).tolist() == [oracle.kept[sample] for sample in ids]

    @rule()
    def ask_for_the_statistics(self) -> None:
        self.life.need_plan()
        assert_same_decisions(self.pruner, self.life.oracle)
        stats = self.pruner.stats
        assert (stats.epoch, stats.scored, stats.non_finite) == (self.life.epoch, self.life.scored, self.life.non_finite)
        assert stats.total_saved_fraction == 1.0 - self.life.planned_kept / self.life.planned_samples

    @rule()
    def ask_for_the_scores(self) -> None:
        scores = [math.nan if score is None else score for score in self.life.oracle.scores]
        assert bits(self.pruner.scores().tolist()) == bits(scores)

    @rule(more=st.sampled_from([0, 1, 5, 8, 40]))
    def grow(self, more: int) -> None:
        before = snapshot(self.pruner)
        if self.life.grow(self.n + more):
            self.pruner.grow(self.n + more)
            self.n += more
        else:
            with pytest.raises(RuntimeError, match=r"grow: epoch .* is under way"):
                self.pruner.grow(self.n + more)
            assert snapshot(self.pruner) == before
        assert (self.pruner.epoch, self.pruner.num_samples) == (self.life.epoch, self.n)

    @rule()
    def save_and_go_on(self) -> None:
        self.pruner.state_dict()

    @rule(sampler=st.sampled_from(["left alone", "restored before", "restored after"]))
    def restart(self, sampler: str) -> None:
        state, place = copy.deepcopy(self.pruner.state_dict()), self.pruner.sampler.state_dict()
        self.pruner = self.new_pruner()
        if sampler == "restored before":
            self.pruner.sampler.load_state_dict(place)
        self.pruner.load_state_dict(state)
        if sampler == "restored after":
            self.pruner.sampler.load_state_dict(place)
        self.life.restart()
        assert self.pruner.epoch == self.life.epoch

    @precondition(lambda self: self.life.restarted)
    @rule()
    def set_epoch_0_as_trainers_do_after_a_restart(self) -> None:
        self.set_epoch(0)


@pytest.mark.slow
def test_any_sequence_of_operations_leaves_a_pruner_where_the_contract_says(device: torch.device) -> None:
    class OnDevice(Sequences):
        pass

    OnDevice.device = device
    bounds = settings(
        max_examples=int(os.environ.get("FUZZ_EXAMPLES", "150")),
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # Phase.shrink finds the shortest sequence that fails, in some minutes
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(OnDevice, settings=bounds)
