"""A loop of one's own with Accelerate and InfoBatch, with gradient accumulation and a checkpoint; no download, seconds on a CPU.

    python examples/accelerate_loop.py
    accelerate launch --cpu --num_processes 2 examples/accelerate_loop.py

The lines marked (1) to (4) are all that infobatch_fast needs.
"""

from __future__ import annotations

import tempfile

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from infobatch_fast import InfoBatch, with_index
from infobatch_fast.integrations.accelerate import prepare

EPOCHS = 10


def main() -> None:
    accelerator = Accelerator(gradient_accumulation_steps=2)
    torch.manual_seed(0)
    points = torch.randn(2000, 2)
    dataset = TensorDataset(points, (points.prod(1) > 0).long())
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model, optimizer = accelerator.prepare(model, optimizer)

    pruner = InfoBatch(dataset, EPOCHS, device=accelerator.device)  # (1)
    loader = prepare(accelerator, DataLoader(with_index(dataset), 25, sampler=pruner.sampler))  # (2)

    with tempfile.TemporaryDirectory() as folder:
        for epoch in range(pruner.epoch, EPOCHS):
            loader.set_epoch(epoch)  # (3)
            for index, (x, y) in loader:
                with accelerator.accumulate(model):
                    loss = pruner.update(index, F.cross_entropy(model(x), y, reduction="none"))  # (4)
                    accelerator.backward(loss)
                    optimizer.step()
                    optimizer.zero_grad()
            accelerator.print(f"epoch {epoch}: kept {pruner.stats.kept} of {len(dataset)}, last loss {loss.item():.3f}")
        if accelerator.num_processes == 1:  # ranks share a folder in earnest
            accelerator.save_state(folder)  # with the pruner's state; load_state brings it back
    accelerator.end_training()


if __name__ == "__main__":
    main()
