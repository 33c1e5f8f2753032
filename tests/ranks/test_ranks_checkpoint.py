"""Checkpoints of several ranks: any number of ranks loads what any other number has saved, in the middle of an epoch too."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh

from infobatch_fast import InfoBatch, QuantileTiers
from support.ranks import BACKENDS, Collectives, error_of, flat, kept_here, local_value, needs_gloo, own_ids, run_ranks
from support.runs import kept_set, loss_of, order, record, train

pytestmark = needs_gloo

N, EPOCH, BATCH = 3001, 2, 16
WORLDS = (1, 2, 3, 4)
KINDS: dict[str, dict[str, Any]] = {
    "mean": {},
    "tiers": {"policy": QuantileTiers(), "shard": "contiguous", "drop_last": True},
}
STEPS = {"unplanned": -1, "planned": 0, "first": 1, "middle": 20, "all": 10**6}  # of epoch 2, before the checkpoint
CUTS = [("mean", name) for name in STEPS] + [("tiers", "middle")]


def make(kind: str, **kwargs: Any) -> InfoBatch:
    return InfoBatch(N, 9, delta=1.0, seed=3, **KINDS[kind], **kwargs)


def member(group: Any) -> dict[str, Any]:
    return {"process_group": group, "num_replicas": dist.get_world_size(group), "rank": dist.get_rank(group)}


def cut(pruner: InfoBatch, steps: int) -> list[int]:
    """Two epochs, and the first steps of the third; what it visits in that one."""
    for epoch in range(EPOCH):
        pruner.set_epoch(epoch)
        train(pruner, BATCH)
    pruner.set_epoch(EPOCH)
    return train(pruner, BATCH, steps) if steps >= 0 else []


def facts(pruner: InfoBatch) -> dict[str, Any]:
    """What this rank decided in the current epoch."""
    stats, ids = pruner.stats, own_ids(pruner)
    decided = (stats.epoch, stats.thresholds, stats.seen, stats.kept, stats.tier_sizes, stats.tier_kept, stats.total_saved_fraction)
    return {
        "decided": decided,
        "kept": kept_here(pruner),
        "weights": list(zip(ids.tolist(), pruner.weights(ids).tolist(), strict=True)),
    }


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
            scores = pruner._table.scores.cpu().clone()
            if name != "unplanned":
                seen["saved", kind, name, world] = facts(pruner) | {"visited": visited, "scores": scores}
        dist.barrier()
        for world in worlds:
            for target, group in mine.items():
                pruner = make(kind, device=device, **member(group))
                dcp.load({"pruner": pruner}, checkpoint_id=f"{folder}/{kind}-{name}-{world}", process_group=group)
                restored = pruner._table.scores.cpu().clone()
                pruner.set_epoch(0)  # which some trainers send after a restart, and has no effect
                pruner.set_epoch(EPOCH)
                result = facts(pruner) | {"available": pruner._epochs.plan().available, "scores": restored}
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


def test_every_number_of_ranks_goes_on_from_every_other_ones_checkpoint(tmp_path: Path) -> None:
    ranks = run_ranks(4, save_and_load_everywhere, str(tmp_path), "cpu", WORLDS, seconds=120)
    for kind, name in CUTS:
        for source in WORLDS:
            for target in WORLDS:
                check_restart(ranks, kind, name, source, target)


@pytest.mark.parametrize("kind", BACKENDS[1:], ids=str)
def test_gpus_go_on_from_each_others_checkpoints(tmp_path: Path, kind: tuple[str, str]) -> None:
    backend, device = kind
    ranks = run_ranks(2, save_and_load_everywhere, str(tmp_path), device, (1, 2), backend=backend, seconds=120)
    for source in (1, 2):
        for target in (1, 2):
            check_restart(ranks, "mean", "middle", source, target)


def repeat_and_compare(folder: str) -> None:
    """The same number of ranks goes on bit for bit, and again after a second restart in the same epoch."""
    pruner = make("mean")
    cut(pruner, 20)
    with pytest.MonkeyPatch.context() as patch:
        collectives = Collectives(patch)
        state = {name: local_value(value) for name, value in pruner.state_dict().items()}
        assert {name: local_value(value) for name, value in pruner.state_dict().items()} == state
        assert not collectives.calls
    dcp.save({"pruner": pruner}, checkpoint_id=folder + "/first")
    whole = order(pruner)

    for steps in (0, 7):
        again = make("mean")
        dcp.load({"pruner": again}, checkpoint_id=folder + "/first")
        assert order(again) == whole[20 * BATCH :]
        train(again, BATCH, steps)
        dcp.save({"pruner": again}, checkpoint_id=f"{folder}/second-{steps}")
        last = make("mean")
        dcp.load({"pruner": last}, checkpoint_id=f"{folder}/second-{steps}")
        assert train(last, BATCH) == whole[(20 + steps) * BATCH :]
    record(pruner, whole[20 * BATCH :], loss_of(torch.tensor(whole[20 * BATCH :]), EPOCH))
    for each in (pruner, last):
        each.set_epoch(EPOCH + 1)
        len(each.sampler)
    assert [local_value(value) for value in pruner.state_dict().values()] == [local_value(v) for v in last.state_dict().values()]


def test_the_same_ranks_go_on_bit_for_bit_after_restarts_in_one_epoch(tmp_path: Path) -> None:
    run_ranks(3, repeat_and_compare, str(tmp_path))


def save_while_training(folder: str) -> None:
    pruner = make("mean")
    cut(pruner, 20)
    whole, state = order(pruner), {name: local_value(value) for name, value in pruner.state_dict().items()}
    writing = dcp.async_save({"pruner": pruner}, checkpoint_id=folder)
    rest = whole[20 * BATCH :]
    record(pruner, rest, -loss_of(torch.tensor(rest)))
    writing.result()
    restored = make("mean")
    dcp.load({"pruner": restored}, checkpoint_id=folder)
    assert {name: local_value(value) for name, value in restored.state_dict().items()} == state
    assert order(restored) == rest


def test_an_asynchronous_checkpoint_holds_the_state_of_its_moment(tmp_path: Path) -> None:
    run_ranks(2, save_while_training, str(tmp_path))


def load_plain(path: str) -> dict[str, Any]:
    pruner = make("mean")
    pruner.load_state_dict(torch.load(path, weights_only=True))
    return facts(pruner) | {"available": pruner._epochs.plan().available, "rest": train(pruner, BATCH)}


@pytest.mark.parametrize("world", [1, 3])
def test_what_torch_save_wrote_on_one_process_loads_on_any_number_of_ranks(tmp_path: Path, world: int) -> None:
    pruner, path = make("mean"), str(tmp_path / "state.pt")
    visited = cut(pruner, 20)
    torch.save(pruner.state_dict(), path)
    ranks = run_ranks(world, load_plain, path)
    rest = flat(rank["rest"][: rank["available"]] for rank in ranks)
    kept = kept_set(pruner)
    assert sorted(visited + rest) == kept
    assert sorted(flat(rank["kept"] for rank in ranks)) == kept


def refuse_misfits(folder: str) -> dict[str, str]:
    pruner = InfoBatch(N, 9, delta=1.0, seed=3)
    train(pruner, BATCH)
    dcp.save({"pruner": pruner}, checkpoint_id=folder + "/whole")
    misfits: dict[str, dict[str, Any]] = {
        "seed": {"seed": 4},
        "shuffle": {"seed": 3, "shuffle": False},
        "shard": {"seed": 3, "shard": "contiguous"},
        "larger": {"seed": 3, "data_source": N + 8},
        "smaller": {"seed": 3, "data_source": N - 8},
    }
    messages = {}
    for name, arguments in misfits.items():
        other = InfoBatch(**{"data_source": N, "num_epochs": 9, "delta": 1.0, **arguments})
        messages[name] = error_of(lambda other=other: dcp.load({"pruner": other}, checkpoint_id=folder + "/whole"))
        assert torch.isnan(other._table.scores).all()  # as new
        assert (other.epoch, other.stats.seen) == (0, 0)
        assert len(train(other, BATCH)) > 0
    part = Path(folder) / "part"
    if dist.get_rank() == 0:
        shutil.copytree(folder + "/whole", part)
        (part / "__1_0.distcp").unlink()
    dist.barrier()
    damaged = InfoBatch(N, 9, delta=1.0, seed=3)
    messages["part"] = error_of(lambda: dcp.load({"pruner": damaged}, checkpoint_id=str(part)))
    return messages


def test_a_checkpoint_that_does_not_fit_is_refused_on_all_ranks(tmp_path: Path) -> None:
    for messages in run_ranks(2, refuse_misfits, str(tmp_path)):
        assert "state has seed=3, this pruner 4: construct InfoBatch with the seed of the saved run" in messages["seed"]
        assert "state has shuffle=True, this pruner False" in messages["shuffle"]
        assert "state has shard='scattered', this pruner 'contiguous'" in messages["shard"]
        for name in ("larger", "smaller"):
            assert "nothing was raised" not in messages[name]
            assert str(N) in messages[name], messages[name]
        assert "__1_0.distcp" in messages["part"]


def save_on_mesh(folder: str) -> list[int]:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    pruner = make("mean", process_group=mesh["dp"].get_group())
    visited = cut(pruner, 20)
    dcp.save({"pruner": pruner}, checkpoint_id=folder)
    restored = make("mean", process_group=mesh["dp"].get_group())
    dcp.load({"pruner": restored}, checkpoint_id=folder)
    assert order(restored) == order(pruner)[20 * BATCH :]
    return visited


def load_alone(folder: str) -> list[int]:
    pruner = make("mean")
    dcp.load({"pruner": pruner}, checkpoint_id=folder)
    return train(pruner, BATCH)


def test_ranks_of_one_model_save_their_pruners_state_once(tmp_path: Path) -> None:
    """Two data-parallel by two tensor-parallel ranks; one process goes on with what they saved."""
    first, twin, second, _ = run_ranks(4, save_on_mesh, str(tmp_path))
    assert first == twin
    assert sum(file.stat().st_size for file in tmp_path.glob("*.distcp")) < 1.5 * 4.5 * N + 2**16
    (rest,) = run_ranks(1, load_alone, str(tmp_path))
    assert not {*first, *second} & set(rest)
    (whole,) = run_ranks(1, kept_in_third_epoch)
    assert sorted({*first, *second, *rest}) == whole


def kept_in_third_epoch() -> list[int]:
    pruner = make("mean")
    cut(pruner, 0)
    return kept_set(pruner)
