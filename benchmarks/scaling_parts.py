"""What bench_scaling.py measures: each part is a function that runs in a process of its own and returns figures for JSON."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from scaling_checks import CHUNK, EPOCH, check_order, check_restart, check_update, plan_once, resident, timed
from scaling_model import POLICIES, SEED, WORLDS, OneOfMany, allocated, expected_balance, pruner_of, table_bytes

from infobatch_fast import InfoBatch, MeanThreshold
from infobatch_fast.bench.timing import spread
from infobatch_fast.engine.ranks import Ranks

BATCH = 1024


def fill(pruner: InfoBatch) -> None:
    """Every sample was seen: exponentially distributed scores, 63 % of which lie below their mean."""
    torch.manual_seed(pruner.rank)
    block = torch.empty(min(pruner._table.num_slots, 1 << 27)).exponential_()
    for number, piece in enumerate(pruner._table.scores.split(1 << 27)):
        torch.mul(block[: len(piece)], 1 + number / 1000, out=piece)  # drawing all of them would take minutes


def measure(n: int, ranks: Ranks, rounds: int) -> tuple[InfoBatch, dict[str, Any]]:
    """One rank's share, really allocated, planned, read and scored: the pruner in a plan that keeps 84 %, and the figures."""
    pruner_of(10_000).stats  # noqa: B018  what is loaded once
    before = resident("VmRSS")
    policies = {}
    pruner = pruner_of(n, ranks)
    fill_seconds = timed(lambda: fill(pruner))
    for name, policy in POLICIES.items():
        pruner._epochs._planner.policy = policy
        first = 10 * (len(policies) + 1)
        policies[name] = spread([plan_once(pruner, first + turn) for turn in range(rounds)])
    pruner._epochs._planner.policy = MeanThreshold(0.25)
    plan_once(pruner, EPOCH)
    held, peak, slots = resident("VmRSS") - before, resident("VmHWM") - before, pruner._table.num_slots
    assert allocated(pruner) == table_bytes(slots)
    checked = check_order(pruner)
    length = len(pruner.sampler)
    starts = torch.randint(length - CHUNK, (20,)).tolist()
    order = spread([timed(lambda start=start: pruner.sampler.indices(start, start + CHUNK)) / CHUNK for start in starts])
    losses = torch.rand(BATCH)
    batches = [pruner.sampler.indices(start, start + BATCH) for start in torch.randint(length - BATCH, (200,)).tolist()]
    update = spread([timed(lambda batch=batch: pruner.update(batch, losses)) / BATCH for batch in batches])
    checked |= check_update(pruner)
    stats = pruner.stats
    return pruner, {
        "n": n,
        "world": ranks.num_replicas,
        "rank": ranks.rank,
        "slots": slots,
        "first_slot": pruner._table.first_slot,
        "table_bytes": table_bytes(slots),
        "resident_bytes": held,
        "peak_bytes": peak,
        "fill_seconds": fill_seconds,
        "kept": stats.kept,
        "length": length,
        "plan_seconds": policies,
        "order_seconds_per_sample": order,
        "update_seconds_per_sample": update,
        "checked": checked,
    }


def share(rounds: int) -> dict[str, Any]:
    return measure(10**10, OneOfMany(64, 37), rounds)[1]


def whole(rounds: int) -> dict[str, Any]:
    pruner, result = measure(3 * 10**9, Ranks(), min(rounds, 3))
    return result | {"restart": check_restart(pruner)}


def balance(rounds: int) -> dict[str, Any]:
    """Kept counts of every shard for many W at once: the kept set does not depend on W, so one process has it."""
    n = 10**8
    pruner = pruner_of(n)
    fill(pruner)
    result: dict[str, Any] = {"n": n, "worlds": []}
    plan_once(pruner, EPOCH)
    result["kept"] = pruner.stats.kept
    q = pruner.stats.kept / n
    for world in WORLDS[1:]:
        padding, deviations = [], []
        for epoch in range(EPOCH, EPOCH + rounds):
            plan_once(pruner, epoch)
            firsts = [Ranks(world, rank).shard(n)[0] for rank in range(world)] + [n]
            marks = pruner._table.marks
            counts = torch.tensor([kept_between(marks, low, high) for low, high in pairwise(firsts)])
            assert int(counts.sum()) == pruner.stats.kept
            padding.append((int(counts.max()) * world - int(counts.sum())) / int(counts.sum()))
            deviations.append(float(counts.double().std()))
        row = {"world": world, "padding": spread(padding), "deviation": spread(deviations)}
        result["worlds"].append(row | {"expected": expected_balance(n, world, q)})
    return result


def kept_between(marks: torch.Tensor, first: int, last: int) -> int:
    piece = marks[first // 2 : (last + 1) // 2]
    return int((piece & 1).sum() + (piece >> 4 & 1).sum())


def gloo_rank(rank: int, world: int, rounds: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    n = 10**8
    InfoBatch(10_000, 9).stats  # noqa: B018
    before = resident("VmRSS")
    pruner = InfoBatch(n, 100, seed=SEED, delta=1.0)
    fill(pruner)
    result: dict[str, Any] = {"n": n, "world": world, "slots": pruner._table.num_slots, "plan_seconds": {}}
    for number, (name, policy) in enumerate(POLICIES.items()):
        pruner._epochs._planner.policy = policy
        seconds = []
        for turn in range(rounds + 1):
            dist.barrier()
            seconds.append(plan_once(pruner, EPOCH + 10 * number + turn))
        result["plan_seconds"][name] = spread(seconds[1:])
    result["resident_bytes"] = resident("VmRSS") - before
    result["table_bytes"] = allocated(pruner)
    pruner._epochs._planner.policy = POLICIES["mean"]
    plan_once(pruner, 50)
    plan = pruner._epochs.plan()
    result |= {"kept": plan.kept, "own": plan.available, "length": plan.length}
    with torch.no_grad():
        batches = [pruner.sampler.indices(start, start + BATCH) for start in range(0, 200 * BATCH, BATCH)]
        losses = torch.rand(BATCH)
        result["update_seconds_per_sample"] = spread([timed(lambda b=b: pruner.update(b, losses)) / BATCH for b in batches])
    pruner.state_dict()  # imports
    dist.barrier()
    result["save_seconds"] = timed(lambda: dcp.save({"pruner": pruner}, checkpoint_id=f"{folder}/state"))
    restored = InfoBatch(n, 100, seed=SEED, delta=1.0)
    dist.barrier()
    result["load_seconds"] = timed(lambda: dcp.load({"pruner": restored}, checkpoint_id=f"{folder}/state"))
    result["restore_seconds"] = timed(lambda: len(restored.sampler))
    assert restored._epochs.plan().available == plan.available - 200 * BATCH
    result["state_bytes"] = sum(file.stat().st_size for file in Path(folder, "state").iterdir())
    Path(folder, f"{rank}.json").write_text(json.dumps(result))
    dist.barrier()
    os._exit(0)  # some torch versions hang while they take a gloo group down


def gloo(rounds: int) -> dict[str, Any]:
    world = 4
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(gloo_rank, args=(world, rounds, folder), nprocs=world)
        ranks = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(world)]
    own = [rank["own"] for rank in ranks]
    q = ranks[0]["kept"] / ranks[0]["n"]
    padding = (max(own) * world - sum(own)) / sum(own)
    return {"ranks": ranks, "own": own, "padding": padding, "expected": expected_balance(ranks[0]["n"], world, q)}


PARTS: dict[str, tuple[Callable[[int], dict[str, Any]], float]] = {  # and the bytes that it needs
    "share": (share, 1.5e9),
    "balance": (balance, 1.0e9),
    "gloo": (gloo, 4.5e9),
    "whole": (whole, 3e9 * 4.6 + 1.5e9),
}
