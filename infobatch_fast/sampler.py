"""The samplers that a DataLoader takes. They yield the plan's indices and hold nothing but a position."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch.utils.data import DistributedSampler

from .engine.checks import check_int
from .engine.chunks import CHUNK, Ids
from .engine.engine import Engine
from .engine.places import LAST_EPOCH, Place, Reached
from .engine.sources import what_changed

RUN = 1 << 10  # ints that exist at a time: fewer than a cache holds, so each takes the memory that another has just left


@dataclass
class _Progress:
    """Where the newest iterator is: in a piece that began at ``first``. The elements still left tell how many were taken.

    ``check`` raises, as ``Piece.check`` does, if this iterator is no longer the newest.
    """

    iteration: object
    check: Callable[[], None]
    first: int
    end: int
    elements: int
    left: Iterator[Any]

    def reached(self, unit: int) -> Reached:
        position = self.first + (self.elements - operator.length_hint(self.left)) * unit
        return Reached(self.iteration, min(position, self.end))


class _PlanSampler(DistributedSampler[Any]):
    """What both samplers share: the interface of ``DistributedSampler``, which trainers leave alone, and the position in the epoch.

    ``DistributedSampler.__init__`` is not called: it would fix the lengths at construction, and here they follow the plan.

    Attributes:
        engine: The pruner's engine. A sampler may outlive the pruner.
        check_loader: Called with the sampler when an iteration begins, so that a trainer's module can refuse a loader that would go
            wrong.
    """

    _unit = 1  # indices in an element

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.check_loader: Callable[[_PlanSampler], None] | None = None
        self._resume: Place | None = None  # where the next iteration begins
        self._progress: _Progress | None = None

    @property
    def dataset(self) -> Sized | int:  # type: ignore[override]
        """The data source of the pruner."""
        return self.engine.data_source

    @property
    def num_replicas(self) -> int:  # type: ignore[override]
        """Number of data-parallel ranks."""
        return self.engine.ranks.num_replicas

    @property
    def rank(self) -> int:  # type: ignore[override]
        """The number of this rank, from 0."""
        return self.engine.ranks.rank

    @property
    def epoch(self) -> int:  # type: ignore[override]
        """The current epoch: the number of its plan."""
        return self.engine.epochs.epoch

    @property
    def seed(self) -> int:  # type: ignore[override]
        """The pruner's seed."""
        return self.engine.settings.seed

    @property
    def shuffle(self) -> bool:  # type: ignore[override]
        """Whether samples come in a new random order each epoch."""
        return self.engine.settings.shuffle

    @property
    def num_samples(self) -> int:  # type: ignore[override]
        """Indices on this rank in the iteration that is under way or comes next."""
        return self.engine.epochs.length()

    @property
    def total_size(self) -> int:  # type: ignore[override]
        """As ``num_samples``, for all ranks together."""
        return self.engine.epochs.length() * self.num_replicas

    def is_stale(self) -> bool:
        """Whether the newest iteration began under a plan that is no longer in force."""
        return self._progress is not None and not self.engine.epochs.is_running(self._progress.iteration)

    def set_epoch(self, epoch: int) -> None:
        """Selects an epoch, as ``InfoBatch.set_epoch`` does; trainers call it here."""
        self.engine.epochs.select(epoch)

    def state_dict(self) -> dict[str, int]:
        """Epoch and position, the same few bytes on every rank. The scores are in ``InfoBatch.state_dict``.

        With ``steps_per_epoch``, ``epoch`` counts plans, and ``drawn`` counts all indices that were yielded before.
        """
        reached = None if self._progress is None else self._progress.reached(self._unit)
        return self.engine.epochs.place(self._resume, reached)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Makes the next iteration, and only that one, resume at a position. The end of an epoch resumes at the next epoch.

        A pruner that was itself restored knows which samples were visited and leaves out just those. The position is then not
        applied a second time.

        Raises:
            ValueError: ``state`` is not what this sampler's ``state_dict`` returns.
        """
        if not isinstance(state, dict) or not {"epoch", "position"} <= state.keys():
            raise ValueError(f"state must be what a sampler's state_dict() returned, with epoch and position, got {state!r}")
        position, drawn = (check_int(f"state[{name!r}]", state.get(name, 0), 0) for name in ("position", "drawn"))
        self._resume = Place(check_int("state['epoch']", state["epoch"], 0, LAST_EPOCH), position, drawn)
        self.engine.epochs.go_on_at(self._resume)

    def _pieces(self, size: int) -> Iterator[tuple[Ids, _Progress]]:
        """The next iteration in pieces of ``size`` indices, each with its progress, which the caller fills in."""
        if self.check_loader is not None:
            self.check_loader(self)
        with self.engine.epochs.changing:
            changed = what_changed(self.engine.data_source, self.engine.table.num_samples)
        if changed is not None:
            self.engine.epochs.notices.tell("a changed data source", changed)
        for iteration, check, first, end, ids in self.engine.epochs.pieces(self._resume, size, self._unit, self.drop_last):
            progress = _Progress(iteration, check, first, end, 0, iter(()))
            self._resume, self._progress = None, progress
            yield ids, progress


class InfoBatchSampler(_PlanSampler):
    """Yields the indices of the current epoch's plan, for ``DataLoader(sampler=...)``. Made by ``InfoBatch``.

    ``len`` is exact before iteration. Iterating twice, peeking or breaking off changes nothing. After an exhausted iteration, the
    next one belongs to the next epoch, unless ``set_epoch`` is called.
    """

    @property
    def drop_last(self) -> bool:  # type: ignore[override]
        """Whether longer ranks are cut."""
        return self.engine.settings.drop_last

    def __len__(self) -> int:
        return self.engine.epochs.length()

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self._runs())  # an id through a generator of our own would cost 17 ns more

    def _runs(self) -> Iterator[Iterator[int]]:
        for ids, progress in self._pieces(CHUNK):
            for first in range(0, len(ids), RUN):
                progress.check()
                run = ids[first : first + RUN].tolist()
                progress.elements, progress.left = first + len(run), iter(run)
                yield progress.left

    def indices(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Returns positions [start, stop) of the epoch's order as a tensor, for loaders that take index arrays.

        Args:
            start: First position, at least 0.
            stop: End, at most ``len(self)``, which is also the default.

        Returns:
            int64 [stop - start], on the pruner's device: the indices that iteration yields there.

        Raises:
            ValueError: Not 0 <= start <= stop <= len.
            RuntimeError: The pruner has ``steps_per_epoch``.
        """
        return self.engine.epochs.order(start, stop)

    def batches(self, batch_size: int, drop_last: bool = False) -> InfoBatchBatchSampler:
        """The same order in lists of ``batch_size`` ints, for ``DataLoader(batch_sampler=...)``. It is faster than torch's own.

        Args:
            batch_size: At least 1.
            drop_last: Leave out a smaller last batch.

        Raises:
            TypeError: ``batch_size`` is not an int.
            ValueError: ``batch_size`` is less than 1, or differs from the one that was given with ``steps_per_epoch``.
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
        super().__init__(sampler.engine)
        self.sampler = sampler
        self.batch_size = self._unit = self.engine.settings.lengths.check_batch_size(batch_size)
        self.drop_last = drop_last

    def __len__(self) -> int:
        length = self.engine.epochs.length()
        return length // self.batch_size if self.drop_last else -(-length // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        size = self.batch_size
        for ids, progress in self._pieces(max(1, CHUNK // size) * size):
            batches = [ids[first : first + size] for first in range(0, len(ids), size)]
            if self.drop_last and batches and len(batches[-1]) < size:
                batches.pop()
                if not batches and progress.first == 0:
                    self._warn_of_no_batch(len(ids))
            progress.elements, progress.left = len(batches), iter(batches)
            epochs, iteration = self.engine.epochs, progress.iteration
            for batch in progress.left:
                if epochs.running is not iteration:  # asked here, as a call would cost as much as a small batch
                    progress.check()
                yield batch.tolist()

    def _warn_of_no_batch(self, indices: int) -> None:
        plan = self.engine.epochs.plan_in_force
        if plan is not None and not plan.restored:  # of one that goes on after a restart, the rest may be small
            self.engine.epochs.notices.tell(
                "no batch",
                f"epoch {plan.epoch} has {indices} indices per rank, fewer than batch_size={self.batch_size}, so drop_last leaves "
                "no batch: leave drop_last out, or take a smaller batch_size",
            )
