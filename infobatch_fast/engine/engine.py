"""The engine: what an ``InfoBatch`` is made of, and what its samplers and streams work with."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, NoReturn

import torch

from . import compiled
from .checks import Index, check_index
from .dynamic import DynamicEpochs
from .epochs import Epochs
from .flow import Flow
from .growth import grow
from .marks import KEPT
from .notices import unkept_samples
from .odd import refuse_odd
from .planner import Planner
from .protect import Protect, check_protect, protect_samples
from .ranks import Ranks
from .settings import Settings
from .state import pack_state, unpack_state
from .table import BAD_ID, Faults, ScoreTable, memory_for

_UNKNOWN = -1  # how often a tensor was written


class Engine:
    """Scores, plan and epochs of one rank.

    Args:
        data_source: The data set, or the number of its samples.
        num_samples: That number.
        settings: What the run was asked for.
        ranks: Who shares the data set.
        device: Where the table lives.
        protect: Samples that are never pruned.

    Attributes:
        data_source: As given; ``grow`` may replace it.
        settings: As given.
        ranks, device: As given.
        epochs: The current epoch and its plan. They hold the table.
        stage: What a trainer does instead of training, such as "validation"; None while it trains, or if that is not known.
    """

    @torch.inference_mode(False)  # a table that was made in inference mode could not be written outside of it
    def __init__(
        self,
        data_source: Sized | int,
        num_samples: int,
        settings: Settings,
        ranks: Ranks,
        device: torch.device,
        protect: Protect | None,
    ) -> None:
        self.data_source, self.settings, self.ranks, self.device = data_source, settings, ranks, device
        protected = None if protect is None else check_protect(protect, num_samples)
        with memory_for(num_samples, ranks, protected is not None, device):
            scatter, momentum = settings.shard == "scattered", settings.policy.momentum
            table = ScoreTable(num_samples, settings.seed, scatter, ranks, device, momentum)
            if protected is not None:
                protect_samples(table, protected)
            planner = Planner(table, settings)
            self._token = torch.zeros(1, dtype=torch.float32, device=device)  # see compiled.py
        self.stage: str | None = None
        self._batch: tuple[object, int, object] = (None, _UNKNOWN, None)  # of the last update
        self.epochs: Epochs = DynamicEpochs(planner) if settings.lengths.is_dynamic else Flow(planner)
        self._handle = compiled.register(self)

    @property
    def table(self) -> ScoreTable:
        """Scores and marks of the samples there are now."""
        return self.epochs.table

    # ---- a batch ----

    def check_trains(self) -> None:
        """Makes sure that losses which come now are losses of training.

        Raises:
            RuntimeError: They are not.
        """
        if self.stage is not None or not torch.is_grad_enabled():
            where = "where gradients are off" if self.stage is None else f"in {self.stage}"
            raise RuntimeError(
                f"update was called {where}, but it counts its samples as trained on: leave it out there, or call "
                "record(index, scores), which only stores scores. A training step without autograd must call update within "
                "torch.enable_grad()"
            )

    def update(self, given: Index, index: torch.Tensor, losses: torch.Tensor, scores: torch.Tensor, reduction: str) -> torch.Tensor:
        """Records scores of any floating dtype, [B], and returns the weighted losses: "mean", "sum" or "none". All are checked.

        ``given`` is what the caller had for ``index``.
        """
        scores = _as_stored(scores)
        # Each torch operator, here and in backward, takes the host microseconds. With 1/B in the weights one operator is enough.
        averaged = reduction == "mean" and losses.dtype == torch.float32 and losses.numel() > 0
        if torch.compiler.is_compiling():
            weights = compiled.record(self._token, index, scores.detach(), self._handle, averaged, True)
        else:  # the same without the dispatcher, which takes as long as all the rest
            batch = self._batch_of(given)
            weights = self.record_now(index, scores, averaged, True, self._is_again(batch, index))
            self._batch = batch
        return torch.dot(losses, weights) if averaged else _reduced(losses * weights, reduction)

    def record(self, index: torch.Tensor, scores: torch.Tensor) -> None:
        """Records scores of any floating dtype, [B], as nothing more than scores."""
        scores = _as_stored(scores).detach()
        if torch.compiler.is_compiling():
            compiled.record(self._token, index, scores, self._handle, False, False)
        else:
            self.record_now(index, scores, False, False)

    def weigh(self, index: torch.Tensor, losses: torch.Tensor, reduction: str) -> torch.Tensor:
        """The weighted losses that ``update`` would return. Nothing is recorded."""
        is_compiling = torch.compiler.is_compiling()
        weights = compiled.weigh(self._token, index, self._handle) if is_compiling else self.weights_now(index)
        return _reduced(losses * weights, reduction)

    def record_now(
        self, index: torch.Tensor, scores: torch.Tensor, averaged: bool, visits: bool, again: bool = False
    ) -> torch.Tensor:
        """What ``compiled.record`` calls back at run time: records the float32 scores of a batch; returns weights, float32 [B].

        Args:
            index: int64 [B], contiguous, on the table's device.
            scores: float32 [B], likewise. They may be part of an autograd graph, to which nothing is added.
            averaged: Whether the weights are divided by B.
            visits: Whether the samples were trained on. If not, no plan is made, and the weights mean nothing.
            again: Whether the visit is that of the call before.
        """
        if visits:
            self.epochs.plan()
        if self.settings.check_first and not again:
            self._check_now(index, visits)
        if visits:
            return self.epochs.record(index, scores, averaged, again)
        self.epochs.has_scores = True
        return self.table.record(index, scores, visits=False)

    def weights_now(self, index: torch.Tensor) -> torch.Tensor:
        """What ``compiled.weigh`` calls back at run time: weights of int64 [B] under the current plan, float32 [B]."""
        _, marks = self.look_up(index)
        return self.epochs.weights(index, marks)

    def _check_now(self, index: torch.Tensor, visits: bool) -> None:
        """Raises an error for faults that are only counted otherwise; nothing is recorded then. Waits for the device."""
        found = self.table.look_up(index)
        self.table.raise_bad_indices(Faults(*found.faults.tolist()))
        if visits and self.epochs.late == 0 and (unkept := index[self.epochs.is_unkept(index, found)].tolist()):
            raise IndexError(unkept_samples(len(unkept), unkept[0], self.epochs.epoch))

    def _batch_of(self, given: Index) -> tuple[object, int, object]:
        """What identifies a batch: the tensor of its indices, how often torch has written to that tensor, and the plan."""
        try:
            version = given._version if type(given) is torch.Tensor else _UNKNOWN
        except RuntimeError:  # a tensor of inference mode
            version = _UNKNOWN
        return given, version, self.epochs.plan().token

    def _is_again(self, batch: tuple[object, int, object], index: torch.Tensor) -> bool:
        """Whether it is the batch of the previous update, for which another loss comes."""
        before = self._batch
        is_same = before[0] is batch[0] and before[1] == batch[1] != _UNKNOWN and before[2] is batch[2]
        # Libraries other than torch may have written to it. On the CPU this can be checked without waiting.
        return is_same and not (index.is_cpu and bool(self.epochs.is_new(index).any()))

    # ---- what is known of samples ----

    def look_up(self, index: Index) -> tuple[torch.Tensor, torch.Tensor]:
        """Slots (int64, -1 for a sample of another rank) and marks (uint8) of samples under the current plan: [B]."""
        refuse_odd(index=index)
        checked = check_index(index, self.device)
        self.epochs.plan()
        table = self.table
        slots, marks, faults = table.look_up(checked)
        faults[2:3].zero_()  # it is no fault to ask about samples of other ranks
        table.faults[BAD_ID] = torch.where(faults[1] > 0, faults[BAD_ID], table.faults[BAD_ID])
        table.faults[:3] += faults[:3]
        if self.settings.check_first:
            table.raise_bad_indices(table.read_faults())
        return slots, marks

    def is_kept(self, index: Index) -> torch.Tensor:
        """Whether the current plan keeps samples, bool [B]; False for samples of other ranks."""
        _, marks = self.look_up(index)
        return (marks & KEPT).bool()

    def scores(self, index: Index | None) -> torch.Tensor:
        """Scores, float32 [B], or of all samples; NaN for unseen ones and those of other ranks."""
        table = self.table
        if index is None:
            slots = table.slots_of(torch.arange(table.num_samples, device=self.device))
        else:
            slots, _ = self.look_up(index)
        return torch.where(slots >= 0, table.scores[slots.clamp(min=0)], torch.nan)

    # ---- the whole ----

    @torch.inference_mode(False)
    def grow(self, new_size: Sized | int | None, protect: Protect | None) -> None:
        """See ``InfoBatch.grow``."""
        with self.epochs.changing, self.ranks.waiting_for("grow()"):
            self.data_source = grow(self.epochs, self.data_source, new_size, protect)

    def state_dict(self) -> dict[str, Any]:
        """See ``InfoBatch.state_dict``."""
        with self.epochs.changing:
            return pack_state(self.epochs)

    @torch.inference_mode(False)
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See ``InfoBatch.load_state_dict``."""
        with self.epochs.changing:
            unpack_state(self.epochs, state)

    def __copy__(self) -> Engine:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Engine:
        """The same: a sampler that is copied with its loader yields the same plan."""
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "InfoBatch cannot be pickled: save pruner.state_dict() instead. Pass the data set, not the pruner, to worker "
            "processes, and leave the pruner out of hyperparameters: self.save_hyperparameters(ignore=['pruner'])"
        )


def _as_stored(scores: torch.Tensor) -> torch.Tensor:
    """Contiguous float32 in memory."""
    # A view with the sign set apart, as that of the imaginary part of a conjugate, has other numbers in its memory.
    scores = scores.resolve_neg() if scores.dtype == torch.float32 else scores.detach().to(torch.float32)
    return scores.contiguous()


def _reduced(weighted: torch.Tensor, reduction: str) -> torch.Tensor:
    if reduction == "mean":
        return weighted.mean()
    return weighted.sum() if reduction == "sum" else weighted
