"""Hugging Face Accelerate: a prepared loader that is not sharded a second time, and the pruner's state beside the accelerator's."""

from __future__ import annotations

import os
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.utils.data import DataLoader

from ..engine.engine import Engine
from ..engine.ranks import Ranks
from ..engine.sources import refuse_ids_inside
from ..pruner import InfoBatch
from ..sampler import InfoBatchBatchSampler, InfoBatchSampler

LOWEST_VERSION, TESTED = "1.1.0", "1.1.0, 1.3.0 and 1.15.0"

try:
    from accelerate import Accelerator
    from accelerate.data_loader import prepare_data_loader
except ImportError as error:
    raise ImportError(
        f"infobatch_fast.integrations.accelerate needs accelerate>={LOWEST_VERSION} (tested: {TESTED}): pip install -U accelerate"
    ) from error


def prepare(accelerator: Accelerator, loader: DataLoader[Any], name: str | None = "infobatch") -> Any:
    """Does for the training loader what ``accelerator.prepare`` does for others, but leaves its sampler alone.

    Device placement, gradient accumulation and stateful loaders work as after ``accelerator.prepare``. That call would deal the
    batches out among the ranks once more, but the pruner's sampler yields this rank's samples already. Model, optimizer and
    evaluation loaders go through ``accelerator.prepare``.

    Select epochs by the prepared loader's ``set_epoch``, which also selects them in the pruner: accelerate counts its own epochs,
    and passes on their number at each iteration. ``gather_for_metrics`` leaves out nothing. In the epoch that is resumed after a
    restart, iterating over a loader of ``skip_first_batches`` raises an error.

    Args:
        accelerator: The accelerator, made before the pruner, so that the pruner finds the process group.
        loader: ``DataLoader(with_index(dataset), B, sampler=pruner.sampler)``, or ``batch_sampler=pruner.sampler.batches(B)``, with
            B samples a rank.
        name: The name of a folder. ``accelerator.save_state(folder)`` writes the pruner's state to ``folder/name``, and
            ``load_state`` reads it, on any number of ranks. With None they leave out the pruner's state.

    Returns:
        The prepared loader. ``accelerator.prepare`` returns it unchanged.

    Raises:
        TypeError: The loader's sampler is not a pruner's.
        ValueError: The loader was sharded already, its data set is not the pruner's, or pruner and accelerator do not fit.

    Example:
        >>> pruner = InfoBatch(dataset, num_epochs=3, device=accelerator.device)                        # doctest: +SKIP
        >>> loader = DataLoader(with_index(dataset), batch_size=32, sampler=pruner.sampler)             # doctest: +SKIP
        >>> loader = prepare(accelerator, loader)                                                       # doctest: +SKIP
    """
    sampler = _sampler_of(loader)
    engine = sampler.engine
    _check_fit(accelerator, engine.ranks)
    _check_data(loader.dataset, engine.table.num_samples)
    sampler.check_loader = partial(_refuse_skipping, accelerator)
    prepared = prepare_data_loader(
        loader,
        accelerator.device,
        num_processes=1,  # of those that accelerate would deal the batches to
        process_index=0,
        put_on_device=accelerator.device_placement,
        rng_types=list(accelerator.rng_types or ()),
        dispatch_batches=False,
        non_blocking=accelerator.non_blocking,
        use_stateful_dataloader=accelerator.use_stateful_dataloader,
    )
    prepared._is_accelerate_prepared = True  # accelerate's own mark of a loader that it must not wrap
    # gather_for_metrics would cut the last batch to what the length of the data set leaves over, and a plan is shorter than that.
    prepared._drop_last = True  # it does not ask for that length then; batches are the sampler's, whatever this says
    if name is not None:
        folder = name
        accelerator.register_save_state_pre_hook(lambda models, weights, output: _save(engine, os.path.join(output, folder)))
        accelerator.register_load_state_pre_hook(lambda models, source: _load(engine, os.path.join(source, folder)))
    return accelerator.prepare_data_loader(prepared)


def save(pruner: InfoBatch, folder: str | os.PathLike[str]) -> None:
    """Writes a pruner's state to a folder, each rank its part. All ranks call it, after the same step.

    Args:
        pruner: What to save.
        folder: The folder to write to. It is made, and all ranks must see it.
    """
    _save(pruner.engine, folder)


def _save(engine: Engine, folder: str | os.PathLike[str]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        state_dict_saver.save({"pruner": engine}, checkpoint_id=folder, process_group=engine.ranks.group)


def load(pruner: InfoBatch, folder: str | os.PathLike[str]) -> None:
    """Reads a pruner's state from a folder that ``save`` wrote, on any number of ranks. All ranks call it.

    Raises:
        FileNotFoundError: The folder holds no state, or the state was not written to its end.
        ValueError: The state belongs to another data set, seed or order.
    """
    _load(pruner.engine, folder)


def _load(engine: Engine, folder: str | os.PathLike[str]) -> None:
    if not (Path(folder) / ".metadata").exists():
        raise FileNotFoundError(
            f"{folder} holds no state of an InfoBatch: the checkpoint was interrupted while it was written, or made without "
            "InfoBatch. Resume from another checkpoint, or start with new scores: load the weights alone, and do not resume"
        )
    saved = getattr(FileSystemReader(folder).read_metadata().state_dict_metadata.get("pruner.scores"), "size", [None])[0]
    if saved != engine.table.num_samples:
        raise ValueError(
            f"{folder} was saved for a data set of {saved} samples, but this pruner has {engine.table.num_samples}: resume with "
            "the data set of the saved run"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        state_dict_loader.load({"pruner": engine}, checkpoint_id=folder, process_group=engine.ranks.group)


def _sampler_of(loader: DataLoader[Any]) -> InfoBatchSampler | InfoBatchBatchSampler:
    samplers = [getattr(loader, name, None) for name in ("sampler", "batch_sampler")]
    for sampler in samplers:
        if isinstance(sampler, (InfoBatchSampler, InfoBatchBatchSampler)):
            return sampler
    if any(type(sampler).__name__ in ("BatchSamplerShard", "SkipBatchSampler") for sampler in samplers):
        raise ValueError(
            "loader was prepared by accelerator.prepare, which deals its batches out among the ranks a second time: pass the "
            "DataLoader itself, DataLoader(with_index(dataset), ..., sampler=pruner.sampler)"
        )
    raise TypeError(
        f"loader must draw from a pruner's sampler, got {type(samplers[0]).__name__}: construct it with sampler=pruner.sampler, "
        "without shuffle, and put no other sampler around that one"
    )


def _check_fit(accelerator: Accelerator, ranks: Ranks) -> None:
    if ranks.num_replicas != accelerator.num_processes and ranks.group is None:
        raise ValueError(
            f"the pruner counts {ranks.num_replicas} rank(s) and the accelerator {accelerator.num_processes}: construct "
            "Accelerator() before InfoBatch(...), or give InfoBatch the data-parallel process_group; ranks without GPUs need "
            "Accelerator(cpu=True), or TrainingArguments(use_cpu=True)"
        )
    if accelerator.split_batches:
        raise ValueError(
            "split_batches=True splits one batch among all ranks, but here each rank has its own batches: leave it False"
        )
    if accelerator.dispatch_batches:
        raise ValueError("dispatch_batches=True lets only rank 0 read, but here each rank reads its own samples: leave it False")


def _check_data(dataset: Any, num_samples: int) -> None:
    refuse_ids_inside("the loader's data set", dataset)
    if hasattr(dataset, "__len__") and len(dataset) != num_samples:
        raise ValueError(
            f"the loader's data set has {len(dataset)} samples and the pruner {num_samples}: pass "
            "DataLoader(with_index(dataset), ...) of the data set that InfoBatch got"
        )


def _refuse_skipping(accelerator: Accelerator, sampler: Any) -> None:
    """Called when the sampler is iterated: refuses a loader of ``skip_first_batches`` after a restart."""
    skipping = getattr(accelerator.gradient_state.active_dataloader, "batch_sampler", None)
    skipped = getattr(skipping, "skip_batches", 0)
    inner = getattr(skipping, "batch_sampler", None)
    if skipped and sampler in (inner, getattr(inner, "sampler", None)) and sampler.engine.epochs.plan().restored:
        raise RuntimeError(
            f"skip_first_batches skips {skipped} batches that were not trained on: after a restart the loader already begins after "
            "the batches that were. Leave skip_first_batches out, and iterate over the prepared loader itself"
        )
