"""What a training step calls: losses go in, weights come back."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Literal, overload

import torch

from .engine.checks import Index, check_choice, check_index, check_values
from .engine.engine import Engine
from .engine.odd import explain_odd, refuse_odd

REDUCTIONS = ("mean", "sum", "none")


class BatchCalls:
    """The methods of ``InfoBatch`` that take the indices of a batch."""

    engine: Engine

    def update(
        self,
        index: Index,
        losses: torch.Tensor,
        *,
        scores: torch.Tensor | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean",
    ) -> torch.Tensor:
        """Records the losses of a batch as its samples' scores, and returns the weighted loss to call ``backward`` on.

        "mean" is sum(weight * loss) / B, the plain batch mean of the weighted losses, as in the paper. Weights are not normalised.
        A policy's ``momentum`` m makes scores moving averages: m * old + (1 - m) * new for samples that have a score.

        Args:
            index: Sample indices, int64 [B] (other integer dtypes, lists and a single int are converted). They may be on the CPU
                while the table is on a GPU. If an index occurs twice, its later score counts. If the same tensor is passed again,
                it is the same batch, and adds nothing to ``progress``. If a library other than torch writes into that tensor, pass
                a clone.
            losses: Per-sample losses, float16, bfloat16, float32 or float64 [B], on the pruner's device; not changed.
            scores: What to store instead of the losses, [B] of any floating dtype. Stored as float32. Non-finite scores are
                counted and not stored.
            reduction: "mean" or "sum" over the batch, or "none".

        Returns:
            The weighted loss, differentiable with respect to ``losses``: a scalar, or [B] for "none". float32, or float64 for
            float64 losses.

        Raises:
            TypeError: A wrong dtype or type.
            ValueError: A wrong shape, device or reduction.
            RuntimeError: Gradients are off, or a trainer is validating: call ``record`` there, which only stores scores. Or the
                index is on the CPU while a CUDA graph is captured.
            IndexError: With ``check="sync"``: an index is out of range, or belongs to another rank or to a sample that the plan
                does not keep. Nothing was recorded.
        """
        check_choice("reduction", reduction, REDUCTIONS)
        self.engine.check_trains()
        try:
            checked = self._checked(index, "losses", losses)
            if scores is None:
                return self.engine.update(index, checked, losses, losses, reduction)
            check_values("scores", scores, checked, self.engine.device)
            if losses.layout is not torch.strided:  # else it would fail behind the recording
                refuse_odd(losses=losses)
            return self.engine.update(index, checked, losses, scores, reduction)
        except Exception:  # looked for here and not before, as it would cost each step time
            explain_odd(index=index, losses=losses, scores=scores)
            raise

    def weigh(self, index: Index, losses: torch.Tensor, reduction: Literal["mean", "sum", "none"] = "mean") -> torch.Tensor:
        """Returns the weighted loss that ``update`` would return, and records nothing: for a second loss of a batch.

        Multiply each loss by the weight of its own sample: in SAM's first pass, for mixup's partner, auxiliary heads and gradient
        penalties. Also call ``update`` once per batch, before or after: ``update`` counts the samples as trained on.

        Args:
            index: Sample indices, as in ``update``.
            losses: Per-sample losses, as in ``update``.
            reduction: "mean" or "sum" over the batch, or "none".

        Returns:
            As ``update``.

        Raises:
            TypeError, ValueError: As ``update``.
        """
        check_choice("reduction", reduction, REDUCTIONS)
        try:
            return self.engine.weigh(self._checked(index, "losses", losses), losses, reduction)
        except Exception:
            explain_odd(index=index, losses=losses)
            raise

    def record(self, index: Index, scores: torch.Tensor) -> None:
        """Records scores and nothing else: the samples do not count as trained on, and gradients may be off.

        Use it for passes that score samples without training on them, and for scores that come later than the loss. The scores
        count in the next plan that is made, blended by the policy's ``momentum``.

        Args:
            index: Indices of this rank's samples, as in ``update``.
            scores: What to store, [B] of any floating dtype, on the pruner's device. Non-finite scores are counted and not stored.

        Raises:
            TypeError, ValueError, IndexError: As ``update``.
        """
        try:
            self.engine.record(self._checked(index, "scores", scores), scores)
        except Exception:
            explain_odd(index=index, scores=scores)
            raise

    def weights(self, index: Index) -> torch.Tensor:
        """Weights of samples under the current plan, float32 [B] on the pruner's device. Nothing is recorded.

        Args:
            index: Sample indices, as in ``update``.
        """
        refuse_odd(index=index)
        return self.engine.weights_now(check_index(index, self.engine.device))

    @overload
    def is_kept(self, index: int) -> bool: ...
    @overload
    def is_kept(self, index: torch.Tensor | Sequence[int]) -> torch.Tensor: ...
    def is_kept(self, index: Index) -> torch.Tensor | bool:
        """Says whether the current plan keeps samples. It is for streams, which filter samples by their ids.

        Args:
            index: Sample indices, as in ``update``.

        Returns:
            bool [B] on the pruner's device, or a Python bool for a single int. Samples of other ranks count as not kept.
        """
        kept = self.engine.is_kept(index)
        return bool(kept[0]) if isinstance(index, Integral) else kept

    def scores(self, index: Index | None = None) -> torch.Tensor:
        """Scores as the table holds them, float32 on the pruner's device; NaN for unseen samples and for samples of other ranks.

        Args:
            index: Sample indices, as in ``update``. None takes all N, in order.
        """
        return self.engine.scores(index)

    def _checked(self, index: Index, name: str, values: torch.Tensor) -> torch.Tensor:
        """``index`` as int64 [B] on the pruner's device, if ``values``, the argument ``name``, fit it."""
        device = self.engine.device
        checked = check_index(index, device)
        check_values(name, values, checked, device)
        return checked
