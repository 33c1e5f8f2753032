"""Who owns which samples, and what ranks tell each other."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256

import torch
import torch.distributed as dist

from . import ops
from .checks import check_int
from .marks import rows_of

PATIENCE = 20.0  # seconds of waiting for other ranks, after which a rank says for what


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
    _told: list[str] = field(default_factory=list, compare=False, repr=False)

    @contextmanager
    def waiting_for(self, what: str) -> Iterator[None]:
        """Wraps a collective call: a rank that waits long for the others warns, once per run, and keeps waiting."""
        if self.num_replicas == 1:
            yield
            return
        timer = threading.Timer(PATIENCE, self._tell_of_waiting, [what])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _tell_of_waiting(self, what: str) -> None:
        if self._told:
            return
        self._told.append(what)
        warnings.warn(
            f"rank {self.rank} of {self.num_replicas} has waited {PATIENCE:g} s for the other ranks at {what}, and keeps waiting "
            "until the process group's timeout. If another rank validates or saves alone, it is only late. Otherwise one rank "
            "makes a collective call alone, for instance under `if rank == 0`, or iterates once more: make the call on all ranks, "
            "and print on one. In each epoch the first of these calls makes the plan and is collective: the first batch of the "
            "sampler, len(sampler), len(loader), update, weigh, weights, is_kept, scores(index), stats, steps. grow and histogram "
            "are always collective",
            RuntimeWarning,
            stacklevel=2,
        )

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Adds up an integer tensor over all ranks, in place."""
        if self.num_replicas > 1:
            sent = tensor.to(self._meeting_device(tensor.device))
            dist.all_reduce(sent, group=self.group)
            tensor.copy_(sent)
        return tensor

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Stacks the 1-D tensors of all ranks: [num_replicas, len(tensor)]."""
        if self.num_replicas == 1:
            return tensor[None]
        sent = tensor.to(self._meeting_device(tensor.device))
        stacked = [torch.empty_like(sent) for _ in range(self.num_replicas)]
        dist.all_gather(stacked, sent, group=self.group)
        return torch.stack(stacked).to(tensor.device)

    def collect(self, tensor: torch.Tensor, sizes: list[int]) -> torch.Tensor | None:
        """Joins 1-D tensors of all ranks, of ``sizes`` elements, in a copy on the CPU of the first rank; None on the others."""
        meeting = self._meeting_device(tensor.device) if self.num_replicas > 1 else tensor.device
        if self.rank > 0:
            dist.send(tensor.to(meeting), self._global_rank(0), group=self.group)
            return None
        parts = [tensor.to("cpu", copy=True)]
        for rank in range(1, self.num_replicas):
            received = torch.empty(sizes[rank], dtype=tensor.dtype, device=meeting)
            dist.recv(received, self._global_rank(rank), group=self.group)
            parts.append(received.cpu())
        return torch.cat(parts)

    def _global_rank(self, rank: int) -> int:
        group = self.group or dist.group.WORLD
        assert group is not None
        return dist.get_global_rank(group, rank)

    def broadcast(self, tensor: torch.Tensor, rank: int) -> torch.Tensor:
        """The tensor of ``rank``. The tensors of other ranks have the same shape and dtype, and are not changed."""
        if self.num_replicas == 1:
            return tensor
        sent = tensor.to(self._meeting_device(tensor.device), copy=True)
        dist.broadcast(sent, self._global_rank(rank), group=self.group)
        return sent.to(tensor.device)

    def _meeting_device(self, device: torch.device) -> torch.device:
        """The device on which the group takes tensors: the table's, or else that of the group's backend (NCCL: a GPU).

        Gloo claims to take tensors of a GPU, but reads their addresses as if they were host memory.
        """
        config = str(dist.get_backend_config(self.group))  # "cpu:gloo,cuda:nccl"
        backends = {kind: backend for kind, _, backend in (entry.partition(":") for entry in config.split(","))}
        if "cpu" in backends and backends.get(device.type, "gloo") == "gloo":
            return torch.device("cpu")
        return device if device.type in backends else torch.device(next(iter(backends)))

    def agree(self, settings: dict[str, str], device: torch.device, done: str = "InfoBatch was constructed") -> None:
        """Makes sure that the settings are the same on all ranks. ``done`` says in the error where they were given.

        Raises:
            RuntimeError: They differ. Every rank raises it; the message names each setting that differs, and its values.
        """
        if self.num_replicas == 1:
            return
        digests = [int.from_bytes(sha256(value.encode()).digest()[:7], "big") for value in settings.values()]
        of_rank = self.gather(torch.tensor(digests, dtype=torch.int64, device=device)).tolist()
        if all(digest == of_rank[0] for digest in of_rank):
            return
        everyone: list[dict[str, str]] = [{} for _ in range(self.num_replicas)]
        dist.all_gather_object(everyone, settings, group=self.group)
        differing = {
            name: {rank: other.get(name) for rank, other in enumerate(everyone)}
            for name in settings
            if len({other.get(name) for other in everyone}) > 1
        }
        raise RuntimeError(f"{done} differently on the ranks; by rank: {differing}. Pass the same values on all ranks")

    def shard(self, num_samples: int) -> tuple[int, int]:
        """First slot and number of slots that this rank owns.

        Ranks get whole rows of eight slots, as evenly as possible, so that no two ranks share a Philox block.
        """
        rows = rows_of(num_samples)
        first = self.rank * rows // self.num_replicas * ops.ROW_SLOTS
        last = (self.rank + 1) * rows // self.num_replicas * ops.ROW_SLOTS
        return first, min(last, num_samples) - first


def find_ranks(num_replicas: int | None, rank: int | None, group: dist.ProcessGroup | None) -> Ranks:
    """The arguments of ``InfoBatch``, completed from the process group as ``DistributedSampler`` does.

    Raises:
        ValueError: ``rank`` is not in [0, num_replicas - 1], or there is no process group of ``num_replicas`` ranks.
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
                f"num_replicas={num_replicas} needs a process group, in which ranks agree on the threshold: start the ranks "
                "with torchrun and call torch.distributed.init_process_group() before InfoBatch(...)"
            )
        if dist.get_world_size(group) != num_replicas:
            raise ValueError(
                f"num_replicas={num_replicas} does not fit the process group of {dist.get_world_size(group)} ranks: pass the "
                "data-parallel group as process_group"
            )
        if dist.get_rank(group) != rank:
            raise ValueError(
                f"rank={rank}, but this process is rank {dist.get_rank(group)} of the process group: leave rank out, or pass the "
                "right group as process_group"
            )
    return Ranks(num_replicas, rank, group)
