"""Streams: an iterable data set yields only the samples that the current plan keeps, in worker processes too."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from .engine.engine import Engine
from .engine.marks import KEPT, VISITED
from .pruner import InfoBatch
from .visits import Visits

CHUNK = 1 << 20  # samples looked up in one go

Key = str | int | Callable[[Any], int]


class KeptOnly(IterableDataset[tuple[int, Any]]):
    """Yields the samples of a stream that the current plan keeps, as (id, sample): a batch brings the ids for ``InfoBatch.update``.

    Call ``set_epoch`` before each iteration, in the main process and in place of ``InfoBatch.set_epoch``. It makes the plan and
    writes one bit a sample into shared memory, where the workers read it. A pruned sample is still read, but neither decoded nor
    collated if those stages come after the filter. In an epoch that is resumed by ``InfoBatch.load_state_dict``, samples that were
    trained on before do not come again, so the stream itself may start from its beginning.

    The stream shuffles as before, and deals its samples to workers and ranks as before; see docs/streams.md for several ranks.
    ``KeptOnly`` has no length: ``InfoBatch.stats.kept`` says how many samples come.

    Args:
        dataset: An iterable-style data set whose samples carry ids, 0 ... N - 1 for the N of the pruner. No two workers may iterate
            over the same samples.
        pruner: Decides which samples are kept. With several ranks, construct it with ``shard="contiguous"``. Each rank's stream
            must then bring the samples of ``ids`` and no others.
        key: Where a sample's id is: a field of the sample, by name or position, or a function of the sample. With None the samples
            are (id, sample) pairs already.

    Attributes:
        dataset: The wrapped data set.
        ids: The range of ids that this rank's stream must bring; all N on one rank.

    Raises:
        TypeError: ``dataset`` is map-style, or is an iterator, which can be read only once; or ``pruner`` is not an ``InfoBatch``.
        ValueError: There are several ranks, and a rank's samples are not a range; or the pruner has ``steps_per_epoch``.

    Example:
        >>> from torch.utils.data import IterableDataset
        >>> class Letters(IterableDataset):
        ...     def __iter__(self):
        ...         return iter([{"id": 0, "x": "a"}, {"id": 1, "x": "b"}])
        >>> kept = KeptOnly(Letters(), InfoBatch(2, num_epochs=3), key="id")
        >>> kept.set_epoch(0)
        >>> list(kept)
        [(0, {'id': 0, 'x': 'a'}), (1, {'id': 1, 'x': 'b'})]
    """

    @torch.inference_mode(False)  # or what is made here could not be written outside of inference mode
    def __init__(self, dataset: Any, pruner: InfoBatch, key: Key | None = None) -> None:
        if not isinstance(pruner, InfoBatch):
            raise TypeError(f"pruner must be an InfoBatch, got {type(pruner).__name__}")
        _check_stream(dataset)
        if key is not None and not callable(key) and (isinstance(key, bool) or not isinstance(key, (str, int))):
            raise TypeError(f"key must be the name or position of the id in a sample, or a function of the sample, got {key!r}")
        if not pruner.lengths.is_dynamic:
            raise ValueError(
                f"pruner has steps_per_epoch={pruner.lengths.steps_per_epoch}, so its sampler runs from one plan into the next, "
                "but a stream has no sampler: construct InfoBatch without steps_per_epoch, and select plans by KeptOnly.set_epoch"
            )
        if pruner.num_replicas > 1 and pruner.shard != "contiguous":
            raise ValueError(
                f"pruner has {pruner.num_replicas} ranks and shard={pruner.shard!r}, so a rank's samples are all over the stream. "
                "Construct InfoBatch(..., shard='contiguous') and let each rank read the samples of KeptOnly.ids, or give each "
                "rank a pruner of its own, InfoBatch(..., num_replicas=1, rank=0)"
            )
        self.dataset, self._key = dataset, key
        self._engine: Engine | None = pruner.engine
        self._num_samples, table = pruner.num_samples, pruner.engine.table
        one_rank = pruner.num_replicas == 1
        self.ids = range(self._num_samples) if one_rank else range(table.first_slot, table.first_slot + table.num_slots)
        # Shared by all processes. A worker never sees the pruner, whose tables may be on a GPU.
        self._moves = _shared(pruner.engine.epochs.moves)
        self._bits = _shared(torch.zeros(-(-len(self.ids) // 8), dtype=torch.uint8, device="cpu"))
        # Number of the last set_epoch call, 0 while there is none or it is writing; `moves` at that call; the epoch; set bits.
        self._words = _shared(torch.zeros(4, dtype=torch.int64, device="cpu"))
        self._visits = Visits(len(self.ids))
        self._calls, self._has_warned = 0, False

    def set_epoch(self, epoch: int) -> None:
        """Selects an epoch, makes its plan and shows it to the workers. Call it before each iteration.

        It looks up each sample once. On several ranks it is a collective call, because of the plan. If the wrapped data set has its
        own ``set_epoch``, that is called as well. Selecting an epoch again allows another iteration over it. Warns, once, if
        samples came twice since the previous call, which happens when several workers read the same samples.

        Args:
            epoch: As for ``InfoBatch.set_epoch``: after a restart, epochs before the restored one are ignored.

        Raises:
            RuntimeError: Called in a worker process, or on a copy.
            ValueError: The data set of the pruner has grown.
        """
        engine = self._engine
        if engine is None or get_worker_info() is not None:
            raise RuntimeError("set_epoch must be called in the main process, on the KeptOnly that was constructed there")
        if engine.table.num_samples != self._num_samples:
            raise ValueError(
                f"pruner has grown from {self._num_samples} to {engine.table.num_samples} samples: construct a new KeptOnly "
                "and a new loader"
            )
        self._look_back()
        engine.epochs.select(epoch)
        plan, moves = engine.epochs.plan(), int(self._moves)
        self._words[0] = 0
        if int(self._words[1]) != moves or self._calls == 0:
            self._write(engine, looked_at=KEPT | VISITED if plan.restored else KEPT)
            self._words[1], self._words[2] = moves, plan.epoch
        self._calls += 1
        self._words[0] = self._calls
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(plan.epoch)

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        if not self._words.is_shared():  # type: ignore[no-untyped-call]
            raise RuntimeError(
                "this KeptOnly is a copy that does not share its pruner's plan: do not pickle or copy a KeptOnly, and pass the "
                "original one to DataLoader workers or torch.multiprocessing"
            )
        words, moves, bits = (tensor.numpy().data for tensor in (self._words, self._moves, self._bits))
        call = words[0]
        if call == 0:
            raise RuntimeError("no epoch is selected: call set_epoch(epoch) of this KeptOnly before each iteration")
        if self._visits.is_over(call):
            raise RuntimeError(
                f"epoch {words[2]} was iterated to its end: call set_epoch(epoch) of this KeptOnly before the next iteration"
            )
        first, end = self.ids.start, self.ids.stop
        visit = self._visits.begin()
        for sample in self.dataset:
            index, item = self._split(sample)
            if not first <= index < end:
                raise IndexError(self._foreign(index))
            place = index - first
            kept = bits[place >> 3] >> (place & 7) & 1
            if words[0] != call or moves[0] != words[1]:
                raise RuntimeError(
                    "this iteration's epoch is over, because the pruner has moved on: call set_epoch(epoch) of this KeptOnly "
                    "instead of InfoBatch.set_epoch, also after load_state_dict, and start a new iteration"
                )
            if kept:
                visit.add(place)
                yield index, item
        visit.end(call)
        if get_worker_info() is None:
            self._look_back()

    def state_dict(self) -> dict[str, Any]:
        """State of the wrapped data set, if it has one, for loaders that save streams. Visits are in the pruner's state."""
        return {"dataset": self.dataset.state_dict() if hasattr(self.dataset, "state_dict") else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the wrapped data set. One without a state starts from its beginning, and visited samples are left out."""
        if state["dataset"] is not None:
            self.dataset.load_state_dict(state["dataset"])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_engine": None}

    def __repr__(self) -> str:
        return f"KeptOnly({self.dataset!r}, {self._num_samples} samples)"

    def _look_back(self) -> None:
        """Warns of what went wrong since the last call of ``set_epoch``."""
        call, _, epoch, kept = self._words.tolist()
        problem = self._visits.problem(call, kept)
        if problem is not None and not self._has_warned:
            self._has_warned = True
            warnings.warn(f"epoch {epoch} of this KeptOnly: {problem}", RuntimeWarning, stacklevel=3)

    def _write(self, engine: Engine, looked_at: int) -> None:
        """Writes one bit per sample, by id. The bit is set if the sample's mark, masked by ``looked_at``, is KEPT alone."""
        self._words[3] = 0
        powers = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=engine.device)
        for start in range(self.ids.start, self.ids.stop, CHUNK):
            index = torch.arange(start, min(start + CHUNK, self.ids.stop), device=engine.device)
            _, marks = engine.look_up(index)
            kept = torch.zeros(-(-len(index) // 8) * 8, dtype=torch.uint8, device=engine.device)
            kept[: len(index)] = (marks & looked_at) == KEPT
            self._words[3] += int(kept.sum())
            place = (start - self.ids.start) // 8
            self._bits[place : place + len(kept) // 8] = (kept.view(-1, 8) * powers).sum(1, dtype=torch.uint8).cpu()

    def _split(self, sample: Any) -> tuple[int, Any]:
        """A sample's id and what comes with it."""
        key = self._key
        if key is None:
            if not isinstance(sample, (tuple, list)) or len(sample) != 2:
                raise TypeError(
                    f"samples must be (id, sample) pairs, got {type(sample).__name__}: pass key=, the name or position of the id "
                    "in a sample, or a function of the sample"
                )
            value, item = sample
        elif callable(key):
            value, item = key(sample), sample
        else:
            try:
                value, item = sample[key], sample
            except (KeyError, IndexError, TypeError):
                fields = list(sample) if isinstance(sample, dict) else type(sample).__name__
                raise KeyError(f"key={key!r} is not in this sample, {fields}: pass the field that holds a sample's id") from None
        try:
            if isinstance(value, bool):
                raise TypeError
            return operator.index(value), item
        except TypeError:
            raise TypeError(
                f"the id of a sample must be an int, got {value!r} of type {type(value).__name__}: pass a function as key= that "
                "returns an int"
            ) from None

    def _foreign(self, index: int) -> str:
        if 0 <= index < self._num_samples:
            return (
                f"sample {index} belongs to another rank: this rank's stream must bring the samples {self.ids.start} ... "
                f"{self.ids.stop - 1} (KeptOnly.ids) and no others. Split the stream in this order, or give each rank its own "
                "pruner, InfoBatch(..., num_replicas=1, rank=0)"
            )
        return (
            f"sample {index} is out of range for {self._num_samples} samples: ids must be 0 to {self._num_samples - 1}. Pass the "
            "size of the whole stream to InfoBatch, and as key= the field that holds a sample's id"
        )


def _shared(tensor: torch.Tensor) -> torch.Tensor:
    """The same tensor, moved into shared memory."""
    return tensor.share_memory_()  # type: ignore[no-any-return, no-untyped-call]


def _check_stream(dataset: Any) -> None:
    if isinstance(dataset, Iterator):
        raise TypeError(
            f"dataset must be an object whose __iter__ starts from the beginning in each epoch, got a {type(dataset).__name__}, "
            "which can be read only once: wrap the function that makes it in an IterableDataset"
        )
    if not hasattr(dataset, "__iter__") or (not isinstance(dataset, IterableDataset) and hasattr(dataset, "__getitem__")):
        raise TypeError(
            f"dataset must be iterable-style, got {type(dataset).__name__}: a map-style one goes into "
            "DataLoader(with_index(dataset), sampler=pruner.sampler)"
        )
