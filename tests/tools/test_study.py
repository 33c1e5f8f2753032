"""examples/study: interrupted anywhere and resumed it gives the same numbers, finished runs are skipped, its report adds up."""

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
from config import METHODS, PRESETS, Config, Optimizer, Run  # noqa: E402
from intervals import difference  # noqa: E402
from models import GPT  # noqa: E402
from run import choose  # noqa: E402
from saving import saving_table  # noqa: E402
from sources import load_cifar  # noqa: E402
from train import batch_edges, train  # noqa: E402
from workloads import open_workload  # noqa: E402

TIMES = ("wall", "cpu", "sampler", "interruptions", "session")
TINY = {
    "digits": replace(PRESETS["digits"], epochs=4, train_size=300),
    "cifar": replace(
        PRESETS["cifar"], epochs=3, batch_size=32, train_size=200, sizes={"model": "cnn", "widths": [4, 4]}, curve_size=50
    ),
    "text": replace(
        PRESETS["text"],
        epochs=3,
        train_size=200,
        sizes={"context": 16, "layers": 1, "width": 16, "heads": 2},
        curve_size=100,
    ),
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


def train_tiny(config: Config, checkpoint: Path, *steps: float) -> dict[str, Any]:
    """Trains with InfoBatch, interrupted at each of ``steps`` (counted anew after each restart)."""
    _, _, workload_of = open_workload(config, None, checkpoint.parent)
    for step in (*steps, math.inf):
        run = Run(config.optimizers[0].name, "infobatch", 1, config.epochs)
        try:
            train(run, None, config.optimizers[0], workload_of(1), config, checkpoint, Bar(step), checkpoint_seconds=0.0)
        except KeyboardInterrupt:
            assert step < math.inf
            torch.manual_seed(99)  # a new process would not have the old one's random state either
        else:
            assert step == math.inf, f"was to be interrupted at step {step}, but had no more steps"
    return asdict(run)


@pytest.mark.parametrize(
    "settings",
    [{"batching": "even"}, {"batching": "remainder"}, {"by": "visits", "rescale": "step"}],
    ids=lambda settings: "-".join(settings.values()),
)
@pytest.mark.parametrize("workload", TINY)
def test_a_run_that_was_interrupted_gives_the_same_result(workload: str, settings: dict[str, Any], tmp_path: Path) -> None:
    config = replace(TINY[workload], **settings)
    whole = train_tiny(config, tmp_path / "a.pt")
    assert 0 < whole["saved"][1] < 0.5
    assert whole["saved"][0] == whole["saved"][-1] == 0
    assert len(whole["metric"]) == len(whole["scores"]) == config.epochs
    parts = train_tiny(config, tmp_path / "b.pt", 2, 4, 3)
    assert parts["interruptions"] == 3
    assert [path.name for path in tmp_path.iterdir()] == [], "a finished run leaves no checkpoint"
    for name, value in whole.items():
        if name not in TIMES:
            assert parts[name] == value, name


def test_a_run_that_was_interrupted_after_the_last_step_of_an_epoch_goes_on_with_its_measurement(tmp_path: Path) -> None:
    config = TINY["digits"]
    steps = math.ceil(300 / config.batch_size)
    assert train_tiny(config, tmp_path / "b.pt", steps)["metric"] == train_tiny(config, tmp_path / "a.pt")["metric"]


def test_even_batches_hold_every_sample_and_none_is_small() -> None:
    config = replace(TINY["digits"], batch_size=64)
    for kept in (1, 63, 64, 65, 129, 1000):
        edges = batch_edges(kept, config)
        sizes = [end - first for first, end in pairwise(edges)]
        assert (edges[0], edges[-1], len(sizes)) == (0, kept, math.ceil(kept / 64))
        assert max(sizes) <= 64
        assert max(sizes) - min(sizes) <= 1
    assert batch_edges(129, replace(config, batching="remainder")) == [0, 64, 128, 129]


def test_a_schedule_by_visits_is_another_run_and_ends_where_the_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares: dict[str, list[float]] = {"epochs": [], "visits": []}
    for by, seen in shares.items():
        monkeypatch.setattr("train.set_rate", lambda optimizer, peak, warmup, share, seen=seen: seen.append(share))
        train_tiny(replace(TINY["digits"], by=by), tmp_path / "a.pt")
    assert len(shares["epochs"]) == len(shares["visits"])
    last = math.ceil(300 / 64)  # steps of the full epoch at the end
    assert shares["epochs"][-last] == 0.75
    assert shares["visits"][-last] < 0.75
    assert shares["visits"] == pytest.approx([step / len(shares["visits"]) for step in range(len(shares["visits"]))], abs=0.1)


def command(folder: Path, *arguments: str) -> list[str]:
    line = ["--workload", "digits", "--epochs", "4", "--train-size", "300", *arguments]
    return [*line, "--out", str(folder / "lossless-digits.json"), "--cache", str(folder / "cache")]


def test_the_command_writes_every_run_skips_those_that_are_done_and_its_report_fills_the_document(tmp_path: Path) -> None:
    line = [sys.executable, str(STUDY / "run.py"), *command(tmp_path, "--seeds", "1")]
    first = subprocess.run(line, capture_output=True, text=True, timeout=900, check=False)
    assert first.returncode == 0, first.stderr
    path = tmp_path / "lossless-digits.json"
    once = json.loads(path.read_text())
    assert [run["method"] for run in once["runs"]] == list(METHODS)
    ours, random, fewer = (once["runs"][list(METHODS).index(name)] for name in ("infobatch", "random", "fewer"))
    assert sum(random["saved"]) == pytest.approx(sum(ours["saved"]), abs=0.25)
    assert len(fewer["metric"]) == round(4 * (1 - sum(ours["saved"]) / 4))

    again = run_script(STUDY / "run.py", *command(tmp_path, "--seeds", "1"))
    assert "0 to do" in again.stderr
    assert json.loads(path.read_text()) == once
    del once["runs"][2:]  # as if it had been interrupted in the third run
    path.write_text(json.dumps(once))
    more = run_script(STUDY / "run.py", *command(tmp_path, "--seeds", "2"))
    assert more.returncode == 0, more.stderr
    twice = json.loads(path.read_text())
    assert len(twice["runs"]) == 10
    assert twice["runs"][:2] == once["runs"]
    assert twice["runs"][3]["prune_ratio"] == random["prune_ratio"]
    assert twice["runs"][3]["metric"] == random["metric"]
    assert len(twice["sessions"]) == 2

    refused = run_script(STUDY / "run.py", *command(tmp_path, "--seeds", "1", "--epochs", "5"))
    assert refused.returncode != 0
    assert "its config is" in refused.stderr

    document = tmp_path / "study.md"
    saving = "<!-- study:saving:begin -->\n<!-- study:saving:end -->\n"
    document.write_text(f"before\n<!-- study:digits:begin -->\nold\n<!-- study:digits:end -->\n{saving}after\n")
    told = run_script(STUDY / "report.py", str(path), "--document", str(document), "--pictures", str(tmp_path / "png"))
    assert told.returncode == 0, told.stderr
    text = document.read_text()
    assert text.startswith("before\n<!-- study:digits:begin -->\n| method")
    assert text.endswith("<!-- study:saving:end -->\nafter\n")
    assert "\n| digits | 4 | " in text, "epochs 1 and 2 of two seeds are pruned"
    assert "\nold\n" not in text
    assert "| random pruning | 2 |" in text
    assert (tmp_path / "png" / "digits.png").stat().st_size > 10_000


def test_the_table_of_savings_tells_what_was_saved_and_how_it_hangs_together_with_the_losses() -> None:
    def scores(median: float, skewness: float, below: float) -> dict[str, float]:
        return {"mean": 2.0, "median": median, "skewness": skewness, "below_mean": below}

    run = {"method": "infobatch", "saved": [0.0, 0.25, 0.35, 0.4, 0.0]}
    run["scores"] = [None, scores(2.0, 0.0, 0.5), scores(1.5, 2.0, 0.6), scores(1.25, 3.0, 0.75), scores(1.0, 9.0, 0.9)]
    other = {"method": "full", "saved": [0.0] * 5, "scores": run["scores"]}
    results = {"config": {"optimizers": [{}], "prune_ratio": 0.5}, "runs": [run, other]}
    several = {"config": {"optimizers": [{}, {}], "prune_ratio": 0.5}, "runs": [run]}
    head, rule, line = saving_table({"x": results, "y": several}).split("\n")
    assert head.count("|") == rule.count("|") == line.count("|")
    assert line == ("| x | 3 | 1.00 to 0.62 | 0.0 to 3.0 | 50 to 75 % | 25 to 40 %, mean 33 % | 5.0 points | -1.00 | 1.00 |")


def test_intervals_are_those_of_a_paired_t_test() -> None:
    one = {seed: {"x": value} for seed, value in enumerate((3.0, 5.0, 10.0))}
    other = {seed: {"x": value} for seed, value in enumerate((2.0, 3.0, 7.0, 100.0))}
    found = difference(one, other, lambda run: run["x"])  # 1, 2, 3: mean 2, deviation 1, t(0.975, 2) = 4.3027
    assert found is not None
    assert (found.mean, found.pairs) == (2.0, 3)
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert not found.is_resolved
    same = difference({0: {"x": 1.0}, 1: {"x": 2.0}}, {0: {"x": 0.0}, 1: {"x": 1.0}}, lambda run: run["x"])
    assert same is not None
    assert not same.is_resolved, "two equal differences do not show that there is no spread"


def test_random_pruning_saves_what_infobatch_saved() -> None:
    config = PRESETS["cifar"]
    _, epochs, ratio = choose("random", 0.26, config)
    assert ratio is not None
    pruned = [epoch for epoch in range(1, epochs) if epoch < math.floor(config.delta * epochs)]
    assert ratio * len(pruned) == pytest.approx(0.26 * epochs)


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


def test_all_four_optimizers_train(tmp_path: Path) -> None:
    pytest.importorskip("pytorch_optimizer")
    for choice in PRESETS["optimizers"].optimizers:
        assert isinstance(choice, Optimizer)
        run = train_tiny(replace(TINY["digits"], optimizers=(choice,), epochs=8), tmp_path / "o.pt")
        assert run["metric"][-1] > 0.3, choice
