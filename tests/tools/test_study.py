"""examples/study: interrupted anywhere and resumed it gives the same numbers, each method does what its name says."""

import json
import math
import pickle
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.ranks import preload
from support.scripts import run_script

for needed in ("sklearn", "tqdm", "matplotlib", "scipy"):
    pytest.importorskip(needed, reason="the study is an example, and needs the packages of the extra 'demo'")
preload("sklearn.datasets", "tqdm", "matplotlib.pyplot", "scipy.stats")
STUDY = Path(__file__).parents[2] / "examples" / "study"
sys.path.insert(0, str(STUDY))
from config import AT_OTHER_RATES, PRESETS, Config, Optimizer, Run  # noqa: E402
from methods import METHODS, orphans, visits_of  # noqa: E402
from models import GPT  # noqa: E402
from run import alone  # noqa: E402
from sources import load_cifar  # noqa: E402
from train import batch_edges, train  # noqa: E402
from workloads import choose, open_workload  # noqa: E402

TIMES = ("wall", "cpu", "sampler", "interruptions", "session")
TINY = {
    "digits": replace(PRESETS["digits"], epochs=6, train_size=300),
    "cifar": replace(PRESETS["cifar"], epochs=6, batch_size=32, train_size=100, sizes={"model": "cnn", "widths": [4, 4]}),
    "text": replace(PRESETS["text"], epochs=6, train_size=100, sizes={"context": 16, "layers": 1, "width": 16, "heads": 2}),
}


class Bar:
    """A progress bar that is interrupted at a step."""

    def __init__(self, step: float = math.inf) -> None:
        self.left = step

    def update(self, n: float) -> None:
        self.left -= 1
        if self.left <= 0:
            raise KeyboardInterrupt

    def set_postfix_str(self, s: str, refresh: bool) -> None:
        pass


def train_tiny(config: Config, checkpoint: Path, *steps: float, method: str = "infobatch", visits: float = 1.0) -> dict[str, Any]:
    """Trains, interrupted at each of ``steps`` (counted anew after each restart)."""
    _, _, workload_of = open_workload(config, None, checkpoint.parent)
    for step in (*steps, math.inf):
        run = Run(method, 1, visits=visits)
        try:
            train(run, METHODS[method], workload_of(1), config, checkpoint, Bar(step), checkpoint_seconds=0.0)
        except KeyboardInterrupt:
            assert step < math.inf
            torch.manual_seed(99)  # a new process would not have the old one's random state either
        else:
            assert step == math.inf, f"was to be interrupted at step {step}, but had no more steps"
    return asdict(run)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["infobatch", "importance-50", "fewer-50"])
@pytest.mark.parametrize("workload", TINY)
def test_a_run_that_was_interrupted_gives_the_same_result(workload: str, method: str, tmp_path: Path) -> None:
    config, visits = TINY[workload], METHODS[method].visits or 1.0
    whole = train_tiny(config, tmp_path / "a.pt", method=method, visits=visits)
    assert len(whole["visited"]) == len(whole["noise"]) == (3 if method == "fewer-50" else 6)
    assert (whole["noise"][1] > 0) == (whole["visited"][1] < config.train_size) == (method != "fewer-50")
    parts = train_tiny(config, tmp_path / "b.pt", 2, 4, 3, method=method, visits=visits)
    assert parts["interruptions"] == 3
    for name, value in whole.items():
        if name not in TIMES:
            assert parts[name] == value, name


def test_a_run_that_was_interrupted_after_the_last_step_of_an_epoch_goes_on_with_its_measurement(tmp_path: Path) -> None:
    config = TINY["digits"]
    steps = math.ceil(300 / config.batch_size)
    assert train_tiny(config, tmp_path / "b.pt", steps)["nll"] == train_tiny(config, tmp_path / "a.pt")["nll"]


def test_batches_hold_every_sample_and_none_is_small() -> None:
    for kept in (1, 63, 64, 65, 129, 1000):
        edges = batch_edges(kept, 64)
        sizes = [end - first for first, end in pairwise(edges)]
        assert (edges[0], edges[-1], len(sizes)) == (0, kept, math.ceil(kept / 64))
        assert max(sizes) <= 64
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "fewer-50", "fewer-70", "uniform-50", "uniform-70", "importance-50", "importance-70"])
def test_a_method_makes_the_visits_of_its_name(name: str, tmp_path: Path) -> None:
    config, wanted = replace(TINY["digits"], epochs=16), METHODS[name].visits
    assert wanted is not None
    visited = sum(train_tiny(config, tmp_path / "a.pt", method=name, visits=wanted)["visited"]) / (16 * 300)
    assert visited == pytest.approx(wanted, abs=1e-9 if METHODS[name].draw == "all" else 0.02)


@pytest.mark.parametrize("end", ["", "-early", "-large", "-epoch"])
def test_a_method_has_the_steps_and_the_schedule_of_its_name(end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    weights: list[float] = []
    update = train.__globals__["InfoBatch"].update

    def noted(self: Any, index: Any, losses: Any) -> Any:
        weights.append(float(self.weights(index).mean()))
        return update(self, index, losses)

    monkeypatch.setattr("train.InfoBatch.update", noted)
    monkeypatch.setattr("train.set_rate", lambda optimizer, peak, warmup, share: shares.append(share))
    run = train_tiny(TINY["digits"], tmp_path / "a.pt", method=f"uniform-50{end}", visits=0.5)
    full = math.ceil(300 / 64)
    pruned = slice(full, full + sum(math.ceil(kept / 64) for kept in run["visited"][1:5] if kept < 300))
    size = np.mean(weights[pruned])
    assert size == pytest.approx(1.0, abs=0.25) if end in ("", "-early") else size > 2
    assert weights[0] == weights[-1] == 1.0
    last = shares[-full]  # where the full epoch at the end begins
    by_epochs = end in ("-early", "-epoch")
    assert last == pytest.approx(5 / 6 if by_epochs else 1 - 300 / sum(run["visited"]), abs=0.01 if by_epochs else 0.05)


def test_full_epochs_that_end_early_end_their_schedule_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    monkeypatch.setattr("train.set_rate", lambda optimizer, peak, warmup, share: shares.append(share))
    run = train_tiny(TINY["digits"], tmp_path / "a.pt", method="fewer-70", visits=0.7)
    assert run["visited"] == [300, 300, 300, 300, 60]
    assert shares[0] == 0.0
    assert shares[-1] == pytest.approx(1 - 60 / 1260)


@pytest.mark.parametrize("name", ["importance-50-biased", "importance-50"])
def test_a_biased_run_has_the_plain_mean_of_its_losses(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain: list[float] = []
    stepped: list[float] = []
    update, backward = train.__globals__["InfoBatch"].update, torch.Tensor.backward

    def noted(self: Any, index: Any, losses: Any) -> Any:
        plain.append(float(losses.detach().mean()))
        return update(self, index, losses)

    monkeypatch.setattr("train.InfoBatch.update", noted)
    monkeypatch.setattr("torch.Tensor.backward", lambda loss: (stepped.append(float(loss.detach())), backward(loss)))
    train_tiny(TINY["digits"], tmp_path / "a.pt", method=name, visits=0.5)
    assert len(plain) == len(stepped) > 12
    equal = [one == pytest.approx(other, rel=1e-5) for one, other in zip(plain, stepped, strict=True)]
    assert all(equal) if name.endswith("biased") else not all(equal)


def test_a_method_has_the_fields_of_its_name() -> None:
    for name, method in METHODS.items():
        if method.draw == "all":
            continue
        if name.startswith("infobatch"):
            steps = {"infobatch": "-epoch", "infobatch-step": ""}.get(name, name.removeprefix("infobatch"))
        else:
            steps = next((end for end in ("-early", "-large", "-epoch") if name.endswith(end)), "")
        assert method.rescale == ("epoch" if steps in ("-large", "-epoch") else "step"), name
        assert method.by == ("epochs" if steps in ("-early", "-epoch") else "visits"), name
        assert method.weighted == (not name.endswith("-biased")), name
        assert method.draw == {"infobatch": "mean"}.get(name.partition("-")[0], name.partition("-")[0]), name
        assert method.visits == (0.5 if "-50" in name else 0.7 if "-70" in name else None), name


def test_methods_without_visits_of_their_own_take_those_of_infobatch() -> None:
    done = {"visited": [100, 50, 60]}
    assert visits_of(METHODS["uniform"], done, 300) == 0.7
    assert visits_of(METHODS["uniform-50"], done, 300) == 0.5
    assert visits_of(METHODS["infobatch-step"], done, 300) == 1
    assert orphans(["full", "fewer", "infobatch-step", "uniform"]) == "fewer, uniform"
    assert orphans(["fewer", "infobatch"]) == ""


def test_redundant_images_stand_five_times_and_a_tail_has_fewer_of_each_class() -> None:
    labels = torch.arange(10).repeat_interleave(500)
    order = torch.randperm(5000)
    redundant = choose(order, labels, 1000, "redundant")
    assert redundant.bincount(minlength=5000).unique().tolist() == [0, 5]
    assert len(redundant) == 1000
    tail = choose(order, labels, 1000, "tail")
    counts = labels[tail].bincount()
    assert len(tail.unique()) == len(tail)
    assert counts.sum() == pytest.approx(1000, abs=5)
    assert counts[0] / counts[9] == pytest.approx(50, rel=0.1)
    assert all(counts[:-1] > counts[1:])
    assert choose(order, labels, 1000, "plain").tolist() == order[:1000].tolist()


SOME = ["full", "fewer-50", "infobatch", "fewer", "uniform"]


def command(folder: Path, *arguments: str) -> list[str]:
    line = ["--workload", "digits", "--epochs", "6", "--train-size", "100", "--methods", *SOME, *arguments]
    return [*line, "--out", str(folder / "study-digits.json"), "--cache", str(folder / "cache")]


@pytest.mark.slow
def test_the_command_writes_every_run_and_skips_those_that_are_done(tmp_path: Path) -> None:
    line = [sys.executable, str(STUDY / "run.py"), *command(tmp_path, "--seeds", "1", "--rates", "1", "2")]
    first = subprocess.run(line, capture_output=True, text=True, timeout=900, check=False)
    assert first.returncode == 0, first.stderr
    path = tmp_path / "study-digits.json"
    once = json.loads(path.read_text())
    assert [(run["rate"], run["method"]) for run in once["runs"]] == [
        *((1.0, name) for name in SOME),
        *((2.0, name) for name in SOME if name in AT_OTHER_RATES),
    ]
    runs = {run["method"]: run for run in once["runs"] if run["rate"] == 1}
    for name in ("fewer", "uniform"):
        assert runs[name]["visits"] == pytest.approx(sum(runs["infobatch"]["visited"]) / 600, rel=1e-5)
        assert sum(runs[name]["visited"]) == pytest.approx(sum(runs["infobatch"]["visited"]), abs=0 if name == "fewer" else 40)

    again = run_script(STUDY / "run.py", *command(tmp_path, "--seeds", "1", "--rates", "1", "2"))
    assert "0 to do" in again.stderr
    assert json.loads(path.read_text()) == once
    del once["runs"][4:]  # as if it had been interrupted there
    path.write_text(json.dumps(once))
    more = run_script(STUDY / "run.py", *command(tmp_path, "--seeds", "2", "--rates", "1"))
    assert more.returncode == 0, more.stderr
    twice = json.loads(path.read_text())
    assert twice["runs"][:4] == once["runs"]
    assert [(run["method"], run["seed"]) for run in twice["runs"][4:]] == [("uniform", 0), *((name, 1) for name in SOME)]
    same = [{name: value for name, value in run.items() if name not in TIMES} for run in (twice["runs"][4], runs["uniform"])]
    assert same[0] == same[1]
    assert len(twice["sessions"]) == 2

    refused = run_script(STUDY / "run.py", *command(tmp_path, "--seeds", "1", "--epochs", "7"))
    assert refused.returncode != 0
    assert "its config is" in refused.stderr

    with alone(path):
        second = run_script(STUDY / "run.py", *command(tmp_path, "--seeds", "3"))
    assert second.returncode == 1
    assert "study-digits.json: another process writes to it" in second.stderr
    assert json.loads(path.read_text()) == twice


def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    for words, told in {
        ("--epochs", "4"): "--epochs of at least 5",
        ("--seeds", "0"): "--seeds and --threads of at least 1",
        ("--rates", "3"): "--rates 3: digits has 1, 0.5, 2",
        ("--methods", "full", "uniform"): "--methods: uniform make as many visits as infobatch does: name it too",
        ("--data", str(tmp_path)): "digits come with scikit-learn",
    }.items():
        refused = run_script(STUDY / "run.py", "--workload", "digits", "--out", str(tmp_path / "x.json"), *words)
        assert refused.returncode == 2
        assert told in refused.stderr
    (tmp_path / "x.json").write_text('{"half": ')
    refused = run_script(STUDY / "run.py", "--workload", "digits", "--out", str(tmp_path / "x.json"))
    assert refused.returncode == 1
    assert "x.json holds no results" in refused.stderr


def test_cifar_is_read_from_the_official_archive_and_from_jpegs(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for name in names:
        pixels, labels = rng.integers(0, 256, (4, 3072), dtype=np.uint8), rng.integers(0, 10, 4).tolist()
        (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": labels}))
    pictures = load_cifar(tmp_path, tmp_path)
    assert pictures.images.shape == (20, 32, 32, 3)
    assert pictures.test_images is not None
    assert pictures.test_images[3, 5, 6].tolist() == pixels[3].reshape(3, 32, 32)[:, 5, 6].tolist()

    image_module, io = pytest.importorskip("PIL.Image"), __import__("io")
    arrays: dict[str, Any] = {}
    for part, count in (("train", 3), ("test", 2)):
        files = []
        for number in range(count):
            buffer = io.BytesIO()
            image_module.new("RGB", (32, 32), (40 * number, 100, 200)).save(buffer, "JPEG", quality=95)
            files.append(buffer.getvalue())
        arrays[f"{part}_jpeg"] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, files)])
        arrays[f"{part}_labels"] = np.arange(count, dtype=np.uint8)
    np.savez(tmp_path / "jpegs.npz", **arrays)
    for _ in range(2):  # decoded, then from the cache
        pictures = load_cifar(tmp_path / "jpegs.npz", tmp_path / "cache")
        assert pictures.labels.tolist() == [0, 1, 2]
        assert (pictures.images[2, 9, 9].float() - torch.tensor([80.0, 100.0, 200.0])).abs().max() < 4


def test_the_model_of_text_sees_no_byte_before_its_turn() -> None:
    model = GPT(**PRESETS["text"].sizes)
    tokens = torch.randint(256, (2, 32))
    changed = tokens.clone()
    changed[:, 20:] = 0
    assert model(tokens).shape == (2, 32, 256)
    torch.testing.assert_close(model(tokens)[:, :20], model(changed)[:, :20])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_both_optimizers_train(name: str, tmp_path: Path) -> None:
    rate = {"sgd": 0.02, "adamw": 3e-3}[name]
    run = train_tiny(replace(TINY["digits"], optimizer=Optimizer(name, rate, 5e-4), epochs=8), tmp_path / "o.pt")
    assert run["accuracy"] > 0.5
