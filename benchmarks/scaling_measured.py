"""Pruners with up to ten billion samples, planned, read, scored and checked: each part runs in a process of its own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from scaling_model import POLICIES, SEED, WORLDS, OneOfMany, allocated, expected_balance, pruner_of

from infobatch_fast import InfoBatch, MeanThreshold, Policy
from infobatch_fast.bench.timing import spread
from infobatch_fast.engine import ops
from infobatch_fast.engine.ranks import Ranks

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from support.draws import DEAL, SHUFFLE, Permutation
from support.oracle import keep_draw

EPOCH, CHUNK, BATCH, ROUNDS = 1, 1 << 16, 1024, 5


def resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def plan_once(pruner: InfoBatch, epoch: int) -> float:
    pruner.set_epoch(epoch)
    return timed(lambda: len(pruner.sampler))


def use_policy(pruner: InfoBatch, policy: Policy) -> None:
    """Plans from now on follow another policy, on the same table."""
    planner = pruner.engine.epochs.planner
    planner.settings = replace(planner.settings, policy=policy)


def fill(pruner: InfoBatch) -> None:
    """Every sample was seen: exponentially distributed scores, 63 % of which lie below their mean."""
    torch.manual_seed(pruner.rank)
    block = torch.empty(min(pruner.engine.table.num_slots, 1 << 27)).exponential_()
    for number, piece in enumerate(pruner.engine.table.scores.split(1 << 27)):
        torch.mul(block[: len(piece)], 1 + number / 1000, out=piece)  # drawing all of them would take minutes


def kept_between(marks: torch.Tensor, first: int, last: int) -> int:
    """Kept slots in [first, last), both even, by reading all their marks."""
    pieces = marks[first // 2 : last // 2].split(1 << 24)
    return sum(int((piece & 1).sum() + (piece >> 4 & 1).sum()) for piece in pieces)


def measure(n: int, ranks: Ranks, rounds: int) -> tuple[InfoBatch, dict[str, Any]]:
    """One rank's share, really allocated, planned, read and scored: the pruner in a plan that keeps 84 %, and the figures."""
    pruner_of(10_000).stats  # noqa: B018  what is loaded once
    before = resident_bytes()
    pruner, plans = pruner_of(n, ranks), {}
    fill(pruner)
    for number, (name, policy) in enumerate(POLICIES.items(), 1):
        use_policy(pruner, policy)
        plans[name] = spread([plan_once(pruner, 10 * number + turn) for turn in range(rounds)])
    use_policy(pruner, MeanThreshold(0.25))
    plan_once(pruner, EPOCH)
    held, slots, length = resident_bytes() - before, pruner.engine.table.num_slots, len(pruner.sampler)
    checked = check_order(pruner)
    starts = torch.randint(length - CHUNK, (20,)).tolist()
    order = [timed(lambda start=start: pruner.sampler.indices(start, start + CHUNK)) / CHUNK for start in starts]
    losses = torch.rand(BATCH)
    batches = [pruner.sampler.indices(start, start + BATCH) for start in torch.randint(length - BATCH, (200,)).tolist()]
    update = [timed(lambda batch=batch: pruner.update(batch, losses)) / BATCH for batch in batches]
    return pruner, {
        "n": n,
        "world": ranks.num_replicas,
        "slots": slots,
        "table_bytes": {"tables": allocated(pruner)},
        "resident_bytes": held,
        "plan_seconds": plans,
        "order_seconds_per_sample": spread(order),
        "update_seconds_per_sample": spread(update),
        "checked": checked,
    }


def check_order(pruner: InfoBatch) -> dict[str, int]:
    """Positions of the order against the algorithm in plain Python, and a count of all marks up to the sample's slot."""
    plan, table = pruner.engine.epochs.plan(), pruner.engine.table
    deal = Permutation(pruner.num_samples, SEED, DEAL, 0, 0)
    shuffle = Permutation(plan.available, SEED, SHUFFLE, plan.epoch, pruner.rank)
    start = plan.available - CHUNK
    ids = plan.order(start, plan.available)
    assert len(ids.unique()) == CHUNK
    slots = table.slots_of(ids)
    highest = [start + int(values.argmax()) for values in (ids, slots)]  # of some ten thousand, so close to the end of the range
    spots = [0, 1, plan.available // 2, plan.available - 1, *highest]
    samples = [int(plan.order(spot, spot + 1)) for spot in spots]
    for spot, sample in zip(spots, samples, strict=True):
        slot = deal.permute(sample)
        local = slot - table.first_slot
        assert 0 <= local < table.num_slots
        cutoff = plan.cutoffs[1] if float(table.scores[local]) < plan.thresholds[0] else ops.CUTOFF_RANGE
        assert keep_draw(SEED, slot, plan.epoch) < cutoff
        even = local - local % 2
        before = kept_between(table.marks, 0, even) + (int(table.marks[local // 2]) & 1) * (local - even)
        assert before == shuffle.permute(spot)
    if pruner.num_replicas > 1:  # this one keeps least, and pads
        assert plan.length > plan.available
        assert torch.equal(plan.order(plan.available, plan.length), plan.order(0, plan.length - plan.available))
    return {"positions": len(spots), "largest_id": max(samples), "last_position": max(spots)}


def restart(pruner: InfoBatch) -> dict[str, Any]:
    """A restart in mid-epoch, from the live tables: the order goes on behind what was visited, to its very end."""
    plan_once(pruner, EPOCH + 1)
    length, visited = len(pruner.sampler), 1_000_000
    starts = (visited, length // 2, length - CHUNK)
    expected = [pruner.sampler.indices(start, start + CHUNK) for start in starts]
    pruner.update(pruner.sampler.indices(0, visited), torch.rand(visited))
    check_seconds = timed(lambda: pruner.load_state_dict(pruner.state_dict()))
    plan_seconds = timed(lambda: len(pruner.sampler))
    for start, ids in zip(starts, expected, strict=True):
        assert torch.equal(pruner.sampler.indices(start - visited, start - visited + CHUNK), ids)
    assert len(pruner.sampler) == length - visited
    return {"check_seconds": check_seconds, "plan_seconds": plan_seconds, "positions": length - visited}


def share() -> dict[str, Any]:
    return measure(10**10, OneOfMany(64, 37), ROUNDS)[1]


def whole() -> dict[str, Any]:
    pruner, result = measure(3 * 10**9, Ranks(), 3)
    return result | {"restart": restart(pruner)}


def balance() -> dict[str, Any]:
    """Kept counts of every shard for many W at once: the kept set does not depend on W, so one process has it."""
    n = 10**8
    pruner = pruner_of(n)
    fill(pruner)
    worlds = []
    for world in WORLDS[1:]:
        padding, deviations = [], []
        firsts = [Ranks(world, rank).shard(n)[0] for rank in range(world)] + [n]
        for epoch in range(EPOCH, EPOCH + ROUNDS):
            plan_once(pruner, epoch)
            counts = torch.tensor([kept_between(pruner.engine.table.marks, low, high) for low, high in pairwise(firsts)])
            kept = int(counts.sum())
            assert kept == pruner.stats.kept
            padding.append((int(counts.max()) * world - kept) / kept)
            deviations.append(float(counts.double().std()))
        row = {"world": world, "padding": spread(padding), "deviation": spread(deviations)}
        worlds.append(row | {"expected": expected_balance(n, world, kept / n)})
    return {"n": n, "worlds": worlds}


PARTS: dict[str, tuple[Callable[[], dict[str, Any]], float]] = {  # and the bytes that it needs
    "share": (share, 1.5e9),
    "balance": (balance, 1.0e9),
    "whole": (whole, 3e9 * 4.6 + 1.5e9),
}
