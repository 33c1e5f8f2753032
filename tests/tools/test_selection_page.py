"""The code of docs/selection.md, run from top to bottom on a small data set, and what it must leave behind."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from infobatch_fast import InfoBatch, with_index

PAGE = Path(__file__).parents[2] / "docs" / "selection.md"
SIZE, CLASSES, EPOCHS = 200, 4, 8


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def what_the_page_takes_for_granted() -> dict[str, Any]:
    """Four clouds of points, of which each tenth has a wrong label."""
    torch.manual_seed(0)
    labels = torch.arange(SIZE) % CLASSES
    features = torch.randn(SIZE, 6) + 4 * F.one_hot(labels, 6)
    labels = torch.where(torch.arange(SIZE) % 10 == 0, (labels + 1) % CLASSES, labels)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def step(loss: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for _ in range(20):
        step(F.cross_entropy(model(features), labels))
    return {
        **{"torch": torch, "F": F, "math": math, "numpy": numpy, "dist": dist},
        **{"DataLoader": DataLoader, "Subset": Subset, "TensorDataset": TensorDataset},
        **{"InfoBatch": InfoBatch, "with_index": with_index},
        **{"dataset": TensorDataset(features, labels), "features": features, "labels": labels, "num_epochs": EPOCHS},
        **{"model": model, "young_models": [model, model], "step": step},
        **{"images": torch.randn(50, 6), "soft_labels": torch.randn(50, CLASSES).softmax(1)},
    }


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    names, code = what_the_page_takes_for_granted(), blocks()
    assert len(code) == 10
    left: list[dict[str, Any]] = []
    for block in code:
        exec(block, names)
        left.append({**names, "known": names["pruner"].scores() if "pruner" in names else None})
    norms, gradients, forgotten, subset, hardest, joined, coreset, distilled, scored, _ = left
    labels, wrong = names["labels"], torch.arange(SIZE) % 10 == 0

    for of_sample in (norms["norms"], gradients["gradients"], forgotten["forgotten"]):
        assert of_sample.shape == (SIZE,)
        assert of_sample[wrong].mean() > of_sample[~wrong].mean(), "wrong labels are hard"

    ids = subset["ids"]
    assert len(ids) == SIZE // 2
    assert (labels[ids].bincount() - labels.bincount() / 2).abs().max() < 1
    assert subset["pruner"].num_samples == len(ids)
    assert 0 < subset["pruner"].stats.total_saved_fraction < 1
    assert set(hardest["hardest"].tolist()) < set(ids.tolist())
    assert torch.equal(joined["scores"], subset["known"])
    assert len(coreset["coreset"].unique()) == SIZE // 2
    assert torch.equal(labels[coreset["coreset"]].bincount(), coreset["quotas"])
    assert distilled["pruner"].num_samples == 50
    for block in (distilled, scored):
        assert float(block["known"].max()) < math.sqrt(2), "norms and not losses"
    times, mattered = names["times"], names["mattered"]
    assert 0 < int(times.max()) < EPOCHS
    assert times[mattered].max() <= times.sort().values[SIZE // 2]
    assert torch.equal(torch.load("mattered.pt"), mattered)
    assert numpy.load("mattered.npy").tolist() == mattered.tolist()
