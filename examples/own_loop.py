"""Gradient accumulation, mixed precision, a compiled step and an optimiser of choice, in a loop of one's own.

    python examples/own_loop.py --optimizer LAMB --compile

The lines marked (1) to (3) are all that infobatch_fast needs. LARS and LAMB need ``pip install pytorch_optimizer``.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from infobatch_fast import InfoBatch, with_index

ACCUMULATE = 2


def make_data(size: int) -> TensorDataset:
    """Points in 16 dimensions in five classes, drawn by a fixed network."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(size, 16, generator=generator)
    mixing, classes = torch.randn(16, 16, generator=generator), torch.randn(16, 5, generator=generator)
    return TensorDataset(points, (torch.tanh(points @ mixing / 4) @ classes).argmax(1))


def make_optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    if name == "SGD":
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if name == "AdamW":
        return torch.optim.AdamW(model.parameters(), lr=0.003)
    import pytorch_optimizer  # noqa: PLC0415

    if name == "LARS":
        return pytorch_optimizer.LARS(model.parameters(), lr=10.0, momentum=0.9)
    return pytorch_optimizer.Lamb(model.parameters(), lr=0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimizer", choices=["SGD", "AdamW", "LARS", "LAMB"], default="SGD")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--size", type=int, default=6400)
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler on a CPU, and a minute the first time")
    args = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = torch.float16 if device.type == "cuda" else torch.bfloat16

    dataset = make_data(args.size)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5)).to(device)
    optimizer = make_optimizer(args.optimizer, model)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)

    pruner = InfoBatch(dataset, args.epochs, device=device)  # (1)
    loader = DataLoader(with_index(dataset), batch_size=64, sampler=pruner.sampler)  # (2)

    def loss_of(index: torch.Tensor, points: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype=precision):
            return pruner.update(index, F.cross_entropy(model(points), labels, reduction="none"))  # (3)

    step = torch.compile(loss_of, fullgraph=True) if args.compile else loss_of
    for epoch in range(args.epochs):
        pruner.set_epoch(epoch)
        batches, mean_loss = len(loader), 0.0
        for batch, (index, (points, labels)) in enumerate(loader, start=1):
            loss = step(index, points.to(device), labels.to(device))
            scaler.scale(loss / ACCUMULATE).backward()  # the scores are the losses before the scaling
            if batch % ACCUMULATE == 0 or batch == batches:
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
            mean_loss += loss.item() / batches
        print(f"epoch {epoch}: {batches} batches, weighted loss {mean_loss:.3f}")
    print(f"saved {pruner.stats.total_saved_fraction:.1%} of the samples")


if __name__ == "__main__":
    main()
