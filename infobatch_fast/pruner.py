"""InfoBatch, the pruner: it keeps the scores, decides which samples to skip, weighs the losses, and goes into checkpoints."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, Literal, NoReturn

import torch
import torch.distributed as dist

from .arguments import Arguments
from .batch_calls import BatchCalls
from .engine.checks import check_choice, check_fraction, check_int, check_size
from .engine.device import check_device
from .engine.engine import Engine
from .engine.expected import expected_steps, visits_share
from .engine.histogram import count_scores
from .engine.lengths import Lengths
from .engine.norms import NORMS
from .engine.ops import MAX_BINS
from .engine.protect import Protect, count_bits
from .engine.ranks import find_ranks
from .engine.schedule import Schedule
from .engine.settings import Settings
from .policy import MeanThreshold, Policy
from .sampler import InfoBatchSampler
from .stats import EpochStats


class InfoBatch(Arguments, BatchCalls):
    """Unbiased dynamic data pruning: skips well-learned samples at random and weights the others so that the gradient stays right.

    In a pruned epoch, each sample whose last recorded loss H is below the mean is skipped with probability r. If it is kept, it
    weighs 1/(1 - r). All other samples weigh 1 (Eq. 3 of the paper). So the expected sum of weighted losses is that of the full
    data set. Unseen samples are always kept. The last epochs are full (Eq. 10).

    Args:
        data_source: The data set, or the number N of its samples; 1 <= N <= 2^40.
        num_epochs: Number of epochs of the run, at least 1. It only decides where pruning ends.
        prune_ratio: r in [0, 1), the probability that a sample below the mean is skipped. It is not the fraction saved, which
            depends on how many samples are below.
        delta: Fraction of the run after which all epochs are full: epochs in [warmup_epochs, floor(delta * num_epochs)) are pruned.
        warmup_epochs: Full epochs at the start.
        policy: A rule to use instead of ``MeanThreshold(prune_ratio)``: ``ImportanceSampling``, ``QuantileTiers``,
            ``RandomPruning``, ``NoPruning``.
        shuffle: Visit samples in a new random order each epoch; otherwise in the order of their indices.
        shard: "scattered" deals the samples to the ranks by a seeded permutation. "contiguous" gives each rank a range of indices,
            for data that is read in shards; ``shuffle=False`` implies it. With ``shuffle=True`` the order is shuffled either way.
        seed: In [0, 2^64). Together with the epoch it decides everything that is random. It must be the same on all ranks.
        num_replicas: Number of data-parallel ranks. The default is the size of ``process_group`` or of the default group, or 1
            without a group.
        rank: The number of this rank, in [0, num_replicas). The default is its number in the group.
        process_group: The data-parallel process group.
        drop_last: With several ranks: cut the longer ranks instead of repeating samples of the shorter ones.
        device: Where scores and plan live: "cpu" (the default), "cuda" or "cuda:k". Take the device that computes the losses.
        rescale: "epoch" takes the paper's weights: in expectation, an epoch's gradients add up to those of the full data. Each step
            is larger, by N / kept. "step" takes these weights times kept / N: each step's expected gradient is that of the full
            data, and there are fewer steps. SGD near its highest learning rate needs "step" (docs/steps.md).
        batch_size: Samples in a step on each rank; only for ``steps_per_epoch``.
        steps_per_epoch: How long an epoch is. By default it is as long as its plan. With a number S, each iteration of the sampler
            has S * batch_size indices on each rank, and the next plan begins where the last one ends. ``num_epochs`` and
            ``set_epoch`` then count these epochs, and ``epoch`` counts the plans. With ``math.inf`` an iteration never ends, and
            ``num_epochs`` counts plans.
        protect: Samples that are never pruned and weigh 1, whatever their score: their ids, or a bool mask of all N. Their scores
            count in the threshold. Pass the same on all ranks. A mask takes an eighth of a byte per sample on the device; None
            takes nothing.
        check: "deferred" counts, on the device, indices that do not belong to the data set. The error is raised where the host
            reads the device anyway: at the next plan or at ``stats``. "sync" checks the indices at the start of each ``update``,
            and waits for the device.

    Attributes:
        sampler: Pass it to a ``DataLoader``. It holds the engine and not the pruner, so each is freed as soon as nobody uses it.
        engine: The inner parts, for the modules of this package. It may change with any release.

    Raises:
        TypeError: ``data_source`` has no length, an argument is of a wrong type, or the repr of ``policy`` holds an address.
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
        rescale: Literal["epoch", "step"] = "epoch",
        batch_size: int | None = None,
        steps_per_epoch: int | float | None = None,
        protect: Protect | None = None,
        check: Literal["deferred", "sync"] = "deferred",
    ) -> None:
        check_choice("shard", shard, ("scattered", "contiguous"))
        check_choice("check", check, ("deferred", "sync"))
        check_choice("rescale", rescale, ("epoch", "step"))
        num_samples = check_size(data_source)
        settings = Settings(
            schedule=Schedule(num_epochs, delta, warmup_epochs),
            policy=_choose_policy(policy, prune_ratio),
            shuffle=bool(shuffle),
            shard=shard if shuffle else "contiguous",
            seed=check_int("seed", seed, 0, 2**64 - 1),
            drop_last=bool(drop_last),
            lengths=Lengths(batch_size, steps_per_epoch),
            rescale=rescale,
            check_first=check == "sync",
        )
        ranks = find_ranks(num_replicas, rank, process_group)
        self.engine = Engine(data_source, num_samples, settings, ranks, check_device(device), protect)
        self.sampler = InfoBatchSampler(self.engine)

    @property
    def epoch(self) -> int:
        """The current epoch: the number of its plan."""
        return self.engine.epochs.epoch

    @property
    def protected(self) -> int:
        """Samples of this rank that are never pruned. Waits for the device."""
        protect = self.engine.table.protect
        return 0 if protect is None else count_bits(protect)

    # ---- an epoch ----

    def set_epoch(self, epoch: int) -> None:
        """Selects an epoch, as in ``DistributedSampler``. Its plan is made when it is first needed, and then stays.

        After ``load_state_dict`` an epoch before the current one is ignored, since trainers that restart count from 0 or run
        through past epochs.

        With ``steps_per_epoch`` the call says that the trainer begins another of its own epochs. The rest of the trainer's previous
        epoch is left out. Plans still follow each other, and none is dropped.

        Args:
            epoch: At least 0. Epochs from ``num_epochs`` on are full.
        """
        self.engine.epochs.select(epoch)

    def grow(self, new_size: Sized | int | None = None, *, protect: Protect | None = None) -> None:
        """Adds samples that the data set gained at its end, ids [N, new_size). They are unseen, so kept until they have a score.

        Call it between epochs: after an epoch was iterated to its end, or before the current epoch has a plan, as right after
        ``set_epoch``. An epoch that was iterated to its end is then over. Scores and protected samples stay as they are. The call
        deals the samples to the ranks again, so each rank owns other samples than before. It holds two tables in memory. On several
        ranks it is collective, and sends all scores to all ranks once.

        Rebuild what was made for the old size: loaders with persistent workers, which hold a copy of the data set, and captured
        CUDA graphs of ``update``.

        Args:
            new_size: The number of samples, or a data set that replaces the old one. The default is the present length of the data
                set. N changes nothing, and is allowed at any time.
            protect: More samples that are never pruned, besides those that already are: ids, or a mask of all ``new_size``.

        Raises:
            TypeError, IndexError, torch.OutOfMemoryError: As for the constructor.
            ValueError: ``new_size`` is below N, or is not the length of the data set.
            RuntimeError: An epoch is under way (with ``steps_per_epoch`` one always is), or the ranks do not agree. Whichever error
                is raised, nothing is changed.
        """
        self.engine.grow(new_size, protect)

    @property
    def progress(self) -> float:
        """Fraction of the run that is done, in [0, 1], by the losses that this rank has recorded. Does not wait for the device.

        (epoch + losses / indices of the epoch) / num_epochs; with ``steps_per_epoch=S``: steps / (num_epochs * S).
        """
        return self.engine.epochs.progress()

    @property
    def visited_fraction(self) -> float:
        """Fraction of the run's visits done, in [0, 1]: visited samples / (visited + expected). Does not wait for the device.

        ``progress`` counts all epochs alike. Here a full epoch counts for more than a pruned one, in proportion to the samples that
        it visits. Epochs to come count as in ``expected_steps``. If epochs are cut short, an epoch counts as done where the
        previous one ended, so the last step of the run reaches 1. The fraction falls when a plan keeps more than was expected. With
        ``steps_per_epoch=S`` all epochs visit equally many samples, so it moves as ``progress`` does. With ``math.inf`` the epochs
        are the plans.

        Example:
            >>> pruner = InfoBatch(1000, num_epochs=2, delta=1.0)  # 1000 visits, and then 750 are expected
            >>> _ = pruner.update(list(range(700)), torch.ones(700))
            >>> pruner.progress, pruner.visited_fraction
            (0.35, 0.4)
        """
        return visits_share(self.engine.epochs)

    def steps(self, batch_size: int, drop_last: bool = False) -> int:
        """Steps of the current epoch on each rank; after a restart, the steps that are left. Makes the plan of the epoch.

        Args:
            batch_size: Indices in a batch of one rank.
            drop_last: Whether the loader leaves out a smaller last batch.

        Raises:
            TypeError: An iteration never ends.
        """
        return len(self.sampler.batches(batch_size, drop_last))

    def expected_steps(self, batch_size: int) -> int:
        """Expected number of steps of the whole run on each rank, for schedules and progress bars. Does not wait for the device.

        Epochs planned so far count as they were. A pruned epoch to come saves what the latest pruned epoch saved or, before there
        is one, ``policy.expected_saved_fraction``. The estimate gets better during the run. Each epoch is rounded to whole steps.

        Args:
            batch_size: Indices in a batch of one rank.

        Raises:
            TypeError: An iteration never ends.

        Example:
            >>> InfoBatch(1000, num_epochs=10, prune_ratio=0.5).expected_steps(10)  # 1 + 2 full epochs, 7 that save a quarter
            825
        """
        return expected_steps(self.engine.epochs, batch_size)

    # ---- what came of it ----

    @property
    def stats(self) -> EpochStats:
        """Statistics of the current epoch: what its plan decided, and what happened so far. Waits for the device.

        Raises:
            IndexError: ``update`` got indices that are out of range, or that belong to another rank.
        """
        return EpochStats.of(self.engine.epochs)

    def histogram(self, bins: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
        """Counts the seen scores of all ranks in bins. The device that holds the scores counts them, and no plan is made.

        Collective: on several ranks all must call it. Waits for the device.

        Args:
            bins: The number of bins, 1 to 4,096. They are evenly spaced in sign(x) * (1 + log2(|x| / m)), where m is the smallest
                magnitude other than 0. So they are logarithmic on both sides of zero, from the smallest score to the largest.

        Returns:
            Counts, int64 [bins], and edges, float64 [bins + 1], on the CPU. A bin holds edges[i] <= score < edges[i + 1]; the last
            bin holds its upper edge too. If nothing is seen, all counts are 0.

        Raises:
            ValueError: ``bins`` is not in [1, 4096].

        Example:
            >>> pruner = InfoBatch(4, num_epochs=3)
            >>> pruner.update(torch.tensor([0, 1, 2]), torch.tensor([1.0, 2.0, 16.0]))
            tensor(6.3333)
            >>> pruner.histogram(bins=2)
            (tensor([2, 1]), tensor([ 1.,  4., 16.], dtype=torch.float64))
        """
        return count_scores(self.engine.table.scores, check_int("bins", bins, 1, MAX_BINS), self.engine.ranks)

    # ---- checkpoints ----

    def state_dict(self) -> dict[str, Any]:
        """All that a restart needs, between any two steps: the scores, the plan in force and which of its samples were visited.

        Returns:
            Numbers and tensors that ``torch.save`` writes and ``torch.load(weights_only=True)`` reads. The tensors are the live
            ones: save or clone them before the next step. They take 4.75 bytes a sample.
        """
        return self.engine.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes where ``state`` was taken: samples visited before do not come again, and the others come in the same order.

        The policy, the schedule, ``rescale`` and the device may differ from those of the saved run. The epoch in progress is
        finished by its saved plan; later epochs follow this pruner's arguments. A new ``rescale`` takes effect at once, except for
        losses that were on their way: these keep their weights.

        Raises:
            ValueError: ``state`` does not fit (another format, data set size, seed or order) or is damaged; nothing is changed.
        """
        self.engine.load_state_dict(state)

    def __repr__(self) -> str:
        plan = self.engine.epochs.plan_in_force
        planned = "" if plan is None else f": {plan.kept} kept, {1 - plan.kept / self.num_samples:.1%} saved"
        ranks = f", rank={self.rank} of {self.num_replicas}" if self.num_replicas > 1 else ""
        place = f"epoch {self.epoch} of {self.schedule.num_epochs}"
        if self.lengths.indices is not None:  # the epochs are the trainer's, and plans are counted apart
            place = f"{self.progress:.1%} of {self.schedule.num_epochs} epochs, plan {self.epoch}"
        return f"InfoBatch({self.num_samples} samples, {self.policy}, {place}{planned}, device={str(self.device)!r}{ranks})"

    def __copy__(self) -> InfoBatch:
        return self

    def __iter__(self) -> NoReturn:
        raise TypeError(
            "an InfoBatch is not a sampler: pass sampler=pruner.sampler, or batch_sampler=pruner.sampler.batches(batch_size)"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> InfoBatch:
        """The same pruner: a copy of a model or a loader (EMA, SWA) trains on the same samples."""
        return self

    def __reduce__(self) -> NoReturn:
        self.engine.__reduce__()


def _choose_policy(policy: Policy | None, prune_ratio: float) -> Policy:
    if policy is None:
        return MeanThreshold(prune_ratio)
    if not isinstance(policy, Policy):
        raise TypeError(f"policy must be an object such as RandomPruning(0.5) or ImportanceSampling(0.4), got {policy!r}")
    if " at 0x" in repr(policy):
        raise TypeError(
            f"policy must have a repr that shows its settings, because ranks compare it, got {policy!r}: the address in it differs "
            f"between processes. Make {type(policy).__name__} a dataclass(frozen=True) whose fields are numbers and strings"
        )
    if policy.by not in NORMS:
        raise ValueError(
            f"policy.by must be one of {', '.join(map(repr, NORMS))}, got {policy.by!r}: stats.added_noise reads it. If the field "
            f"of {type(policy).__name__} means something else, give it another name"
        )
    check_fraction("policy.momentum", policy.momentum, False, "the share of a sample's old score that remains")
    if prune_ratio != 0.5:
        raise ValueError(
            f"prune_ratio={prune_ratio!r} and policy={policy!r} were both given: a policy has its own prune ratios, so leave "
            "prune_ratio out"
        )
    return policy
