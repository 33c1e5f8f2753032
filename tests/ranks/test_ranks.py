"""Several ranks share a data set as docs/distributed.md says: real gloo processes on this machine."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from infobatch_fast import ImportanceSampling, InfoBatch, MeanThreshold, NoPruning, QuantileTiers, RandomPruning
from infobatch_fast.engine.ranks import Ranks
from support.compare import RULES, bits, policy_of
from support.draws import shard
from support.gpus import GPUS
from support.oracle import Oracle
from support.ranks import BACKENDS, Collectives, kept_here, local_value, needs_gloo, own_ids, record_own, run_ranks
from support.runs import loss_of, order, record, train

pytestmark = needs_gloo

POLICIES = {
    "mean": MeanThreshold(),
    "tiers": QuantileTiers(),
    "random": RandomPruning(0.7),
    "none": NoPruning(),
    "importance": ImportanceSampling(),
}


# ---- what is decided ----


def decide(n: int, name: str, device: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Five epochs on this rank: it trains on what the sampler yields; what was decided in each."""
    pruner = InfoBatch(n, 6, policy=POLICIES[name], delta=1.0, seed=n, device=device, **kwargs)
    ids, epochs = own_ids(pruner), []
    for epoch in range(5):
        pruner.set_epoch(epoch)
        stats, weights, yielded = pruner.stats, pruner.weights(ids).tolist(), order(pruner)
        decided = (stats.thresholds, stats.seen, stats.kept, stats.tier_sizes, stats.tier_kept, stats.weights)
        available = pruner.engine.epochs.plan().available
        epochs.append({"decided": decided, "kept": kept_here(pruner), "weights": weights, "order": yielded, "own": available})
        assert train(pruner, 64) == yielded
    return {"ids": ids.tolist(), "scores": pruner.engine.table.scores.cpu(), "epochs": epochs}


def decide_all(cases: list[tuple[int, str, str, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [decide(*case) for case in cases]


CASES: list[tuple[int, str, dict[str, Any]]] = [
    (1030, "mean", {}),
    (1030, "tiers", {}),
    (20_003, "mean", {"shard": "contiguous"}),
    (20_003, "tiers", {"drop_last": True}),
    (5001, "random", {"shuffle": False}),
    (64, "none", {}),
]


def by_sample(n: int, ranks: list[dict[str, Any]], epoch: int) -> dict[str, Any]:
    """What all ranks decided of an epoch, put together by sample."""
    weights = [0.0] * n
    for rank in ranks:
        for sample, weight in zip(rank["ids"], rank["epochs"][epoch]["weights"], strict=True):
            weights[sample] = weight
    kept = sorted(sample for rank in ranks for sample in rank["epochs"][epoch]["kept"])
    return {"decided": ranks[0]["epochs"][epoch]["decided"], "weights": weights, "kept": kept}


@pytest.fixture(scope="module")
def alone() -> list[list[dict[str, Any]]]:
    """Every case on one rank: a list over the ranks, of a list over the cases."""
    return run_ranks(1, decide_all, [(n, name, "cpu", kwargs) for n, name, kwargs in CASES])


@pytest.mark.parametrize("kind", BACKENDS, ids=str)
@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_decisions_do_not_depend_on_the_number_of_ranks(
    world: int, kind: tuple[str, str], alone: list[list[dict[str, Any]]]
) -> None:
    backend, device = kind
    if backend == "nccl" and world > GPUS:
        pytest.skip("NCCL needs a GPU for each rank")
    ranks = run_ranks(world, decide_all, [(n, name, device, kwargs) for n, name, kwargs in CASES], backend=backend)
    for case, (n, _, kwargs) in enumerate(CASES):
        here, one = [rank[case] for rank in ranks], [alone[0][case]]
        assert sorted(sample for rank in here for sample in rank["ids"]) == list(range(n))
        if kwargs.get("shard") == "contiguous" or kwargs.get("shuffle") is False:
            assert [sample for rank in here for sample in rank["ids"]] == list(range(n))
        if not kwargs.get("drop_last"):  # which leaves some unvisited, so that the scores differ
            # Slot by slot: the permutation by which samples are dealt depends on the seed and N alone.
            assert torch.equal(torch.cat([rank["scores"] for rank in here]), one[0]["scores"])
        for epoch in range(1 if kwargs.get("drop_last") else 5):
            assert by_sample(n, here, epoch) == by_sample(n, one, epoch)
            of_rank = [rank["epochs"][epoch] for rank in here]
            assert all(rank["decided"] == of_rank[0]["decided"] for rank in of_rank)
            owned = [rank["own"] for rank in of_rank]
            steps = min(owned) if kwargs.get("drop_last") else max(owned)
            for rank in of_rank:
                whole, length = rank["order"][: rank["own"]], len(rank["order"])
                assert length == steps
                assert len(set(whole)) == len(whole)
                assert set(whole) <= set(rank["kept"])
                assert rank["order"][rank["own"] :] == whole[: length - len(whole)]  # padding: the start of its own order
                assert kwargs.get("drop_last") or sorted(whole) == rank["kept"]


def follow_the_oracle() -> None:
    for rule in ("mean", "two tiers", "importance", "importance by score"):
        policy = policy_of(RULES[rule])
        n, world, rank = 1030, dist.get_world_size(), dist.get_rank()
        oracle = Oracle(n, RULES[rule], seed=11, world=world)
        pruner = InfoBatch(n, 9, policy=policy, delta=1.0, seed=11)
        losses = loss_of(torch.arange(n))
        oracle.update(range(n), losses.tolist())
        record_own(pruner)
        pruner.set_epoch(3)
        oracle.plan(3)
        mine = sorted(oracle.ids[slot] for slot in shard(n, world, rank))
        assert own_ids(pruner).tolist() == mine
        assert kept_here(pruner) == [sample for sample in mine if oracle.kept[sample]]
        assert pruner.weights(mine).tolist() == [oracle.weights[sample] for sample in mine]
        assert bits(pruner.stats.thresholds) == bits(oracle.thresholds)
        assert order(pruner) == oracle.orders()[rank]


def test_four_ranks_follow_the_oracle() -> None:
    run_ranks(4, follow_the_oracle)


# ---- what it costs ----


def resident_bytes() -> int:
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def allocate(n: int) -> tuple[int, int]:
    InfoBatch(1000, 1).stats  # noqa: B018  what is loaded once
    before = resident_bytes()
    pruner = InfoBatch(n, 9)
    assert len(pruner.sampler) == n // 4
    directory = pruner.engine.epochs.planner.directory
    tensors = (pruner.engine.table.scores, pruner.engine.table.marks, directory._ones_before, directory._hints)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors), resident_bytes() - before


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_each_rank_allocates_its_shard_only() -> None:
    n = 80_000_000
    for allocated, resident in run_ranks(4, allocate, n):
        assert allocated == pytest.approx(4.59375 * n / 4, rel=1e-5)
        assert resident < 4.6 * n / 4 + 2**24


def count_collectives() -> dict[str, Any]:
    sent: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        collectives = Collectives(patch)
        for name, policy in POLICIES.items():
            pruner = InfoBatch(5000, 9, policy=policy, delta=1.0)
            assert not collectives.calls  # a constructor may run on one rank alone
            record_own(pruner)
            sent[name] = collectives.calls[:]
            collectives.calls.clear()
            pruner.set_epoch(1)
            assert not collectives.calls
            len(pruner.sampler)
            sent[name + " again"] = collectives.calls[:]
            collectives.calls.clear()
            if dist.get_rank() == 0:  # any number of times, on any rank
                train(pruner, 100, steps=3)
                record(pruner, order(pruner)[:7], loss_of(torch.arange(7)))
                pruner.weights(order(pruner)[:7])
                kept_here(pruner)
                assert pruner.stats.scored > 0
                pruner.state_dict()
            assert not collectives.calls
    return sent


def test_only_a_plan_takes_collective_calls() -> None:
    first, agree = run_ranks(2, count_collectives)[0], ("all_gather", 88)  # the settings, in 8 bytes each
    # Of each: seen, 9 counts of marks, 6 faults, negative scores, epoch, whether restored; 4 cutoffs and 3 levels of 4 bytes.
    kept = ("all_gather", 180)
    for name in ("mean", "random", "none"):
        assert first[name] == [agree, ("all_reduce", 88), kept]
        assert first[name + " again"] == [("all_reduce", 88), kept]
    assert first["tiers"] == [agree, *[("all_reduce", 3 * 2048 * 8)] * 3, kept]
    assert first["tiers again"] == [*[("all_reduce", 3 * 2048 * 8)] * 3, kept]
    assert first["importance"] == [agree, ("all_reduce", 2048 * 8), kept]


def ask_in_different_ways() -> int:
    pruner, rank = InfoBatch(1000, 9, delta=1.0), dist.get_rank()
    for epoch in range(3):
        pruner.set_epoch(epoch)
        if (rank + epoch) % 3 == 0:
            len(pruner.sampler)
        elif (rank + epoch) % 3 == 1:
            pruner.stats  # noqa: B018
        train(pruner, 10)
    return pruner.stats.kept


def test_ranks_may_come_to_the_plan_by_different_calls() -> None:
    kept = run_ranks(3, ask_in_different_ways)
    assert kept[0] == kept[1] == kept[2]


# ---- model parallelism ----


def train_on_mesh() -> dict[str, Any]:
    """Two data-parallel by two tensor-parallel ranks, which see the same batches and the same losses."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    group = mesh["dp"].get_group()
    pruner = InfoBatch(1030, 9, delta=1.0, process_group=group)
    visited = [train(pruner, 32) for epoch in range(3)]
    state = {name: local_value(value) for name, value in pruner.state_dict().items()}
    place = mesh.get_local_rank("dp"), mesh.get_local_rank("tp")
    return {"place": place, "rank": pruner.rank, "replicas": pruner.num_replicas, "visited": visited, "state": state}


def test_ranks_of_one_model_build_the_same_pruner_from_their_data_parallel_rank() -> None:
    ranks = {rank["place"]: rank for rank in run_ranks(4, train_on_mesh)}
    for dp in (0, 1):
        assert ranks[dp, 0]["visited"] == ranks[dp, 1]["visited"]
        assert ranks[dp, 0]["state"] == ranks[dp, 1]["state"]
        assert (ranks[dp, 0]["rank"], ranks[dp, 0]["replicas"]) == (dp, 2)
    for first, second in zip(ranks[0, 0]["visited"], ranks[1, 0]["visited"], strict=True):
        assert not set(first) & set(second)
        assert len(first) == len(second)
    assert sorted({*ranks[0, 0]["visited"][0], *ranks[1, 0]["visited"][0]}) == list(range(1030))


@pytest.mark.parametrize(
    ("backends", "table", "meeting"),
    [
        ("cpu:gloo", "cpu", "cpu"),
        ("cuda:nccl", "cuda:1", "cuda:1"),
        ("cuda:nccl", "cpu", "cuda"),
        ("cpu:gloo,cuda:nccl", "cpu", "cpu"),
        ("cpu:gloo,cuda:nccl", "cuda:1", "cuda:1"),
        ("cpu:gloo,cuda:gloo", "cpu", "cpu"),
        ("cpu:gloo,cuda:gloo", "cuda:1", "cpu"),
        ("cuda:nccl,cpu:gloo", "cuda:1", "cuda:1"),
    ],
)
def test_ranks_meet_where_their_backend_takes_tensors(
    backends: str, table: str, meeting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "get_backend_config", lambda group: backends)
    assert Ranks(2, 0)._meeting_device(torch.device(table)) == torch.device(meeting)
