"""Checkpoints of several ranks, in all ways: twice in one epoch, asynchronous, from one process, of meshes, and misfits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh

from infobatch_fast import InfoBatch
from support.cut_runs import BATCH, EPOCH, N, cut, facts, make
from support.ranks import Collectives, error_of, flat, local_value, needs_gloo, run_ranks
from support.runs import kept_set, loss_of, order, record, train

pytestmark = needs_gloo


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
    return facts(pruner) | {"available": pruner.engine.epochs.plan().available, "rest": train(pruner, BATCH)}


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
        assert torch.isnan(other.engine.table.scores).all()  # as new
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
