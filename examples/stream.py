"""A stream of samples, read by worker processes and pruned: KeptOnly in a loop of one's own.

    python examples/stream.py

The lines marked (1) to (4) are all that infobatch_fast needs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from infobatch_fast import InfoBatch, KeptOnly


class Spirals(IterableDataset[tuple[int, tuple[torch.Tensor, torch.Tensor]]]):
    """Points of two spirals, as (id, (point, class)); each worker makes its own part, as it would read its own shards."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[tuple[int, tuple[torch.Tensor, torch.Tensor]]]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        for sample in range(worker, self.size, workers):
            noise = torch.randn(2, generator=torch.Generator().manual_seed(sample)) * 0.05
            label, radius = sample % 2, (sample // 2) / (self.size // 2)
            angle = torch.tensor(6.0 * radius + 3.1416 * label)
            yield sample, (radius * torch.stack([angle.cos(), angle.sin()]) + noise, torch.tensor(label))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    torch.manual_seed(0)

    model = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.005)

    pruner = InfoBatch(args.size, args.epochs)  # (1)
    kept = KeptOnly(Spirals(args.size), pruner)  # (2)
    loader = DataLoader(kept, batch_size=64, num_workers=args.workers, persistent_workers=args.workers > 0)

    for epoch in range(args.epochs):
        kept.set_epoch(epoch)  # (3)
        right = 0
        for index, (points, labels) in loader:
            logits = model(points)
            loss = pruner.update(index, F.cross_entropy(logits, labels, reduction="none"))  # (4)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            right += int((logits.argmax(1) == labels).sum())
        stats = pruner.stats
        print(f"epoch {epoch}: trained on {stats.scored} of {stats.num_samples} samples, {right / stats.scored:.1%} of them right")
    print(f"saved {pruner.stats.total_saved_fraction:.1%} of the samples")


if __name__ == "__main__":
    main()
