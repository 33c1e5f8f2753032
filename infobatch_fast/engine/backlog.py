"""What is left of the previous plan while the next one is in force: losses on their way, and samples that come again."""

from __future__ import annotations

import numpy as np
import torch

from .late import LateLosses, OnTheirWay, look_behind
from .plan import Plan
from .table import ScoreTable


class Backlog:
    """Losses that are late and samples that are owed, on this rank, and what every rank knows of all of them.

    Args:
        table: What the losses go into.

    Attributes:
        late: Losses of the plan before that are expected here, with its weights; None where there are none.
        lost: Losses of older plans that had not come when the last plan ended, and are no longer expected.
        owed: Samples whose losses will not come by themselves, because the iteration was broken off or the run restarted. They are
            drawn again before all others, and their losses then count as late.
    """

    def __init__(self, table: ScoreTable) -> None:
        self._table = table
        self.late: LateLosses | None = None
        self.owed: list[int] = []
        self.lost = 0
        self._is_uneven = False  # the ranks have yet to level what they owe
        self._shared: OnTheirWay | None = None  # what is on its way on all ranks, [ranks, k]
        self._loaded: tuple[str, str] | None = None

    @property
    def count(self) -> int:
        """Losses on their way here."""
        return 0 if self.late is None else self.late.count

    def record(self, index: torch.Tensor, scores: torch.Tensor, averaged: bool, again: bool) -> torch.Tensor:
        """Records a batch and returns its weights, with ``averaged`` divided by its size. Late losses have the previous weights."""
        if self.late is not None and not again and self.late.all_came():
            self.late = None
        if self.late is None:
            return self._table.record(index, scores, averaged)
        weights = self.late.record(self._table, index, scores, again)
        return weights * (1.0 / index.numel()) if averaged else weights

    def late_after(self, before: Plan, unscored: int) -> LateLosses | None:
        """Losses on their way when a plan has ended. It keeps as many of older plans as are on their way if they come in order.

        Args:
            before: The plan, whose marks are still in the table.
            unscored: Indices drawn so far for which no loss came.
        """
        self.lost = 0
        if unscored <= 0 and self.late is None:
            return None
        samples, count = look_behind(before, self._table, min(max(0, unscored - self.count), before.length))
        if self.late is not None:
            older = self.late.outstanding()
            self.lost = max(0, len(older.ids) - self.count)
            samples = older.last(min(self.count, len(older.ids))).join(samples)
        count += self.count
        return LateLosses(samples, count) if count else None

    def owe(self, samples: OnTheirWay) -> None:
        """Samples of the plan before come again, and are weighted by it."""
        there = samples.ids >= 0
        samples = OnTheirWay(samples.ids[there], samples.weights[there])
        self.owed = samples.ids.tolist()
        self.late = LateLosses(samples, len(self.owed)) if self.owed else None

    def go_back(self) -> None:
        """The iteration was broken off: late losses will not come any more, and their samples are owed."""
        if self.late is not None:
            self.owe(self.late.outstanding())
        self._is_uneven = True

    def level(self, plan: Plan) -> None:
        """Makes all ranks owe equally many: a rank that owes fewer repeats its own. Collective, if there is something to level."""
        if not self._is_uneven:
            return
        self._is_uneven = False
        missing = self._most(len(self.owed)) - len(self.owed)
        self.owed = self.owed + plan.order(0, missing).tolist()
        self.share()

    def share(self) -> None:
        """Tells every rank what is on its way on all ranks, so that one state dict holds it and any number of ranks can resume."""
        self._loaded = None
        longest = self._most(self.count)
        if longest == 0:
            self._shared = None
            return
        ids = torch.full((longest,), -1, dtype=torch.int64, device=self._table.device)
        weights = torch.ones(longest, dtype=torch.float32, device=self._table.device)
        if self.late is not None and self.count:
            samples = self.late.outstanding().last(self.count)
            first = longest - len(samples.ids)
            ids[first:], weights[first:] = samples
        self._shared = OnTheirWay(self._table.ranks.gather(ids), self._table.ranks.gather(weights))

    def forget(self) -> None:
        """A checkpoint takes the place of what was known of other ranks."""
        self._shared = self._loaded = None

    def state(self) -> tuple[str, str]:
        """Ids (int64) and weights (float32) of what is on its way on all ranks, in hexadecimal. Waits for the device.

        All ranks record equally many losses per step. So each rank has as many losses left of those in ``share`` as this rank has.

        They are strings: ``torch.distributed.checkpoint`` loads no tensor that is longer than before, and ``torch.load`` no bytes.
        """
        if self._loaded is not None:
            return self._loaded
        if self._table.ranks.num_replicas == 1:
            return ("", "") if self.late is None else _as_texts(self.late.outstanding())
        left = self.count
        if self._shared is None or left == 0:
            return "", ""
        ids, weights = (part[:, part.shape[1] - left :].flatten() for part in self._shared)
        return _as_texts(OnTheirWay(ids[ids >= 0], weights[ids >= 0]))

    def load(self, ids: str, weights: str) -> None:
        """Makes this rank owe its part of what ``state`` returned."""
        table = self._table
        samples = torch.from_numpy(np.frombuffer(bytearray.fromhex(ids), dtype=np.int64)).to(table.device)
        of_samples = torch.from_numpy(np.frombuffer(bytearray.fromhex(weights), dtype=np.float32)).to(table.device)
        slots = table.slots_of(samples)
        self.owe(OnTheirWay(torch.where(slots >= 0, samples, -1), of_samples))
        self._is_uneven, self._loaded = True, (ids, weights)

    def _most(self, count: int) -> int:
        """The largest count of all ranks."""
        ranks = self._table.ranks
        if ranks.num_replicas == 1:
            return count
        with ranks.waiting_for("the count of losses on their way"):
            return int(ranks.gather(torch.tensor([count], dtype=torch.int64, device=self._table.device)).max())


def _as_texts(samples: OnTheirWay) -> tuple[str, str]:
    ids, weights = (part.cpu().numpy().tobytes().hex() for part in samples)
    return ids, weights
