"""The samplers that a DataLoader takes. They yield the plan's indices and hold nothing but a position."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DistributedSampler

from .engine.checks import check_int
from .engine.chunks import CHUNK, Ids, read_chunks
from .engine.epochs import Place
from .engine.flow import NOTHING, Flow

if TYPE_CHECKING:
    from .pruner import InfoBatch


RUN = 1 << 10  # ints that exist at a time: fewer than a cache holds, so each takes the memory that another has just left


@dataclass
class _Progress:
    """Where the newest iterator is: in a chunk that began at ``first``. Elements taken from it are told from those left.

    ``owner`` is the token of the plan that is iterated, or the iteration where plans follow each other, and places count through
    all of them.
    """

    owner: object
    first: int
    end: int
    elements: int
    chunk: Iterator[Any]

    def position(self, unit: int) -> int:
        return min(self.first + (self.elements - operator.length_hint(self.chunk)) * unit, self.end)


@dataclass
class Reading:
    """Where a sampler is. The pruner has that of its own sampler, and not the sampler, which has the pruner: neither keeps the
    other alive, and the memory of both is free as soon as nobody uses them.
    """

    resume: Place | None = None  # where the next iteration begins
    progress: _Progress | None = None


class _PlanSampler(DistributedSampler[Any]):
    """What both samplers share: the face of ``DistributedSampler``, which trainers leave alone, and the position in the epoch.

    ``DistributedSampler.__init__`` is not called: its lengths are fixed at construction, and here they follow the plan.
    """

    def __init__(self, pruner: InfoBatch, reading: Reading) -> None:
        self._pruner, self._epochs, self._reading = pruner, pruner._epochs, reading

    def __copy__(self) -> _PlanSampler:
        """A sampler that goes on by itself from where this one is."""
        made = object.__new__(type(self))
        made.__dict__ = self.__dict__ | {"_reading": replace(self._reading)}
        return made

    dataset = property(lambda self: self._pruner.data_source)
    num_replicas = property(lambda self: self._pruner.num_replicas)
    rank = property(lambda self: self._pruner.rank)
    epoch = property(lambda self: self._pruner.epoch)
    seed = property(lambda self: self._pruner.seed)
    shuffle = property(lambda self: self._pruner.shuffle)
    num_samples = property(lambda self: self._epochs.length())
    total_size = property(lambda self: self._epochs.length() * self._pruner.num_replicas)

    def is_stale(self) -> bool:
        """Whether the newest iteration began under a plan that is not in force any more."""
        if self._reading.progress is None:
            return False
        owner = self._reading.progress.owner
        return not (self._epochs.is_running(owner) if isinstance(self._epochs, Flow) else self._epochs.is_current(owner))

    def set_epoch(self, epoch: int) -> None:
        """Passed on to ``InfoBatch.set_epoch``: trainers call it here."""
        self._pruner.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """Epoch and position, the same few bytes on every rank. The scores are in ``InfoBatch.state_dict``.

        Where epochs are of constant length or endless, ``epoch`` counts plans, and ``drawn`` all indices that came before.
        """
        progress, resume = self._reading.progress, self._reading.resume
        if isinstance(self._epochs, Flow):
            runs = progress is not None and self._epochs.is_running(progress.owner)
            return self._epochs.place(progress.position(self._unit) if progress and runs else self._epochs.drawn)
        position = 0
        if resume is not None and resume.epoch == self._pruner.epoch:
            position = resume.position
        elif progress is not None and self._epochs.is_current(progress.owner):
            position = progress.position(self._unit)
        return {"epoch": self._pruner.epoch, "position": position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on at a position, once, in the next iteration; at the end of an epoch, with the next one.

        A pruner that was itself restored knows which samples were visited and leaves out just those, so the position is then
        not applied a second time.

        Raises:
            ValueError: ``state`` is not one of this sampler's.
        """
        if not isinstance(state, dict) or not {"epoch", "position"} <= state.keys():
            raise ValueError(f"state must be what a sampler's state_dict() returned, with epoch and position, got {state!r}")
        position, drawn = (check_int(f"state[{name!r}]", state.get(name, 0), 0) for name in ("position", "drawn"))
        self._reading.resume = Place(state["epoch"], position, drawn)
        self._epochs.go_on_at(self._reading.resume)

    _unit = 1  # indices in an element that a chunk yields

    def _chunks(self, size: int) -> Iterator[tuple[Ids, _Progress]]:
        """The epoch's indices in pieces of ``size``, and a note of where they stand. The plan is made at the first piece."""
        if isinstance(self._epochs, Flow):
            yield from self._flow(self._epochs, size)
            return
        plan, start = self._epochs.begin(self._reading.resume)
        self._reading.resume = None
        for first, end, ids in read_chunks(plan, start, size):
            self._reading.progress = _Progress(plan.token, first, end, 0, iter(()))
            yield ids, self._reading.progress
            if end < plan.length and not self._epochs.is_current(plan.token):
                raise RuntimeError(
                    f"this iterator belongs to epoch {plan.epoch}, but the sampler has moved on to epoch {self._epochs.epoch}: "
                    "start a new iteration after set_epoch() or load_state_dict()"
                )
        if self._epochs.is_current(plan.token):  # at the end, also where a last batch was dropped
            self._reading.progress = _Progress(plan.token, plan.length, plan.length, 0, iter(()))
        yielded = plan.length - start
        self._epochs.end(plan, yielded - yielded % self._unit if self.drop_last else yielded)

    def _flow(self, flow: Flow, size: int) -> Iterator[tuple[Ids, _Progress]]:
        """The same where plans follow each other: whole batches, of which some begin in one plan and end in the next."""
        iteration, left = flow.begin_iteration()
        rest = NOTHING
        while left > 0:
            ids = np.concatenate([rest, flow.draw(int(min(size, left)) - len(rest))])
            first, whole = flow.drawn - len(ids), len(ids) - len(ids) % self._unit
            ids, rest = ids[:whole], ids[whole:]
            if not whole:
                continue
            left -= whole
            self._reading.progress = _Progress(iteration, first, first + whole, 0, iter(()))
            yield ids, self._reading.progress
            if left > 0 and not flow.is_running(iteration):
                raise RuntimeError(
                    "this iterator was followed by another one, or by load_state_dict(): take the batches of one iterator at a time"
                )
        flow.end_iteration(iteration)


class InfoBatchSampler(_PlanSampler):
    """Yields the indices of the current epoch's plan, for ``DataLoader(sampler=...)``. Made by ``InfoBatch``.

    ``len`` is exact before iteration. Iterating twice, peeking or breaking off changes nothing; when an iteration was exhausted
    and nobody calls ``set_epoch``, the next one is of the next epoch.
    """

    drop_last = property(lambda self: self._pruner.drop_last)

    def __len__(self) -> int:
        return self._epochs.length()

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self._runs())  # an id through a generator of our own would cost 17 ns more

    def _runs(self) -> Iterator[Iterator[int]]:
        for ids, progress in self._chunks(CHUNK):
            for first in range(0, len(ids), RUN):
                run = ids[first : first + RUN].tolist()
                progress.elements, progress.chunk = first + len(run), iter(run)
                yield progress.chunk

    def indices(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Positions [start, stop) of the epoch's order as a tensor, for loaders that take index arrays.

        Args:
            start: First position, at least 0.
            stop: End, at most ``len(self)``, which is also the default.

        Returns:
            int64 [stop - start], on the pruner's device: what iteration yields there.

        Raises:
            ValueError: Not 0 <= start <= stop <= len.
            RuntimeError: The pruner has ``steps_per_epoch``.
        """
        if isinstance(self._epochs, Flow):
            raise RuntimeError(
                "indices() needs epochs of one plan each, and with steps_per_epoch plans follow each other: iterate over "
                "sampler.batches(batch_size), or construct InfoBatch without steps_per_epoch"
            )
        length = self._epochs.length()
        start = check_int("start", start, 0, length)
        stop = length if stop is None else check_int("stop", stop, start, length)
        return self._epochs.plan().order(start, stop)

    def batches(self, batch_size: int, drop_last: bool = False) -> InfoBatchBatchSampler:
        """The same order as lists of ``batch_size`` ints, for ``DataLoader(batch_sampler=...)``: faster than torch's own.

        Args:
            batch_size: At least 1.
            drop_last: Leave out a last batch that is smaller.

        Raises:
            ValueError: ``batch_size`` is not an int of at least 1, or not the one that ``steps_per_epoch`` was given for.
        """
        return InfoBatchBatchSampler(self, batch_size, drop_last)


class InfoBatchBatchSampler(_PlanSampler):
    """Yields lists of indices of the current epoch's plan. Made by ``InfoBatchSampler.batches``.

    Attributes:
        sampler: The sampler whose order it yields.
        batch_size: Indices in a batch.
        drop_last: Whether a smaller last batch is left out.
    """

    def __init__(self, sampler: InfoBatchSampler, batch_size: int, drop_last: bool = False) -> None:
        if not isinstance(sampler, InfoBatchSampler):
            raise TypeError(
                f"sampler must be an InfoBatchSampler, got {type(sampler).__name__}: something tried to rebuild this batch "
                "sampler around another sampler, which would undo the pruning. With Lightning pass DataLoader("
                "sampler=pruner.sampler, batch_size=...), or Trainer(use_distributed_sampler=False)"
            )
        batch_size = sampler._pruner.lengths.check_batch_size(batch_size)
        super().__init__(sampler._pruner, Reading())
        self.sampler = sampler
        self.batch_size = self._unit = batch_size
        self.drop_last = drop_last

    def __len__(self) -> int:
        length = self._epochs.length()
        return length // self.batch_size if self.drop_last else -(-length // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        size = self.batch_size
        for ids, progress in self._chunks(max(1, CHUNK // size) * size):
            batches = [ids[first : first + size] for first in range(0, len(ids), size)]
            if self.drop_last and len(batches[-1]) < size:
                batches.pop()
            progress.elements, progress.chunk = len(batches), iter(batches)
            for batch in progress.chunk:
                yield batch.tolist()
