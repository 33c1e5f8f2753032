"""examples/study/fast*.py: each method visits what it says, runs are appended and repeated by seed."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from infobatch_fast import InfoBatch
from support.ranks import preload

for needed in ("sklearn", "tqdm", "matplotlib", "scipy"):
    pytest.importorskip(needed, reason="the study is an example, and needs the packages of the extra 'demo'")
preload("sklearn.datasets", "tqdm", "matplotlib.pyplot", "scipy.stats")
STUDY = Path(__file__).parents[2] / "examples" / "study"
sys.path.insert(0, str(STUDY))
import fast  # noqa: E402
from fast_images import SHIFT, Images  # noqa: E402
from fast_network import Network, whitening_filters  # noqa: E402
from fast_run import run  # noqa: E402
from fast_trainer import Setup, Trainer  # noqa: E402
from methods import METHODS, Method, visits_of  # noqa: E402
from sources import load_cifar  # noqa: E402

TINY = Setup((4, 8, 8), depth=2, epochs=16, batch=8, rate=0.05)


@pytest.fixture(scope="module")
def images() -> Images:
    pictures = load_cifar(None, Path("unused"))
    return Images(replace(pictures, images=pictures.images[:250], labels=pictures.labels[:250]), torch.device("cpu"))


@pytest.fixture(scope="module")
def trainer(images: Images) -> Trainer:
    return Trainer(images, TINY)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "fewer-50", "uniform-50", "importance-50", "infobatch", "fewer"])
def test_a_method_visits_the_part_that_it_says(trainer: Trainer, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step_of = Trainer._step

    def noted(self: Trainer, pruner: InfoBatch, method: Method) -> None:
        rates.append(float(self.rate))
        step_of(self, pruner, method)

    monkeypatch.setattr(Trainer, "_step", noted)
    full = TINY.epochs * (trainer.images.size // TINY.batch) * TINY.batch
    measured = {"visited": [round(0.7 * full)]}
    wanted = visits_of(METHODS[name], measured, full)
    assert wanted == {"full": 1.0, "infobatch": 1.0, "fewer": pytest.approx(0.7)}.get(name, 0.5)
    found = run(trainer, METHODS[name], wanted, seed=1)
    lengths = {len(values) for key, values in found.items() if isinstance(values, list)}
    assert lengths == {8 if name == "fewer-50" else 12 if name == "fewer" else TINY.epochs}
    visited = sum(found["visited"]) / full
    if name == "infobatch":
        assert 0.55 < visited < 0.95
    else:
        assert visited == pytest.approx(wanted, abs=0.5 / full * TINY.batch if "fewer" in name else 0.04)
    assert found["accuracy"][-1] is not None
    assert [value is None for value in found["accuracy"][:4]] == [True, True, True, False]
    assert len(rates) * TINY.batch == sum(found["visited"])
    assert max(rates) == pytest.approx(TINY.rate, rel=0.05)
    assert rates[-1] < 0.1 * TINY.rate, "the schedule ends where the run ends"


@pytest.mark.slow
def test_a_seed_gives_the_same_run_again_and_another_seed_another_one(trainer: Trainer) -> None:
    one, again, other = (run(trainer, METHODS["uniform-50"], 0.5, seed) for seed in (3, 3, 4))
    for name in ("accuracy", "nll", "visited"):
        assert one[name] == again[name]
    assert one["nll"] != other["nll"]


@pytest.mark.parametrize("name", ["uniform-50", "uniform-50-epoch"])
def test_steps_are_of_the_size_that_the_method_says(trainer: Trainer, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[float, bool]] = []

    def noted(self: Trainer, pruner: InfoBatch, method: Method) -> None:
        weights = pruner.weights(self.index)
        pruner.update(self.index, torch.rand(len(self.index)) + 0.1)
        steps.append((float(weights.mean()), pruner.stats.pruned))

    monkeypatch.setattr(Trainer, "_step", noted)
    run(trainer, METHODS[name], 0.5, seed=1)
    sizes = [size for size, pruned in steps if pruned]
    if name == "uniform-50":
        assert np.mean(sizes) == pytest.approx(1.0, abs=4 * np.std(sizes) / len(sizes) ** 0.5 + 0.02)
    else:
        assert np.mean(sizes) > 1.5


def test_a_biased_step_has_the_plain_mean_of_the_losses(images: Images) -> None:
    pruned = InfoBatch(images.size, 4, delta=1.0, policy=METHODS["importance-50"].policy(0.5, 16), seed=5, device="cpu")
    pruned.update(torch.arange(images.size), torch.rand(images.size))
    pruned.set_epoch(1)
    index = pruned.sampler.indices()[: TINY.batch]
    assert float(pruned.weights(index).max()) > 1

    def head_after_a_step(pruner: InfoBatch, name: str) -> torch.Tensor:
        trainer = Trainer(images, TINY)
        trainer.start(pruner, METHODS[name], seed=5)
        trainer.index.copy_(index)
        trainer._step(pruner, METHODS[name])
        return trainer.network.head.weight.detach()

    plain = head_after_a_step(InfoBatch(images.size, 4, device="cpu"), "full")
    torch.testing.assert_close(head_after_a_step(pruned, "importance-50-biased"), plain)
    assert not torch.allclose(head_after_a_step(pruned, "importance-50"), plain)


def test_images_are_cropped_and_mirrored_at_every_second_visit(images: Images) -> None:
    images.restart()
    before = images._mirrored.clone()
    index = torch.tensor([3, 8, 5])
    for visit in range(2):
        batch = images.batch(index)
        assert batch.shape == (3, 3, 32, 32)
        assert batch.is_contiguous(memory_format=torch.channels_last)
        for sample, got in zip(index.tolist(), batch, strict=True):
            padded = images._padded[sample].permute(2, 0, 1)
            upright = got.flip(2) if bool(before[sample]) != bool(visit) else got
            places = [(y, x) for y in range(2 * SHIFT + 1) for x in range(2 * SHIFT + 1)]
            assert any(torch.equal(padded[:, y : y + 32, x : x + 32], upright) for y, x in places)
    assert torch.equal(images._mirrored, before)


def test_the_stem_whitens_and_a_restart_leaves_everything_where_it_lies() -> None:
    torch.manual_seed(0)
    patches = torch.randn(4000, 12) @ torch.randn(12, 12)
    filters = whitening_filters(patches, floor=0.0).flatten(1)
    assert torch.equal(filters[:12], -filters[12:])
    torch.testing.assert_close((patches @ filters[:12].T).T.cov(correction=0), torch.eye(12), atol=1e-3, rtol=0)
    network = Network((4, 8, 8), 3, patches, classes=10)
    network.restart()
    before = {name: (value.data_ptr(), value.clone()) for name, value in network.state_dict().items()}
    network(torch.randn(8, 3, 32, 32)).sum().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    torch.manual_seed(0)
    network.restart()
    first = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(0)
    network.restart()
    for name, value in network.state_dict().items():
        assert value.data_ptr() == before[name][0]
        assert torch.equal(value, first[name])
    assert torch.equal(network.blocks[0].norms[0].running_mean, before["blocks.0.norms.0.running_mean"][1])


@pytest.mark.slow
def test_the_program_appends_runs_skips_those_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = load_cifar(None, tmp_path)
    few = replace(pictures, images=pictures.images[:250], labels=pictures.labels[:250])
    monkeypatch.setattr(fast, "load_cifar", lambda data, cache: few)
    monkeypatch.setitem(fast.SETUPS, "tiny", replace(TINY, epochs=8))
    path = tmp_path / "fast.json"

    def call(*words: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["fast.py", "--setup", "tiny", "--out", str(path), *words])
        fast.main()
        return json.loads(path.read_text())  # type: ignore[no-any-return]

    methods = ["--methods", "full", "fewer-50", "importance-50", "infobatch", "fewer"]
    with pytest.raises(FileNotFoundError):
        call("--seeds", "1", "--seconds", "0", *methods)
    once = call("--seeds", "1", *methods)
    assert [entry["method"] for entry in once["runs"]] == methods[1:]
    assert once["runs"][4]["visits"] == pytest.approx(sum(once["runs"][3]["visited"]) / (8 * 25 * 8), rel=1e-5)
    assert call("--seeds", "1", *methods) == once
    twice = call("--seeds", "3", *methods)
    assert twice["runs"][:5] == once["runs"]
    assert len(twice["runs"]) == 15
    monkeypatch.setitem(fast.SETUPS, "tiny", replace(TINY, epochs=9))
    with pytest.raises(SystemExit, match="had other settings"):
        call("--seeds", "3", *methods)
    with pytest.raises(SystemExit):
        call("--methods", "full", "uniform")
    assert "uniform make as many visits as infobatch does: name it too" in capsys.readouterr().err
