"""Short training runs for the tests. A loss depends on the sample and the epoch alone, so that runs can be compared."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from infobatch_fast import InfoBatch

# For tests that hand over ids as no loader would, or select epochs as no trainer would: what is noticed then is no fault.
ARBITRARY_NOTICES = (
    r"(index. \d+ losses came for|update got \d+ losses|set_epoch.\d+. is after the last|\d+ samples of the plans before"
    r"|after load_state_dict the sampler yielded|set_epoch.\d+. was called first|epoch \d+ was trained on \d+ times"
    r"|\d+ scores are negative)"
)
ARBITRARY = pytest.mark.filterwarnings(f"ignore:{ARBITRARY_NOTICES}")


def loss_of(index: torch.Tensor, epoch: int = 0) -> torch.Tensor:
    """float32 losses in [0, 1), well scattered."""
    return (index.cpu() * 7919 + epoch * 104729) % 10007 / 10007.0


def record(pruner: InfoBatch, index: torch.Tensor | list[int], losses: torch.Tensor | list[float], **kwargs: Any) -> torch.Tensor:
    """``update`` with both on the pruner's device."""
    losses = torch.as_tensor(losses).to(pruner.device)
    return pruner.update(torch.as_tensor(index), losses, **kwargs)


def record_all(pruner: InfoBatch, losses: torch.Tensor | list[float] | None = None) -> None:
    """One loss for every sample, in one call."""
    index = torch.arange(pruner.num_samples)
    record(pruner, index, loss_of(index, pruner.epoch) if losses is None else losses)


def pruner_of(device: torch.device, **kwargs: Any) -> InfoBatch:
    """300 samples and ten epochs, all of them pruned."""
    return InfoBatch(300, 10, delta=1.0, device=device, **kwargs)


def half_pruned(device: torch.device, prune_ratio: float = 0.5, **kwargs: Any) -> InfoBatch:
    """Samples 0 ... 499 have score 0 and weigh 1 / (1 - prune_ratio), samples 500 ... 999 score 2 and weigh 1."""
    pruner = InfoBatch(1000, 10, prune_ratio=prune_ratio, delta=1.0, device=device, **kwargs)
    record_all(pruner, [0.0] * 500 + [2.0] * 500)
    pruner.set_epoch(1)
    len(pruner.sampler)  # makes the plan
    return pruner


def train(pruner: InfoBatch, batch_size: int = 8, steps: int | None = None) -> list[int]:
    """An epoch, or its first ``steps`` batches; the indices that it visits."""
    visited: list[int] = []
    for step, batch in enumerate(pruner.sampler.batches(batch_size)):
        if step == steps:
            break
        record(pruner, batch, loss_of(torch.tensor(batch), pruner.epoch))
        visited += batch
    return visited


def kept_set(pruner: InfoBatch) -> list[int]:
    """Samples that the current plan keeps, ascending."""
    kept = pruner.is_kept(torch.arange(pruner.num_samples))
    assert isinstance(kept, torch.Tensor)
    return kept.nonzero().flatten().tolist()


def snapshot(pruner: InfoBatch) -> dict[str, Any]:
    """All that a pruner knows, comparable with ==: tensors as bytes, so that NaN equals NaN."""
    return {
        name: value.cpu().numpy().tobytes() if isinstance(value, torch.Tensor) else value
        for name, value in pruner.state_dict().items()
    }


def decisions(pruner: InfoBatch) -> dict[str, Any]:
    """What the current plan decided, and what has come of it, comparable with ==."""
    stats = dataclasses.asdict(pruner.stats)
    del stats["plan_seconds"], stats["added_noise"]  # which differ with the moment at which they are asked for
    index = torch.arange(pruner.num_samples)
    return stats | {"kept_set": kept_set(pruner), "weight_of": pruner.weights(index).tolist()}


def order(pruner: InfoBatch) -> list[int]:
    """The order of the current plan, without iterating."""
    return pruner.sampler.indices(0, None).tolist()


def capture(pruner: InfoBatch, index: torch.Tensor, losses: torch.Tensor) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
    """A CUDA graph of an update, after one on a stream of its own, and the loss that each replay writes."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        pruner.update(index, losses)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = pruner.update(index, losses)
    return graph, out
