"""InfoBatch: the object that learns which samples are well learned, decides, weighs, and is checkpointed."""

from __future__ import annotations

import weakref
from collections.abc import Sized
from contextlib import AbstractContextManager
from numbers import Integral
from typing import Any, Literal

import torch
import torch.distributed as dist

from .engine import ops
from .engine.checks import Index, check_choice, check_index, check_int, check_size, check_values
from .engine.epochs import Epochs
from .engine.flow import Flow
from .engine.growth import move_scores, new_data_source
from .engine.histogram import count_scores
from .engine.lengths import Lengths, expect_steps
from .engine.plan import Planner
from .engine.protect import Protect, check_protect, count_bits, protect_samples
from .engine.ranks import find_ranks
from .engine.schedule import Schedule
from .engine.state import pack_state, unpack_state
from .engine.table import ScoreTable, memory_for
from .policy import MeanThreshold, Policy
from .sampler import InfoBatchSampler, Reading
from .stats import EpochStats


class InfoBatch:
    """Unbiased dynamic data pruning: skips well-learned samples at random and weights the others so that the gradient stays right.

    In a pruned epoch each sample whose last seen loss H is below the mean is skipped with probability r; the ones of them that
    are kept weigh 1/(1 - r), all others weigh 1 (Eq. 3 of the paper), so that the expected sum of weighted losses is that
    of the full data set. Unseen samples are always kept. The last epochs are full (Eq. 10).

    Args:
        data_source: The data set, or the number N of its samples; 1 <= N <= 2^40.
        num_epochs: Epochs of the run, at least 1. They only place the end of pruning.
        prune_ratio: r in [0, 1), the probability that a sample below the mean is skipped. It is not the fraction saved, which
            depends on how many samples are below.
        delta: Fraction of the epochs after which all are full: epochs in [warmup_epochs, floor(delta * num_epochs)) are pruned.
        warmup_epochs: Full epochs at the start.
        policy: Another rule than ``MeanThreshold(prune_ratio)``: ``QuantileTiers``, ``RandomPruning``, ``NoPruning``.
        shuffle: Visit samples in a new random order each epoch; otherwise in the order of their indices.
        shard: "scattered" deals the samples to the ranks by a seeded permutation; "contiguous" gives each rank a range of indices,
            for data that is read in shards, and is implied by ``shuffle=False``. The order is shuffled either way.
        seed: In [0, 2^64). Decides everything that is random, together with the epoch. The same on all ranks.
        num_replicas, rank: Data-parallel ranks and this one's number; by default those of ``process_group`` or of the default
            group, and one rank where there is none.
        process_group: The data-parallel process group.
        drop_last: With several ranks: cut the longer ranks instead of repeating samples of the shorter ones.
        device: Where scores and plan live: "cpu" (the default), "cuda" or "cuda:k". Take the device that computes the losses.
        batch_size, steps_per_epoch: How long an epoch is. By default as long as its plan. ``steps_per_epoch=S``: each iteration
            of the sampler has S * batch_size indices on each rank, and the next plan begins where the last one ends;
            ``num_epochs`` and ``set_epoch`` then count these epochs, ``epoch`` the plans. ``math.inf``: an iteration never
            ends, and ``num_epochs`` counts plans.
        protect: Samples that are never pruned and weigh 1, whatever their score: their ids, or a bool mask of all N. Their scores
            count in the threshold. The same on all ranks. An eighth of a byte a sample, and nothing where it is None.
        check: "deferred": indices that do not belong to the data set are counted on the device and raised where the host looks
            anyway, at the next plan or at ``stats``. "sync": each ``update`` checks first, and waits for the device.

    Attributes:
        epoch: The current epoch: the number of its plan.
        num_samples: N.

    Raises:
        TypeError: ``data_source`` has no length, or an argument is of a wrong type.
        ValueError: An argument is out of range; the message names it, its value and the remedy.
        IndexError: ``protect`` holds an id that is out of range.
        RuntimeError: ``device`` asks for CUDA where there is none.
        torch.OutOfMemoryError: The device has too little memory; the message says how many bytes it takes.

    Example:
        >>> pruner = InfoBatch(4, num_epochs=3, delta=1.0, seed=1)
        >>> pruner.update(torch.tensor([0, 1, 2, 3]), torch.tensor([1.0, 2.0, 3.0, 6.0]))
        tensor(3.)
        >>> pruner.set_epoch(1)
        >>> len(pruner.sampler) == pruner.stats.kept
        True

    Source: Qin et al., "InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning", ICLR 2024, arXiv 2303.04947.
    """

    def __init__(
        self,
        data_source: Sized | int,
        num_epochs: int,
        *,
        prune_ratio: float = 0.5,
        delta: float = 0.875,
        warmup_epochs: int = 0,
        policy: Policy | None = None,
        shuffle: bool = True,
        shard: Literal["scattered", "contiguous"] = "scattered",
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
        process_group: dist.ProcessGroup | None = None,
        drop_last: bool = False,
        device: torch.device | str | int | None = None,
        batch_size: int | None = None,
        steps_per_epoch: int | float | None = None,
        protect: Protect | None = None,
        check: Literal["deferred", "sync"] = "deferred",
    ) -> None:
        self.data_source = data_source
        self.num_samples = check_size(data_source)
        self.schedule = Schedule(num_epochs, delta, warmup_epochs)
        self.policy = _choose_policy(policy, prune_ratio)
        self.shuffle, self.drop_last = bool(shuffle), bool(drop_last)
        self.seed = check_int("seed", seed, 0, 2**64 - 1)
        self.lengths = Lengths(batch_size, steps_per_epoch)
        check_choice("shard", shard, ("scattered", "contiguous"))
        check_choice("check", check, ("deferred", "sync"))
        self.shard = shard if self.shuffle else "contiguous"
        self._check_first = check == "sync"
        protected = None if protect is None else check_protect(protect, self.num_samples)
        self._ranks = find_ranks(num_replicas, rank, process_group)
        self.device = ops.check_device(device)

        with self._memory_for(self.num_samples, protected is not None):
            self._table = self._new_table(self.num_samples)
            if protected is not None:
                protect_samples(self._table, protected)
            planner = self._new_planner(self._table)
            self._token = torch.zeros(1, device=self.device)
        self._epochs = Epochs(planner, self.schedule) if self.lengths.is_dynamic else Flow(planner, self.schedule, self.lengths)
        self._handle = ops.register(self)
        self._reading, self._find_sampler = Reading(), _no_sampler

    @property
    def sampler(self) -> InfoBatchSampler:
        """The sampler of this pruner. It keeps the pruner alive, and is made anew, where it was, when nobody has it any more.

        What was set on it as an attribute is then gone.
        """
        sampler = self._find_sampler()
        if sampler is None:
            sampler = InfoBatchSampler(self, self._reading)
            self._find_sampler = weakref.ref(sampler)
        return sampler

    def _memory_for(self, num_samples: int, protects: bool) -> AbstractContextManager[None]:
        return memory_for(num_samples, self._ranks.shard(num_samples)[1], protects, self.device)

    def _new_table(self, num_samples: int) -> ScoreTable:
        return ScoreTable(num_samples, self.seed, self.shard == "scattered", self._ranks, self.device)

    def _new_planner(self, table: ScoreTable) -> Planner:
        names = ("schedule", "policy", "shuffle", "shard", "seed", "drop_last", "lengths")
        settings = {name: repr(getattr(self, name)) for name in names} | {"num_samples": repr(table.num_samples)}
        settings |= {"protect": str(table.protect is not None), "algorithm": str(ops.ALGORITHM_VERSION)}
        return Planner(table, self.policy, self.seed, self.shuffle, self.drop_last, self._ranks, settings)

    @property
    def protected(self) -> int:
        """Samples of this rank that are never pruned. Waits for the device."""
        return 0 if self._table.protect is None else count_bits(self._table.protect)

    num_replicas = property(lambda self: self._ranks.num_replicas)
    rank = property(lambda self: self._ranks.rank)
    epoch = property(lambda self: self._epochs.epoch)

    def update(
        self,
        index: Index,
        losses: torch.Tensor,
        *,
        scores: torch.Tensor | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean",
    ) -> torch.Tensor:
        """Records the losses of a batch as its samples' scores, and returns the weighted loss to call ``backward`` on.

        mean: sum(weight * loss) / B, the plain batch mean of the weighted losses, as in the paper; weights are not normalised.
        A policy's ``momentum`` m makes scores moving averages: m * old + (1 - m) * new for samples that have one.

        Args:
            index: Sample indices, int64 [B] (other integer dtypes, lists and a single int are converted). They may be on the CPU
                where the table is on a GPU. Where an index occurs twice, its later score counts.
            losses: Per-sample losses, float16, bfloat16, float32 or float64 [B], on the pruner's device; not changed.
            scores: What to remember instead of the losses, [B] of any floating dtype. Kept as float32; non-finite ones are
                counted and not kept.
            reduction: "mean" or "sum" over the batch, or "none".

        Returns:
            The weighted loss, differentiable with respect to ``losses``: a scalar, or [B] for "none". float32, or float64 for
            float64 losses.

        Raises:
            TypeError: A wrong dtype or type.
            ValueError: A wrong shape, device or reduction.
            IndexError: With ``check="sync"``: an index is out of range or belongs to another rank; nothing was recorded.
        """
        check_choice("reduction", reduction, ("mean", "sum", "none"))
        index = check_index(index, self.device)
        check_values("losses", losses, index, self.device)
        if scores is None:
            scores = losses
        else:
            check_values("scores", scores, index, self.device)
        if scores.dtype != torch.float32:
            scores = scores.detach().to(torch.float32)
        scores = scores.contiguous()
        # Each of torch's operators, here and in backward, takes the host microseconds: with 1/B in the weights one is enough.
        averaged = reduction == "mean" and losses.dtype == torch.float32 and losses.numel() > 0
        if torch.compiler.is_compiling():
            weights = ops.record(self._token, index, scores.detach(), self._handle, averaged)
        else:  # the same without the dispatcher, which costs as much again
            weights = self._record(index, scores, averaged)
        if averaged:
            return torch.dot(losses, weights)
        weighted = losses * weights
        if reduction == "mean":
            return weighted.mean()
        if reduction == "sum":
            return weighted.sum()
        return weighted

    def weights(self, index: Index) -> torch.Tensor:
        """Weights of samples under the current plan, float32 [B] on the pruner's device. Nothing is recorded.

        Args:
            index: Sample indices, as in ``update``.
        """
        _, marks = self._look_up(index)
        table = torch.tensor(ops.tier_weights(self._epochs.plan().cutoffs), dtype=torch.float32, device=self.device)
        return table[(marks >> 2).long()]

    def is_kept(self, index: Index) -> torch.Tensor | bool:
        """Whether the current plan keeps samples; for streams, which are filtered by their samples' ids.

        Args:
            index: Sample indices, as in ``update``.

        Returns:
            bool [B] on the pruner's device, or a Python bool for a single int. Samples of other ranks are not kept here.
        """
        _, marks = self._look_up(index)
        kept = (marks & 1).bool()
        return bool(kept[0]) if isinstance(index, Integral) else kept

    def scores(self, index: Index | None = None) -> torch.Tensor:
        """Scores as the table holds them, float32 on the pruner's device; NaN for unseen samples and those of other ranks.

        Args:
            index: Sample indices, as in ``update``; None is all N, in their order.
        """
        if index is None:
            slots = self._table.slots_of(torch.arange(self.num_samples, device=self.device))
        else:
            slots, _ = self._look_up(index)
        return torch.where(slots >= 0, self._table.scores[slots.clamp(min=0)], torch.nan)

    def set_epoch(self, epoch: int) -> None:
        """Selects an epoch, as in ``DistributedSampler``. Its plan is made when it is first needed, and stays.

        After ``load_state_dict`` an epoch before the current one is ignored, since trainers count from 0 or spin through past
        epochs when they restart.

        With ``steps_per_epoch`` it only says that the trainer begins another epoch of its own: plans follow each other, and none
        is dropped.

        Args:
            epoch: At least 0. Epochs from ``num_epochs`` on are full.
        """
        self._epochs.select(epoch)

    def grow(self, new_size: Sized | int | None = None, *, protect: Protect | None = None) -> None:
        """Takes up samples that were added at the end of the data set: ids [N, new_size), unseen, so kept until they have a score.

        It may be called between epochs: after an epoch was iterated to its end, which then is over, or before the plan of the
        current one is made, as after ``set_epoch``. Scores and protected samples stay what they are; the samples are dealt out
        anew, so each rank owns others than before. While it lasts there are two tables. On several ranks it is a collective call,
        in which all scores are sent to all ranks once. What was made of the old size is made anew: loaders with persistent
        workers, which hold a copy of the data set, and captured CUDA graphs of ``update``.

        Args:
            new_size: The number of samples, or a data set that takes the place of the old one; by default what the data set at
                hand has now. N leaves all as it is, at any time.
            protect: Samples that are never pruned, beside those which are not already: ids, or a mask of all ``new_size``.

        Raises:
            TypeError, IndexError, torch.OutOfMemoryError: As for the constructor.
            ValueError: ``new_size`` is below N, or is not the length of the data set.
            RuntimeError: An epoch is under way, as it always is with ``steps_per_epoch``, or the ranks do not agree. In every
                case nothing is changed.
        """
        if not self.lengths.is_dynamic:
            raise RuntimeError(
                "grow: with steps_per_epoch plans follow each other without a gap in which samples could be added: leave "
                "steps_per_epoch out"
            )
        source, size = new_data_source(self.data_source, new_size, self.num_samples)
        protected = None if protect is None else check_protect(protect, size)
        epochs, between = self._epochs, self._epochs.is_between()
        what = {"new_size": str(size), "epoch": str(epochs.epoch), "between epochs": str(between)}
        self._ranks.agree(what | {"protect": str(protect is not None)}, self.device, "grow was called")
        if size == self.num_samples and protected is None:
            self.data_source = source
            return
        if not between:
            raise RuntimeError(
                f"grow: epoch {epochs.epoch} is under way, and its plan is one of {self.num_samples} samples: iterate it to its "
                f"end first, or leave the rest of it out by set_epoch({epochs.epoch + 1}); and call grow before anything that "
                "needs the next plan, such as len(loader)"
            )
        with self._memory_for(size, protected is not None or self._table.protect is not None):
            table = self._new_table(size)
            move_scores(self._table, table, self._ranks)
            if protected is not None:
                protect_samples(table, protected)
            planner = self._new_planner(table)
        epochs.before_writing()  # what was read ahead from the old table is done before its memory is given away
        epochs.plan_with(planner)
        self.data_source, self.num_samples, self._table = source, size, table

    @property
    def progress(self) -> float:
        """Fraction of the run that is done, in [0, 1], as the losses that came back on this rank tell. The host knows it.

        (epoch + losses / indices of the epoch) / num_epochs; with ``steps_per_epoch=S``: steps / (num_epochs * S).
        """
        return self._epochs.progress()

    def steps(self, batch_size: int, drop_last: bool = False) -> int:
        """Steps of the current epoch on each rank, after a restart those that are left of it. Makes its plan.

        Args:
            batch_size: Indices in a batch of one rank.
            drop_last: Whether the loader leaves out a last batch that is smaller.

        Raises:
            TypeError: An iteration never ends.
        """
        return len(self.sampler.batches(batch_size, drop_last))

    def expected_steps(self, batch_size: int) -> int:
        """Expected number of steps of the whole run on each rank, for schedules and progress bars. Nothing waits for the device.

        Epochs planned so far count as they were, pruned ones to come save what the latest pruned one saved, or, before there
        is one, ``policy.expected_saved_fraction``. The longer the run, the better it is known. Each epoch is rounded to steps.

        Args:
            batch_size: Indices in a batch of one rank.

        Raises:
            TypeError: An iteration never ends.

        Example:
            >>> InfoBatch(1000, num_epochs=10, prune_ratio=0.5).expected_steps(10)  # 1 + 2 full epochs, 7 that save a quarter
            825
        """
        return expect_steps(self, batch_size)

    @property
    def stats(self) -> EpochStats:
        """What the plan of the current epoch decided, and what has come of it so far. Waits for the device.

        Raises:
            IndexError: ``update`` got indices that do not belong here.
        """
        plan, epochs = self._epochs.plan(), self._epochs
        faults = self._table.faults.tolist()
        self._table.raise_bad_indices(faults)
        return EpochStats(
            epoch=plan.epoch,
            pruned=plan.pruned,
            num_samples=self.num_samples,
            kept=plan.kept,
            saved_fraction=1.0 - plan.kept / self.num_samples,
            thresholds=plan.thresholds,
            seen=plan.seen,
            tier_sizes=plan.tier_sizes,
            tier_kept=plan.tier_kept,
            weights=tuple(ops.tier_weights(plan.cutoffs)[: len(plan.tier_sizes)]),
            scored=max(0, epochs.scored),
            non_finite=faults[0],
            total_saved_fraction=1.0 - epochs.planned_kept / epochs.planned_samples,
            plan_seconds=plan.seconds,
        )

    def histogram(self, bins: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
        """How the seen scores of all ranks are distributed. They are counted where they are, and no plan is made.

        Collective: on several ranks all must call it. Waits for the device.

        Args:
            bins: At least 1. They are evenly spaced in sign(x) * (1 + log2(|x| / m)), m being the smallest magnitude other than
                0: logarithmic on both sides of zero, from the smallest score to the largest.

        Returns:
            Counts, int64 [bins], and edges, float64 [bins + 1], on the CPU. A bin holds edges[i] <= score < edges[i + 1], the
            last one its upper edge too. Where nothing is seen all counts are 0.

        Raises:
            ValueError: ``bins`` is not at least 1.

        Example:
            >>> pruner = InfoBatch(4, num_epochs=3)
            >>> pruner.update(torch.tensor([0, 1, 2]), torch.tensor([1.0, 2.0, 16.0]))
            tensor(6.3333)
            >>> pruner.histogram(bins=2)
            (tensor([2, 1]), tensor([ 1.,  4., 16.], dtype=torch.float64))
        """
        return count_scores(self._table.scores, check_int("bins", bins, 1), self._ranks)

    def state_dict(self) -> dict[str, Any]:
        """All that a restart needs, between any two steps: scores, the plan in force and what of it was visited.

        Returns:
            Numbers and tensors that ``torch.save`` writes and ``torch.load(weights_only=True)`` reads. The tensors are the live
            ones: save or clone them before the next step. 4.5 bytes a sample.
        """
        return pack_state(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where ``state`` was taken: samples visited before do not come again, the others come in the same order.

        The policy, the schedule and the device may differ from those of the saved run: the epoch in progress is finished by its
        saved plan, later ones follow this pruner's arguments.

        Raises:
            ValueError: ``state`` does not fit: another format, data set size, seed or order. Nothing is changed then.
        """
        unpack_state(self, state)

    def __repr__(self) -> str:
        plan = self._epochs.plan_in_force
        planned = "" if plan is None else f": {plan.kept} kept, {1 - plan.kept / self.num_samples:.1%} saved"
        ranks = f", rank={self.rank} of {self.num_replicas}" if self.num_replicas > 1 else ""
        place = f"epoch {self.epoch} of {self.schedule.num_epochs}"
        if self.lengths.indices is not None:  # the epochs are the trainer's, and plans are counted apart
            place = f"{self.progress:.1%} of {self.schedule.num_epochs} epochs, plan {self.epoch}"
        return f"InfoBatch({self.num_samples} samples, {self.policy}, {place}{planned}, device={str(self.device)!r}{ranks})"

    def __reduce__(self) -> Any:
        raise TypeError(
            "InfoBatch cannot be pickled or copied: save pruner.state_dict() instead, and pass the data set, not the pruner, to "
            "worker processes"
        )

    def _record(self, index: torch.Tensor, scores: torch.Tensor, averaged: bool) -> torch.Tensor:
        """What ``ops.record`` does, at run time."""
        plan = self._epochs.plan()
        if self._check_first:
            faults = torch.zeros_like(self._table.faults)
            ops.look_up(self._table.shard, self._table.marks, faults, index)
            self._table.raise_bad_indices(faults.tolist())
        if self.policy.momentum:
            scores = self._table.blend(index, scores.detach(), self.policy.momentum)
        return self._epochs.record(plan, index, scores, averaged)

    def _look_up(self, index: Index) -> tuple[torch.Tensor, torch.Tensor]:
        checked = check_index(index, self.device)
        self._epochs.plan()
        table, found = self._table, torch.zeros_like(self._table.faults)
        slots, marks = ops.look_up(table.shard, table.marks, found, checked)
        found[2:3].zero_()  # it is no fault to ask about samples of other ranks
        table.faults[3:] = torch.where(found[1:2] > 0, found[3:], table.faults[3:])
        table.faults[:3] += found[:3]
        if self._check_first:
            table.raise_bad_indices(table.faults.tolist())
        return slots, marks


def _no_sampler() -> InfoBatchSampler | None:
    return None


def _choose_policy(policy: Policy | None, prune_ratio: float) -> Policy:
    if policy is None:
        return MeanThreshold(prune_ratio)
    if not isinstance(policy, Policy):
        raise TypeError(f"policy must be a policy such as QuantileTiers(), got {policy!r}")
    if prune_ratio != 0.5:
        raise ValueError(
            f"prune_ratio={prune_ratio!r} and policy={policy!r} were both given: a policy has prune ratios of its own, so leave "
            "prune_ratio out"
        )
    return policy
