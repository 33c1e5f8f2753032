"""InfoBatchTrainer around a model of one weight, whose losses are known: sample i has the input 1 + i."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers

from infobatch_fast.integrations.transformers import InfoBatchTrainer

SIZE = 24


class Numbers(torch.utils.data.Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": torch.tensor([1.0 + index]), "labels": index % 2, "unknown": "to the model"}


class Line(torch.nn.Module):
    """logits = weight * (x, -x)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.01))

    def forward(self, x: torch.Tensor, labels: Any = None) -> dict[str, torch.Tensor]:
        return {"logits": self.weight * torch.cat([x, -x], 1)}


class Judges(Line):
    """Computes its loss without asking whether labels are there; in a dict, or first in a tuple."""

    def __init__(self, factor: float = 1.0, as_tuple: bool = False) -> None:
        super().__init__()
        self.factor, self.as_tuple = factor, as_tuple

    def forward(self, x: torch.Tensor, labels: Any = None) -> Any:
        logits = super().forward(x)["logits"]
        loss = self.factor * F.cross_entropy(logits, labels)
        return (loss, logits) if self.as_tuple else {"loss": loss, "logits": logits}


def classifier(**kwargs: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=17, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=2, **kwargs
    )
    return transformers.BertForSequenceClassification(config)


class Texts(torch.utils.data.Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": torch.tensor([index % 17, index % 5, 3]), "labels": index % 2}


def value_of(outputs: Any, labels: Any) -> Any:
    return outputs["logits"][:, 0] * 100


def trainer_of(
    folder: Path,
    dataset: Any = None,
    arguments: dict[str, Any] | None = None,
    cls: Any = InfoBatchTrainer,
    model: Any = None,
    **kwargs: Any,
) -> Any:
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 5, "learning_rate": 0.0, "save_strategy": "no"}
    settings |= {"use_cpu": True, "report_to": [], "disable_tqdm": True} | (arguments or {})
    args = transformers.TrainingArguments(output_dir=str(folder), **settings)
    return cls(model or Line(), args, train_dataset=dataset or Numbers(), **kwargs)
