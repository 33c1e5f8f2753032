"""The calls of the published ``infobatch`` package, on top of this one. docs/migration.md says what differs and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset

from .dataset import with_index
from .engine import ops
from .engine.checks import Index
from .pruner import InfoBatch as Pruner
from .sampler import InfoBatchSampler

_NO_BATCH = (
    "update: no batch waits for its losses. Build the loader with infobatch_fast.compat.DataLoader(dataset, ..., "
    "sampler=dataset.sampler), and call update once for each batch, inside the loop over the loader"
)
_TWO_BATCHES = (
    "update: {count} batches wait for their losses, so it is not known which batch these belong to. If something fetches batches "
    "ahead (accelerate and prefetchers do), use infobatch_fast.InfoBatch with with_index(dataset), where the index is part of the "
    "batch. If a batch was left out on purpose, or an interrupted loop is still alive, call set_active_indices([]) there"
)
_GONE = {
    "prune": "its sampler plans the epoch; read pruner.sampler.indices()",
    "no_prune": "epochs from stop_prune on are full by themselves",
    "reset_weights": "weights belong to the plan of an epoch",
    "weights": "use get_weights(index)",
    "num_pruned_samples": "use get_pruned_count()",
    "cur_batch_index": "the loader notes which samples' losses come next; call set_active_indices to change that",
    "pruning_sampler": "use the property sampler",
    "normal_sampler_no_prune": "use torch.utils.data.RandomSampler(dataset.dataset)",
    "total_save": "use get_pruned_count()",
    "__setscore__": "use update(loss), or pruner.update(index, losses)",
}


class InfoBatch(Dataset[Any]):
    """A pruned data set, with the constructor and the calls of the published package.

    Args:
        dataset: A map-style data set.
        num_epochs: As in ``infobatch_fast.InfoBatch``.
        prune_ratio: As there.
        delta: As there.
        device: Where the scores live. None takes the current GPU if this build and machine have one, or else the CPU.
        seed: Decides all that is random.

    Attributes:
        pruner: The ``infobatch_fast.InfoBatch`` that does the work.
        dataset: The data set.

    Example:
        >>> train_set = InfoBatch(train_set, num_epochs, prune_ratio, delta)                  # doctest: +SKIP
        >>> loader = DataLoader(train_set, batch_size=128, sampler=train_set.sampler)         # doctest: +SKIP
        >>> loss = train_set.update(criterion(model(x), y))     # reduction="none"            # doctest: +SKIP
    """

    def __init__(
        self,
        dataset: Any,
        num_epochs: int,
        prune_ratio: float = 0.5,
        delta: float = 0.875,
        *,
        device: torch.device | str | int | None = None,
        seed: int = 0,
    ) -> None:
        self._indexed = with_index(dataset)
        if device is None and torch.cuda.is_available() and ops.CUDA_ARCHITECTURES is not None:
            device = "cuda"
        self.dataset = dataset
        self.pruner = Pruner(dataset, num_epochs, prune_ratio=prune_ratio, delta=delta, device=device, seed=seed)
        self.num_epochs, self.keep_ratio, self.delta = num_epochs, 1.0 - prune_ratio, delta
        self._waiting: dict[object, tuple[int, Index]] = {}  # by iterator: batches that came without losses since, and the last

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        """Attributes of the data set, as in the published package. Private ones are left out, as pickle and torch look for them."""
        if name in _GONE:
            raise AttributeError(f"infobatch_fast.compat.InfoBatch has no {name}: {_GONE[name]}")
        if name.startswith("_") or "dataset" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.dataset, name)

    @property
    def sampler(self) -> InfoBatchSampler:
        """The sampler for ``DataLoader(sampler=...)``; always the same one."""
        return self.pruner.sampler

    def update(self, values: torch.Tensor) -> torch.Tensor:
        """Records the losses of the batch that the loader yielded last, and returns the mean of the weighted losses.

        Args:
            values: Per-sample losses [B], differentiable; not changed. They may be on another device than the scores, at the
                price of a copy a step.

        Raises:
            RuntimeError: It is not certain which batch the losses belong to.
            ValueError, TypeError: As ``infobatch_fast.InfoBatch.update``. The batch then still waits for its losses.
        """
        count = sum(count for count, _ in self._waiting.values())
        if count != 1:
            raise RuntimeError(_TWO_BATCHES.format(count=count) if count else _NO_BATCH)
        ((_, index),) = self._waiting.values()
        on_device = values.to(self.pruner.device) if isinstance(values, torch.Tensor) else values
        loss = self.pruner.update(index, on_device)
        self._waiting.clear()
        return loss.to(values.device)

    def set_active_indices(self, cur_batch_indices: Index) -> None:
        """Says which samples' losses ``update`` gets next. An empty list discards all batches that wait for losses."""
        self._waiting.clear()
        if isinstance(cur_batch_indices, int) or len(cur_batch_indices):
            self._waiting[self] = (1, cur_batch_indices)

    def get_weights(self, indexes: Index) -> torch.Tensor:
        """Weights of samples in this epoch, float32 [B]."""
        return self.pruner.weights(indexes)

    def get_pruned_count(self) -> int:
        """Samples skipped so far, summed over the epochs planned and over all ranks."""
        epochs = self.pruner.engine.epochs
        return epochs.planned_samples - epochs.planned_kept

    def mean_score(self) -> torch.Tensor:
        """Mean score of the seen samples of this rank; NaN if there is none."""
        return self.scores.nanmean()

    @property
    def scores(self) -> torch.Tensor:
        """A copy of all scores, float32 [N]; NaN for unseen samples."""
        return self.pruner.scores()

    @property
    def stop_prune(self) -> float:
        """num_epochs * delta. Epochs from this number on, counted from 0, are full."""
        return self.num_epochs * self.delta

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint, as ``infobatch_fast.InfoBatch.state_dict``."""
        return self.pruner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes where ``state`` was taken."""
        self.pruner.load_state_dict(state)
        self._waiting.clear()

    def __repr__(self) -> str:
        return f"compat.{self.pruner!r}"


class DataLoader(TorchDataLoader[Any]):
    """torch's DataLoader, which hides the indices of an ``InfoBatch``.

    With an ``InfoBatch`` it yields plain batches. When it yields one, it notes which samples ``InfoBatch.update`` gets losses of.

    A ``collate_fn`` gets (index, item) pairs and returns (indices, batch), as in the published package.

    Raises:
        ValueError: The data set is an ``InfoBatch`` and the sampler is not its own.
    """

    def __init__(self, dataset: Any, *args: Any, **kwargs: Any) -> None:
        self._pruned = dataset if isinstance(dataset, InfoBatch) else None
        super().__init__(dataset if self._pruned is None else self._pruned._indexed, *args, **kwargs)
        if self._pruned is not None and self._pruned.sampler not in (self.sampler, getattr(self.batch_sampler, "sampler", None)):
            raise ValueError(
                f"sampler={self.sampler!r} does not prune: pass sampler=dataset.sampler and no shuffle. If this loader is not for "
                "training, use torch.utils.data.DataLoader"
            )

    def __iter__(self) -> Any:
        batches = super().__iter__()
        return batches if self._pruned is None else _note(self._pruned, batches)


def _note(pruned: InfoBatch, batches: Iterator[Any]) -> Iterator[Any]:
    mine, waiting = object(), pruned._waiting
    try:
        for pair in batches:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise ValueError(
                    "collate_fn must return (indices, batch), because it gets (index, item) pairs, got "
                    f"{type(pair).__name__}: pass infobatch_fast.collate_with_index(collate_fn)"
                )
            count, _ = waiting.get(mine, (0, None))
            waiting[mine] = (count + 1, pair[0])
            yield pair[1]
    finally:  # a peek that was thrown away, or a loop that was left
        waiting.pop(mine, None)


__all__ = ["DataLoader", "InfoBatch"]
