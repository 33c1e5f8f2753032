"""Lightning: what InfoBatchCallback refuses, what it says, and what is imported for it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning.pytorch")
from torch.utils.data import ConcatDataset, DataLoader, Subset

from infobatch_fast import with_index
from infobatch_fast.integrations.lightning import InfoBatchCallback
from support.items import Items
from support.lightning_runs import (
    BATCH,
    SIZE,
    WARNINGS,
    Model,
    loader_of,
    pruner_of,
    trainer_of,
)

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]


# ---- what must be changed ----


def test_a_loader_that_does_not_draw_from_the_pruner_is_refused_with_what_to_change(tmp_path: Path) -> None:
    def refusal(loader: Any, **kwargs: Any) -> str:
        with pytest.raises(ValueError, match="train loader") as caught:
            trainer_of(tmp_path, InfoBatchCallback(pruner), **kwargs).fit(Model(pruner), loader)
        return str(caught.value)

    pruner = pruner_of()
    shuffled = refusal(loader_of(pruner, sampler=None, shuffle=True))
    assert "RandomSampler" in shuffled
    assert "sampler=pruner.sampler" in shuffled
    sharded = torch.utils.data.DistributedSampler(range(SIZE), num_replicas=2, rank=0)  # type: ignore[arg-type]
    assert "DistributedSampler" in refusal(loader_of(pruner, sampler=sharded))
    assert "another InfoBatch" in refusal(loader_of(pruner_of()))
    assert "50 samples, but the pruner was made for 90" in refusal(DataLoader(range(50), BATCH, sampler=pruner.sampler))  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="overfit"):
        assert "overfit_batches" in refusal(loader_of(pruner), overfit_batches=2)


def test_a_loader_of_indexed_data_sets_inside_of_another_is_refused(tmp_path: Path) -> None:
    pruner = pruner_of()
    halves = [with_index(Subset(Items(SIZE), half)) for half in (range(SIZE // 2), range(SIZE // 2, SIZE))]
    loader = DataLoader(ConcatDataset(halves), batch_size=BATCH, sampler=pruner.sampler)
    with pytest.raises(
        ValueError, match=r"the train loader's data set is ConcatDataset\(IndexedDataset.*with_index\(ConcatDataset"
    ):
        trainer_of(tmp_path, InfoBatchCallback(pruner)).fit(Model(pruner), loader)


def test_lightnings_own_wrapper_around_a_sampler_is_refused(tmp_path: Path) -> None:
    from lightning.fabric.utilities.distributed import DistributedSamplerWrapper

    pruner = pruner_of()
    wrapped = DistributedSamplerWrapper(pruner.sampler, num_replicas=1, rank=0)
    with pytest.raises(ValueError, match=r"DistributedSamplerWrapper and not from the pruner.*leaves pruner\.sampler itself alone"):
        trainer_of(tmp_path, InfoBatchCallback(pruner)).fit(Model(pruner), loader_of(pruner, sampler=wrapped))


def test_a_training_step_without_update_is_caught_in_the_second_step(tmp_path: Path) -> None:
    class Forgetful(Model):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return self.weight * batch_idx

    pruner = pruner_of()
    model = Forgetful(pruner)
    with pytest.raises(RuntimeError, match=r"return pruner\.update\(index, losses\)"):
        trainer_of(tmp_path, InfoBatchCallback(pruner)).fit(model, loader_of(pruner))


def test_bad_batches_and_reduced_losses_say_what_to_change(tmp_path: Path) -> None:
    class Reduced(Model):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return self.pruner.update(batch[0], self.weight.float() * 1.0)

    class WithoutIndex(Model):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return self.pruner.update(batch[:, 0], batch[:, 0] * self.weight)

    pruner = pruner_of()
    with pytest.raises(ValueError, match="reduction='none'"):
        trainer_of(tmp_path, InfoBatchCallback(pruner)).fit(Reduced(pruner), loader_of(pruner))
    from support.items import Items

    loader = DataLoader(Items(SIZE), BATCH, sampler=pruner.sampler)
    with pytest.raises(TypeError, match=r"DataLoader\(with_index\(dataset\)"):
        trainer_of(tmp_path, InfoBatchCallback(pruner)).fit(WithoutIndex(pruner), loader)


def test_a_callback_without_a_pruner_says_where_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"found no pruner in Model.*self\.pruner = InfoBatch\(\.\.\.\) in setup"):
        trainer_of(tmp_path, InfoBatchCallback()).fit(Model(), loader_of(pruner_of()))
    with pytest.raises(TypeError, match="pruner must be an InfoBatch or None, got 5"):
        InfoBatchCallback(5)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"before Trainer\.fit"):
        InfoBatchCallback().pruner  # noqa: B018


# ---- imports ----


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_package_under_its_other_name_gets_a_callback_of_its_own() -> None:
    out = run_python("""
import pytorch_lightning as pl, torch
from torch.utils.data import DataLoader
from infobatch_fast import InfoBatch, with_index
from infobatch_fast.integrations.lightning import InfoBatchCallback
class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
    def training_step(self, batch, batch_idx):
        index, x = batch
        return pruner.update(index, x + self.weight)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)
data = torch.arange(40.0)
pruner = InfoBatch(data, 2, delta=1.0)
trainer = pl.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                     callbacks=[InfoBatchCallback(pruner)])
trainer.fit(Model(), DataLoader(with_index(data), 4, sampler=pruner.sampler))
assert isinstance(trainer.callbacks[0], pl.Callback)
assert pruner.scores().tolist() == data.tolist()
print("kept", int(trainer.callback_metrics["infobatch/kept"]))
""")
    assert "kept" in out
    assert "kept 40" not in out


@pytest.mark.slow
def test_nothing_imports_lightning_unasked_and_without_it_the_error_names_the_package() -> None:
    out = run_python("""
import sys, infobatch_fast, infobatch_fast.integrations
assert not {"lightning", "pytorch_lightning"} & sys.modules.keys()
sys.modules["lightning"] = sys.modules["lightning.pytorch"] = None
try:
    import infobatch_fast.integrations.lightning
except ImportError as error:
    print(error)
""")
    assert "needs lightning >= 2.5 (tested: 2.5.0 and 2.6.6): pip install -U lightning" in out
