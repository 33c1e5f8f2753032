"""Checks of a pruner with billions of samples, against the algorithm in plain Python; and the helpers that time and plan."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from scaling_model import SEED

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from infobatch_fast import InfoBatch
from infobatch_fast.engine import ops
from support.draws import DEAL, SHUFFLE, Permutation
from support.oracle import keep_draw

EPOCH, CHUNK = 1, 1 << 16


def resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def plan_once(pruner: InfoBatch, epoch: int) -> float:
    pruner.set_epoch(epoch)
    return timed(lambda: len(pruner.sampler))


def check_order(pruner: InfoBatch) -> dict[str, int]:
    """Positions of the order against the algorithm in plain Python, and a scan of all marks up to the sample's slot."""
    plan, table = pruner._epochs.plan(), pruner._table
    deal = Permutation(pruner.num_samples, SEED, DEAL, 0, 0)
    shuffle = Permutation(plan.available, SEED, SHUFFLE, plan.epoch, pruner.rank)
    threshold, cutoff = plan.thresholds[0], plan.cutoffs[1]
    start = plan.available - CHUNK
    ids = plan.order(start, plan.available)
    slots, _ = ops.look_up(table.shard, table.marks, torch.zeros_like(table.faults), ids)
    highest = [start + int(values.argmax()) for values in (ids, slots)]  # of some ten thousand, so close to the end of the range
    spots = [0, 1, plan.available // 2, plan.available - 1, *highest]
    largest_id = largest_slot = largest_position = 0
    for spot in spots:
        (sample,) = plan.order(spot, spot + 1).tolist()
        slot = deal.permute(sample)
        local = slot - table.first_slot
        assert 0 <= local < table.num_slots
        below = float(table.scores[local]) < threshold
        assert keep_draw(SEED, slot, plan.epoch) < (cutoff if below else ops.CUTOFF_RANGE)
        assert kept_before(table.marks, local) == shuffle.permute(spot)
        largest_id, largest_slot, largest_position = max(largest_id, sample), max(largest_slot, slot), max(largest_position, spot)
    for start in (0, plan.available // 2, plan.available - CHUNK):
        ids = plan.order(start, start + CHUNK)
        assert len(ids.unique()) == CHUNK
        kept = pruner.is_kept(ids)
        assert isinstance(kept, torch.Tensor)
        assert bool(kept.all())
    if plan.length > plan.available:
        assert torch.equal(plan.order(plan.available, plan.length), plan.order(0, plan.length - plan.available))
    return {
        "positions": len(spots),
        "chunks": 3,
        "largest_id": largest_id,
        "largest_slot": largest_slot,
        "last_position": largest_position,
    }


def kept_before(marks: torch.Tensor, slot: int) -> int:
    """Kept slots below ``slot``, by reading all their marks."""
    whole, count = slot // 2, 0
    for piece in marks[:whole].split(1 << 24):
        count += int((piece & 1).sum() + (piece >> 4 & 1).sum())
    return count + (int(marks[whole]) & 1 if slot % 2 else 0)


def check_update(pruner: InfoBatch) -> dict[str, int]:
    """Losses of the samples with the highest ids of this rank land in the slots that plain Python names, and nowhere else."""
    table, deal = pruner._table, Permutation(pruner.num_samples, SEED, DEAL, 0, 0)
    high = torch.arange(pruner.num_samples - 64 * pruner.num_replicas, pruner.num_samples)
    slots, _ = ops.look_up(table.shard, table.marks, torch.zeros_like(table.faults), high)
    own = high[slots >= 0]
    before = table.scores[slots[slots >= 0]].clone()
    pruner.update(own, -1.0 - torch.arange(len(own), dtype=torch.float32))
    for place, sample in enumerate(own.tolist()):
        assert float(table.scores[deal.permute(sample) - table.first_slot]) == -1.0 - place
    assert int(sum((piece < 0).sum() for piece in table.scores.split(1 << 26))) == len(own)
    table.scores[slots[slots >= 0]] = before
    return {"updated": len(own), "highest_updated_id": int(own.max())}


def check_restart(pruner: InfoBatch) -> dict[str, Any]:
    """A restart in mid-epoch, from the live tables: the order goes on behind what was visited, to its very end."""
    plan_once(pruner, EPOCH + 1)
    length, visited = len(pruner.sampler), 1_000_000
    starts = (visited, length // 2, length - CHUNK)
    expected = [pruner.sampler.indices(start, start + CHUNK) for start in starts]
    pruner.update(pruner.sampler.indices(0, visited), torch.rand(visited))
    before = resident("VmRSS")
    load_seconds = timed(lambda: pruner.load_state_dict(pruner.state_dict()))
    transient = resident("VmHWM") - before
    restore_seconds = timed(lambda: len(pruner.sampler))
    assert len(pruner.sampler) == length - visited
    for start, ids in zip(starts, expected, strict=True):
        assert torch.equal(pruner.sampler.indices(start - visited, start - visited + CHUNK), ids)
    return {
        "check_seconds": load_seconds,
        "plan_seconds": restore_seconds,
        "positions": length - visited,
        "more_bytes": resident("VmRSS") - before,
        "peak_bytes_while_loading": max(0, transient),
    }
