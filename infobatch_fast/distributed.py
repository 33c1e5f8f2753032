"""Who owns which samples, and what ranks tell each other."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from . import ops
from .checks import check_int


@dataclass(frozen=True)
class Ranks:
    """The data-parallel ranks that share a data set, and this one's place among them.

    Args:
        num_replicas: Number of ranks, at least 1.
        rank: This one, in [0, num_replicas).
        group: Their process group; None with several ranks means the default group.
    """

    num_replicas: int = 1
    rank: int = 0
    group: dist.ProcessGroup | None = field(default=None, compare=False)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Adds up an integer tensor over all ranks, in place."""
        if self.num_replicas > 1:
            dist.all_reduce(tensor, group=self.group)
        return tensor

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Stacks the 1-D tensors of all ranks: [num_replicas, len(tensor)]."""
        if self.num_replicas == 1:
            return tensor[None]
        stacked = [torch.empty_like(tensor) for _ in range(self.num_replicas)]
        dist.all_gather(stacked, tensor, group=self.group)
        return torch.stack(stacked)

    def shard(self, num_samples: int) -> tuple[int, int]:
        """First slot and number of slots that this rank owns.

        Whole rows of eight slots are dealt out, as evenly as they go: no Philox block is shared by two ranks.
        """
        rows = -(-num_samples // ops.ROW_SLOTS)
        first = self.rank * rows // self.num_replicas * ops.ROW_SLOTS
        last = (self.rank + 1) * rows // self.num_replicas * ops.ROW_SLOTS
        return first, min(last, num_samples) - first


def find_ranks(num_replicas: int | None, rank: int | None, group: dist.ProcessGroup | None) -> Ranks:
    """The arguments of ``InfoBatch``, completed from the process group as ``DistributedSampler`` does.

    Raises:
        ValueError: ``rank`` is not in [0, num_replicas - 1], or several ranks are asked for without a process group that has them.
    """
    connected = dist.is_available() and dist.is_initialized()
    if num_replicas is None:
        num_replicas = dist.get_world_size(group) if connected else 1
    if rank is None:
        rank = dist.get_rank(group) if connected and num_replicas > 1 else 0
    num_replicas = check_int("num_replicas", num_replicas, 1)
    rank = check_int("rank", rank, 0, num_replicas - 1)
    if num_replicas > 1:
        if not connected:
            raise ValueError(
                f"num_replicas={num_replicas} needs a process group, by which ranks agree on the threshold: start the ranks "
                "with torchrun and call torch.distributed.init_process_group() before InfoBatch(...)"
            )
        if dist.get_world_size(group) != num_replicas:
            raise ValueError(
                f"num_replicas={num_replicas} does not fit the process group of {dist.get_world_size(group)} ranks: pass the "
                "data-parallel group as process_group"
            )
    return Ranks(num_replicas, rank, group)
