"""A tiny causal language model on made-up text with the Hugging Face Trainer and InfoBatch; no download, under a minute on a CPU.

    python examples/huggingface_trainer.py
    torchrun --nproc_per_node 2 examples/huggingface_trainer.py

The only line that differs from a script with ``Trainer`` is marked (1).
"""

from __future__ import annotations

import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments

from infobatch_fast.integrations.transformers import InfoBatchTrainer

VOCABULARY, LENGTH, SAMPLES = 64, 24, 512


def make_samples() -> list[dict[str, torch.Tensor]]:
    """Counting up by one to four, which is easy; every eighth sample is noise, which is not."""
    drawn = torch.Generator().manual_seed(0)
    samples = []
    for number in range(SAMPLES):
        start, step = torch.randint(VOCABULARY, (2,), generator=drawn).tolist()
        ids = (start + (1 + step % 4) * torch.arange(LENGTH)) % VOCABULARY
        if number % 8 == 0:
            ids = torch.randint(VOCABULARY, (LENGTH,), generator=drawn)
        samples.append({"input_ids": ids, "labels": ids})
    return samples


def main() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2))
    with tempfile.TemporaryDirectory() as folder:
        on_cpu = {} if torch.cuda.is_available() else {"use_cpu": True}
        training = {"num_train_epochs": 12, "per_device_train_batch_size": 16, "learning_rate": 3e-3}
        args = TrainingArguments(folder, report_to=[], save_strategy="no", **training, **on_cpu)
        trainer = InfoBatchTrainer(model, args, train_dataset=make_samples())  # (1)
        trainer.train()
    print(f"saved {trainer.pruner.stats.total_saved_fraction:.1%} of the samples")


if __name__ == "__main__":
    main()
