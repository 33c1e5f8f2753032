"""Trains a small network on scikit-learn's digits, notes each epoch as a JSON line and in TensorBoard, and draws the report.

    python examples/logging_run.py --out build/logging_run          # seconds; nothing is downloaded
    tensorboard --logdir build/logging_run/tensorboard

It needs scikit-learn, tensorboard and matplotlib. What a training loop of your own needs is marked with (1) and (2).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from infobatch_fast import InfoBatch, with_index
from infobatch_fast.__main__ import main as infobatch_fast
from infobatch_fast.integrations.tensorboard import TensorBoardWriter
from infobatch_fast.logs import JsonLines


def train(epochs: int, out: Path) -> Path:
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    dataset = TensorDataset(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels))
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    pruner = InfoBatch(dataset, num_epochs=epochs)
    loader = DataLoader(with_index(dataset), batch_size=64, sampler=pruner.sampler)
    logs = JsonLines(out / "run.jsonl"), TensorBoardWriter(out / "tensorboard")  # (1)
    for epoch in range(epochs):
        pruner.set_epoch(epoch)
        start, correct = perf_counter(), 0
        for index, (x, y) in loader:
            outputs = model(x)
            loss = pruner.update(index, F.cross_entropy(outputs, y, reduction="none"))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            correct += int((outputs.argmax(1) == y).sum())
        seconds = perf_counter() - start  # of training alone; else it is the time since the line before
        for log in logs:
            log.write(pruner, seconds=seconds, accuracy=correct / pruner.stats.kept)  # (2) after the last step of an epoch
        print(pruner)
    return out / "run.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description="A run that is logged and reported.")
    parser.add_argument("--epochs", type=int, default=24, help="at least 1 (default: 24)")
    parser.add_argument("--out", type=Path, default=Path("build/logging_run"), help="the folder for logs and report")
    args = parser.parse_args()
    if args.epochs < 1:
        parser.error("--epochs must be at least 1")
    log = train(args.epochs, args.out)
    infobatch_fast(["report", str(log), "-o", str(args.out / "report.png")])
    infobatch_fast(["report", str(log), "-o", str(args.out / "report.html")])


if __name__ == "__main__":
    main()
