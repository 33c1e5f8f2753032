"""Forgetting events: how often a model gets a sample wrong that it had right before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from ..engine.checks import Index, check_index, check_int
from ..engine.device import check_device
from ..engine.odd import refuse_odd
from ..engine.ranks import find_ranks

UNSEEN, NEVER_RIGHT, RIGHT, WRONG_AGAIN = -1, 0, 1, 2  # the status of a sample
LARGEST = 1 << 31


class ForgettingEvents:
    """Counts the forgetting events of each sample: it was right when it was last visited, and now it is wrong.

    Samples that are never forgotten are candidates to leave out. A sample that was never right has no events either, but for the
    opposite reason. The paper puts such samples above all others, and so does ``scores``.

    Args:
        num_samples: N, from 1 to 2^31.
        device: "cpu" (the default), "cuda" or "cuda:k": the device that computes the logits. 5 bytes a sample.

    Raises:
        TypeError, ValueError: ``num_samples`` is not an int or is out of range, or ``device`` is not such a device.
        RuntimeError: ``device`` asks for CUDA where there is none.

    Example:
        >>> events = ForgettingEvents(4)
        >>> for correct in ([True, True, False], [False, True, False], [True, True, False]):
        ...     events.update([0, 1, 2], torch.tensor(correct))
        >>> events.counts
        tensor([1, 0, 0, 0], dtype=torch.int32)
        >>> events.never_learned
        tensor([False, False,  True, False])
        >>> events.scores()
        tensor([1., 0., 2., nan])

    Source: Toneva et al., "An Empirical Study of Example Forgetting during Deep Neural Network Learning", ICLR 2019, arXiv
    1812.05159.
    """

    @torch.inference_mode(False)  # what was made in inference mode could not be written outside of it
    def __init__(self, num_samples: int, device: torch.device | str | int | None = "cpu") -> None:
        self.num_samples = check_int("num_samples", num_samples, 1, LARGEST)
        self.device = check_device(device)
        # One place more than samples. It takes what does not count, as cutting a batch would wait for the device.
        self._counts = torch.zeros(self.num_samples + 1, dtype=torch.int32, device=self.device)
        self._status = torch.full((self.num_samples + 1,), UNSEEN, dtype=torch.int8, device=self.device)
        self._outside = torch.zeros((), dtype=torch.int64, device=self.device)

    @torch.no_grad()
    def update(self, index: Index, correct: torch.Tensor) -> None:
        """Notes a batch. Call it once for each visit of its samples. Nothing waits for the device.

        Args:
            index: Sample ids, int64 [B] (other integer dtypes, lists and a single int are converted). If an id occurs twice in a
                batch, the last one counts.
            correct: Whether the model had each sample right: bool [B], ``logits.argmax(1) == labels``.

        Raises:
            TypeError: A wrong dtype or type.
            ValueError: A wrong shape or device.
            IndexError: On the CPU: an id is out of range; nothing is noted. On CUDA such ids are left out and counted, and the next
                call that reads the events raises the error.
        """
        ids = self._checked(index, correct)
        if self.device.type == "cpu" and len(ids) and not (0 <= int(ids.min()) <= int(ids.max()) < self.num_samples):
            raise IndexError(self._out_of_range(f"got {int(ids.min())} to {int(ids.max())}"))
        inside = (ids >= 0) & (ids < self.num_samples)
        self._outside += (~inside).sum()
        # Stable: the last one of equal ids stays the last.
        ordered, places = ids.sort(stable=True)
        is_last = torch.ones_like(ordered, dtype=torch.bool)
        is_last[:-1] = ordered[1:] != ordered[:-1]
        slots = torch.where(is_last & inside[places], ordered, self.num_samples)
        right, before = correct[places], self._status[slots]
        self._counts.index_add_(0, slots, (~right & (before == RIGHT)).to(torch.int32))
        wrong = torch.where(before >= RIGHT, WRONG_AGAIN, NEVER_RIGHT)
        self._status[slots] = torch.where(right, RIGHT, wrong).to(torch.int8)

    @property
    def counts(self) -> torch.Tensor:
        """Forgetting events of each sample, int32 [N], a copy on the device. Waits for the device.

        Raises:
            IndexError: On CUDA: ``update`` got ids that are out of range. It is raised once; the counts of other samples are right.
        """
        self._raise_outside()
        return self._counts[:-1].clone()

    @property
    def never_learned(self) -> torch.Tensor:
        """Which samples were visited and never right, bool [N] on the device. Waits for the device and raises as ``counts``."""
        self._raise_outside()
        return self._status[:-1] == NEVER_RIGHT

    def scores(self) -> torch.Tensor:
        """The scores for ``select``, float32 [N] on the device. Waits for the device and raises as ``counts``.

        Returns:
            The counts. Samples that were never right have the largest count plus 1, so that they rank above all others. Samples
            that were never visited have NaN.
        """
        counts, status = self.counts, self._status[:-1]
        scores = torch.where(status == NEVER_RIGHT, counts.max() + 1, counts).float()
        return scores.masked_fill(status == UNSEEN, float("nan"))

    def gather(self, process_group: dist.ProcessGroup | None = None) -> ForgettingEvents:
        """Joins the events of all ranks, with the same result on each of them. This object stays as it is and goes on counting.

        Collective: all ranks of the group must call it. It adds up 16 bytes per sample over the ranks. Counts are sums. They are
        exact if a sample stays with its rank, as with a pruner's sampler. With a ``DistributedSampler`` that shuffles, the counts
        miss a sample that is right on one rank and then wrong on another.

        Args:
            process_group: The data-parallel process group; None for the default one, or for a single process without any.

        Raises:
            IndexError: On all ranks, with CUDA: ``update`` got ids on one of them that are out of range.
            RuntimeError: On all ranks: the ranks differ in ``num_samples``.
        """
        ranks = find_ranks(None, None, process_group)
        with ranks.waiting_for("the forgetting events of all ranks"):
            ranks.agree({"num_samples": str(self.num_samples)}, self.device, "ForgettingEvents was constructed")
            outside = ranks.sum(self._outside.clone()[None])
            status = self._status[:-1]
            flags = [status >= NEVER_RIGHT, status >= RIGHT, status == RIGHT]
            sums = ranks.sum(torch.stack([self._counts[:-1], *(flag.to(torch.int32) for flag in flags)]))
        whole = ForgettingEvents(self.num_samples, self.device)
        whole._outside += outside[0]
        self._outside.zero_()
        whole._raise_outside()
        whole._counts[:-1] = sums[0]
        visited, learned, right = sums[1:].bool()
        for value, where in (
            (NEVER_RIGHT, visited),
            (WRONG_AGAIN, learned),
            (RIGHT, right),
        ):  # the later ones are part of the first
            whole._status[:-1].masked_fill_(where, value)
        return whole

    def state_dict(self) -> dict[str, Any]:
        """Copies for a checkpoint, 5 bytes a sample. Waits for the device and raises as ``counts``."""
        return {"counts": self.counts, "status": self._status[:-1].clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resumes where ``state`` was taken; the device may differ.

        Raises:
            ValueError: ``state`` does not fit or is damaged; nothing is changed.
        """
        counts, status = self._checked_state(state)
        self._counts[:-1].copy_(counts)
        self._status[:-1].copy_(status)
        self._outside.zero_()

    def __repr__(self) -> str:
        return f"ForgettingEvents({self.num_samples} samples, device={str(self.device)!r})"

    def _checked(self, index: Index, correct: torch.Tensor) -> torch.Tensor:
        """``index`` as int64 [B] on the device, if ``correct`` fits it."""
        for name, value in (("index", index), ("correct", correct)):
            if not isinstance(value, torch.Tensor):
                continue
            refuse_odd(**{name: value})
            if value.device != self.device and (name == "correct" or not value.is_cpu):
                raise ValueError(
                    f"{name} is on {value.device} and the events on {self.device}: construct ForgettingEvents(..., "
                    f"device={str(value.device)!r}), the device that computes the logits"
                )
        if not isinstance(correct, torch.Tensor) or correct.dtype != torch.bool:
            found = correct.dtype if isinstance(correct, torch.Tensor) else type(correct).__name__
            raise TypeError(f"correct must be a bool tensor, got {found}: pass logits.argmax(1) == labels")
        ids = check_index(index, self.device)
        if correct.shape != ids.shape:
            raise ValueError(
                f"correct must hold one bool for each of the {len(ids)} indices, got shape {list(correct.shape)}: pass "
                "logits.argmax(1) == labels of the same batch"
            )
        return ids

    def _checked_state(self, state: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        names = ("counts", "status")
        if not isinstance(state, Mapping) or set(state) != set(names):
            found = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
            raise ValueError(f"state must be what ForgettingEvents.state_dict() returned, with {list(names)}, got {found}")
        for name, dtype in zip(names, (torch.int32, torch.int8), strict=True):
            value = state[name]
            fits = isinstance(value, torch.Tensor) and (value.dtype, value.dim(), value.layout) == (dtype, 1, torch.strided)
            if not fits or value.is_meta:
                raise ValueError(f"state[{name!r}] must be a tensor {dtype} [N], got {value!r}: the state is damaged")
            if len(value) != self.num_samples:
                raise ValueError(
                    f"state[{name!r}] has {len(value)} samples, but num_samples is {self.num_samples}: construct "
                    f"ForgettingEvents({len(value)})"
                )
        counts, status = (state[name].to(self.device) for name in names)
        possible = (counts >= 0) & (status >= UNSEEN) & (status <= WRONG_AGAIN) & ((counts == 0) | (status >= RIGHT))
        possible &= (counts > 0) | (status != WRONG_AGAIN)
        if not bool(possible.all()):
            sample = int((~possible).nonzero()[0])
            raise ValueError(
                f"the state is damaged: sample {sample} has {int(counts[sample])} events and status {int(status[sample])}; load an "
                "earlier checkpoint"
            )
        return counts, status

    def _raise_outside(self) -> None:
        if outside := int(self._outside):
            self._outside.zero_()
            raise IndexError(self._out_of_range(f"got {outside} that are not, which were left out"))

    def _out_of_range(self, what: str) -> str:
        return f"index must be in [0, {self.num_samples}), {what}: pass the ids of DataLoader(with_index(dataset), ...)"
