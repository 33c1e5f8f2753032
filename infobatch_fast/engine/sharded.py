"""Tables in checkpoints: each rank writes and reads its own part of one tensor."""

from __future__ import annotations

import torch
import torch.distributed as dist

from .odd import is_sharded
from .ranks import Ranks


def shared_tensor(local: torch.Tensor, first: int, total: int, ranks: Ranks) -> torch.Tensor:
    """This rank's part [first, first + len(local)) of a 1-D tensor of ``total`` elements, as ``torch.distributed.checkpoint``
    wants it: a DTensor over the ranks, without a copy. One rank has a plain tensor.

    Parts are of nearly equal and not of DTensor's own sizes, hence the wrapper, which carries their offsets.
    """
    if ranks.num_replicas == 1:
        return local
    # Here and not above: these imports take seconds, and one rank never needs them.
    from torch.distributed.device_mesh import DeviceMesh  # noqa: PLC0415
    from torch.distributed.tensor import DTensor, Shard  # noqa: PLC0415
    from torch.distributed.tensor._shards_wrapper import LocalShardsWrapper  # noqa: PLC0415

    group = ranks.group or dist.group.WORLD
    assert group is not None
    mesh = DeviceMesh.from_group(group, local.device.type)
    wrapped = LocalShardsWrapper([local], [(first,)])
    return DTensor.from_local(wrapped, mesh, [Shard(0)], run_check=False, shape=torch.Size([total]), stride=(1,))


def local_part(value: torch.Tensor, first: int, length: int, total: int) -> torch.Tensor | None:
    """Elements [first, first + length) of a whole tensor, or of one that ``shared_tensor`` made; None if they are not there."""
    if is_sharded(value):
        wrapped = value.to_local()  # type: ignore[attr-defined]
        if value.shape != (total,) or not hasattr(wrapped, "local_offsets"):
            return None
        same = wrapped.local_offsets() == [(first,)] and wrapped.local_sizes() == [(length,)]
        shards: list[torch.Tensor] = wrapped.local_shards()
        return shards[0] if same else None
    return value[first : first + length] if value.shape == (total,) else None
