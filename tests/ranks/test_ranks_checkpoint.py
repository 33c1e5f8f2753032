"""Checkpoints of several ranks: any number of ranks loads what any other number has saved, in the middle of an epoch too."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from support.cut_runs import BATCH, EPOCH, KINDS, cut, facts, make
from support.ranks import BACKENDS, flat, needs_gloo, run_ranks
from support.runs import train

pytestmark = needs_gloo

WORLDS = (1, 2, 3, 4)
STEPS = {"unplanned": -1, "planned": 0, "first": 1, "middle": 20, "all": 10**6}  # of epoch 2, before the checkpoint
CUTS = [("mean", name) for name in STEPS] + [("tiers", "middle")]


def member(group: Any) -> dict[str, Any]:
    return {"process_group": group, "num_replicas": dist.get_world_size(group), "rank": dist.get_rank(group)}


def save_and_load_everywhere(folder: str, device: str, worlds: tuple[int, ...]) -> dict[tuple[Any, ...], Any]:
    """Saves with the first ranks of the group and loads with the first ranks of the group, in all combinations."""
    groups = {world: dist.new_group(list(range(world))) for world in worlds}
    mine = {world: group for world, group in groups.items() if dist.get_rank() < world}
    seen: dict[tuple[Any, ...], Any] = {}
    for kind, name in CUTS:
        for world, group in mine.items():
            pruner = make(kind, device=device, **member(group))
            visited = cut(pruner, STEPS[name])
            dcp.save({"pruner": pruner}, checkpoint_id=f"{folder}/{kind}-{name}-{world}", process_group=group)
            scores = pruner.engine.table.scores.cpu().clone()
            if name != "unplanned":
                seen["saved", kind, name, world] = facts(pruner) | {"visited": visited, "scores": scores}
        dist.barrier()
        for world in worlds:
            for target, group in mine.items():
                pruner = make(kind, device=device, **member(group))
                dcp.load({"pruner": pruner}, checkpoint_id=f"{folder}/{kind}-{name}-{world}", process_group=group)
                restored = pruner.engine.table.scores.cpu().clone()
                pruner.set_epoch(0)  # which some trainers send after a restart, and has no effect
                pruner.set_epoch(EPOCH)
                result = facts(pruner) | {"available": pruner.engine.epochs.plan().available, "scores": restored}
                result["rest"] = train(pruner, BATCH)
                pruner.set_epoch(EPOCH + 1)
                seen["loaded", kind, name, world, target] = result | {"next": facts(pruner)}
    return seen


def together(ranks: list[dict[tuple[Any, ...], Any]], key: tuple[Any, ...], *names: str) -> list[Any]:
    """One fact of all ranks that took part, in the order of the ranks."""
    found = []
    for rank in ranks:
        if key in rank:
            value = rank[key]
            for name in names:
                value = value[name]
            found.append(value)
    return found


def check_restart(ranks: list[dict[tuple[Any, ...], Any]], kind: str, name: str, source: int, target: int) -> None:
    saved, loaded, alone = ("saved", kind, name, source), ("loaded", kind, name, source, target), ("loaded", kind, name, 1, 1)
    context = f"{kind}, cut {name}, {source} ranks to {target}"
    before = flat(together(ranks, saved, "visited"))
    parts, available = together(ranks, loaded, "rest"), together(ranks, loaded, "available")
    kept = sorted(flat(together(ranks, loaded, "kept")))
    assert len(parts) == target, context
    assert len(set(map(len, parts))) == 1, context
    own = [part[:count] for part, count in zip(parts, available, strict=True)]
    rest = flat(own)
    if name != "unplanned":
        assert kept == sorted(flat(together(ranks, saved, "kept"))), context
        assert together(ranks, saved, "decided")[0] == together(ranks, loaded, "decided")[0], context
        weights = [sorted(flat(together(ranks, key, "weights"))) for key in (saved, loaded)]
        assert weights[0] == weights[1], context
        scores = [torch.cat(together(ranks, key, "scores")) for key in (saved, loaded)]
        assert torch.equal(*(part.nan_to_num(-1.0) for part in scores)), context
    assert max(Counter(rest).values(), default=0) <= 1, context  # none twice,
    assert not set(rest) & set(before), context  # none that was visited before
    if not KINDS[kind].get("drop_last"):
        assert sorted({*before, *rest}) == kept, context  # and none lost: what is behind `available` is padding
        assert len(parts[0]) == max(available), context
        assert together(ranks, loaded, "next", "decided")[0] == together(ranks, alone, "next", "decided")[0], context
        following = [sorted(flat(together(ranks, key, "next", "kept"))) for key in (loaded, alone)]
        assert following[0] == following[1], context
    else:  # each rank leaves out what the shortest one lacks
        assert len(parts[0]) == min(available), context
        assert {*before, *rest} <= set(kept), context


@pytest.mark.slow
def test_every_number_of_ranks_goes_on_from_every_other_ones_checkpoint(tmp_path: Path) -> None:
    ranks = run_ranks(4, save_and_load_everywhere, str(tmp_path), "cpu", WORLDS)
    for kind, name in CUTS:
        for source in WORLDS:
            for target in WORLDS:
                check_restart(ranks, kind, name, source, target)


@pytest.mark.parametrize("kind", BACKENDS[1:], ids=str)
def test_gpus_go_on_from_each_others_checkpoints(tmp_path: Path, kind: tuple[str, str]) -> None:
    backend, device = kind
    ranks = run_ranks(2, save_and_load_everywhere, str(tmp_path), device, (1, 2), backend=backend)
    for source in (1, 2):
        for target in (1, 2):
            check_restart(ranks, "mean", "middle", source, target)
