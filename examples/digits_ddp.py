"""Handwritten digits on several ranks with DDP; ended at any moment, it goes on from its last checkpoint on any number of ranks.

    torchrun --nproc_per_node 2 examples/digits_ddp.py --checkpoint /tmp/digits
    torchrun --nproc_per_node 3 examples/digits_ddp.py --checkpoint /tmp/digits

The lines marked (1), (2) and (3) are all that infobatch_fast needs; the checkpoint takes the pruner as one more entry. It needs
scikit-learn for the data.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from infobatch_fast import InfoBatch, with_index

SEED = 0
TEST_SAMPLES = 360


def load_data(device: torch.device) -> tuple[TensorDataset, torch.Tensor, torch.Tensor]:
    """The training set, and images and labels of the test set; the same split on all ranks."""
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SEED))
    test, train = shuffled[:TEST_SAMPLES], shuffled[TEST_SAMPLES:]
    return TensorDataset(images[train], labels[train]), images[test].to(device), labels[test].to(device)


class Checkpoints:
    """Model, optimiser and pruner in one folder a checkpoint, named by the step."""

    def __init__(self, folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, pruner: InfoBatch) -> None:
        self.folder, self.model, self.optimizer, self.pruner = folder, model, optimizer, pruner

    def whole(self) -> list[Path]:
        """Those that were written to their end, the last one last: ``.metadata`` is what DCP writes last."""
        return sorted((file.parent for file in self.folder.glob("*/.metadata")), key=lambda path: int(path.name))

    def save(self, step: int) -> None:
        model_state, optimizer_state = get_state_dict(self.model, self.optimizer)
        state = {"model": model_state, "optimizer": optimizer_state, "pruner": self.pruner}
        dcp.save(state, checkpoint_id=self.folder / str(step))
        if dist.get_rank() == 0:
            for old in self.whole()[:-2]:
                shutil.rmtree(old)

    def load_last(self) -> int:
        """Goes on from the last one, written by however many ranks; the step that it was written at."""
        found = self.whole()
        if not found:
            return 0
        model_state, optimizer_state = get_state_dict(self.model, self.optimizer)
        state = {"model": model_state, "optimizer": optimizer_state, "pruner": self.pruner}
        dcp.load(state, checkpoint_id=found[-1])  # all ranks see the same folder
        set_state_dict(self.model, self.optimizer, model_state_dict=model_state, optim_state_dict=optimizer_state)
        return int(found[-1].name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of the checkpoints, which all ranks can reach")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32, help="samples a rank and step")
    parser.add_argument("--save-every", type=int, default=20, help="steps from one checkpoint to the next")
    args = parser.parse_args()

    gpus = torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpus else "gloo")
    train(args, device)
    # Out here the model is gone: torch may wait for ever if DistributedDataParallel is freed after its group.
    dist.destroy_process_group()


def train(args: argparse.Namespace, device: torch.device) -> None:
    first = dist.get_rank() == 0
    torch.manual_seed(SEED)

    train_set, test_images, test_labels = load_data(device)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
    model = DistributedDataParallel(net)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    pruner = InfoBatch(train_set, args.epochs, device=device, seed=SEED)  # (1)
    loader = DataLoader(with_index(train_set), args.batch_size, sampler=pruner.sampler)  # (2)

    checkpoints = Checkpoints(args.checkpoint, model, optimizer, pruner)
    step = checkpoints.load_last()
    if step and first:
        print(f"go on after step {step} in epoch {pruner.epoch} on {dist.get_world_size()} ranks", flush=True)

    for epoch in range(pruner.epoch, args.epochs):
        pruner.set_epoch(epoch)
        model.train()
        for index, (images, labels) in loader:
            losses = F.cross_entropy(model(images.to(device)), labels.to(device), reduction="none")
            loss = pruner.update(index, losses)  # (3)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % args.save_every == 0:
                checkpoints.save(step)
        if first:
            net.eval()
            with torch.no_grad():
                accuracy = (net(test_images).argmax(1) == test_labels).float().mean().item()
            stats = pruner.stats
            print(f"epoch {epoch}: step {step}, kept {stats.kept} of {stats.num_samples}, test accuracy {accuracy:.3f}", flush=True)
    checkpoints.save(step)
    if first:
        print(f"saved {pruner.stats.total_saved_fraction:.1%} of the samples", flush=True)
    dist.barrier()  # none leaves while another still writes


if __name__ == "__main__":
    main()
