"""InfoBatch in PyTorch Lightning, on 4,000 points of two spirals: runs on a CPU in some seconds, downloads nothing.

python examples/lightning_module.py [--devices 2] [--checkpoint build/spirals/last.ckpt]
"""

import argparse
import math

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from infobatch_fast import InfoBatch, with_index
from infobatch_fast.integrations.lightning import InfoBatchCallback

EPOCHS, BATCH = 20, 50


def spirals(size: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(size) % 2
    angle = torch.rand(size, generator=generator) * 3 * math.pi
    turned = angle + label * math.pi
    points = torch.stack([turned.cos(), turned.sin()], 1) * angle[:, None] / 3
    return TensorDataset(points + 0.08 * torch.randn(points.shape, generator=generator), label)


class Spirals(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(2, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 2)
        )
        self.train_data, self.test_data = spirals(4000, 0), spirals(1000, 1)

    def setup(self, stage: str) -> None:
        if stage == "fit":  # the process group exists here, and not yet in __init__
            self.pruner = InfoBatch(self.train_data, self.trainer.max_epochs)  # 1

    def train_dataloader(self) -> DataLoader:
        return DataLoader(with_index(self.train_data), BATCH, sampler=self.pruner.sampler)  # 2

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.test_data, 500)

    def training_step(self, batch, batch_idx):
        index, (x, y) = batch  # 3
        return self.pruner.update(index, F.cross_entropy(self.net(x), y, reduction="none"))  # 4

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("accuracy", (self.net(x).argmax(1) == y).float().mean(), sync_dist=True, batch_size=len(y))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)

    def on_validation_epoch_end(self) -> None:
        if self.trainer.is_global_zero and not self.trainer.sanity_checking:
            steps, accuracy = self.trainer.num_training_batches, self.trainer.callback_metrics["accuracy"]
            print(f"epoch {self.trainer.current_epoch:2d}: {steps} steps, test accuracy {accuracy:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1, help="processes, with DDP")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--folder", default="build/spirals", help="where checkpoints go")
    parser.add_argument("--checkpoint", help="go on from this file")
    arguments = parser.parse_args()
    pl.seed_everything(0)
    torch.set_num_threads(1)
    trainer = pl.Trainer(
        max_epochs=arguments.epochs,
        accelerator="cpu",
        devices=arguments.devices,
        strategy="ddp" if arguments.devices > 1 else "auto",
        callbacks=[InfoBatchCallback(), pl.callbacks.ModelCheckpoint(arguments.folder, save_last=True)],  # 5
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Spirals(), ckpt_path=arguments.checkpoint)
    if trainer.is_global_zero:
        saved = trainer.callback_metrics["infobatch/total_saved_fraction"]
        print(f"saved {100 * saved:.1f}% of the samples; accuracy {trainer.callback_metrics['accuracy']:.3f}")


if __name__ == "__main__":
    main()
