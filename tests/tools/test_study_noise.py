"""examples/study/noise*.py: plans skip what is asked for, noise is that of the formula, and the page has the committed numbers."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from infobatch_fast import QuantileTiers
from support.ranks import preload
from support.scripts import run_script

for needed in ("sklearn", "tqdm", "matplotlib", "scipy"):
    pytest.importorskip(needed, reason="the study is an example, and needs the packages of the extra 'demo'")
preload("sklearn.datasets", "tqdm", "matplotlib.pyplot", "scipy.stats")
ROOT = Path(__file__).parents[2]
STUDY = ROOT / "examples" / "study"
sys.path.insert(0, str(STUDY))
from noise_plans import added_noise, best, keep_probabilities, mean_threshold, norms_of, plans, quantile_tiers  # noqa: E402
from noise_report import BY_LOSSES, cell, written  # noqa: E402

RESULTS = sorted((ROOT / "benchmarks" / "results").glob("noise-*.json"))


@pytest.fixture(scope="module")
def scores() -> torch.Tensor:
    return torch.distributions.Exponential(torch.tensor(1.0)).icdf((torch.arange(4000) + 0.5) / 4000)


def test_uniform_pruning_has_the_noise_1_and_other_plans_that_of_the_formula() -> None:
    norms = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    assert added_noise(norms, torch.full_like(norms, 0.3)) == pytest.approx(1)
    keep = torch.tensor([0.25, 0.25, 1.0], dtype=torch.float64)
    assert added_noise(norms, keep) == pytest.approx((3 + 4 * 3) / (21 * 1))


def test_the_optimum_is_proportional_to_the_norms_between_its_bounds() -> None:
    keep = best(torch.tensor([0.001, 1.0, 2.0, 20.0], dtype=torch.float64), 0.5)
    assert keep.tolist() == pytest.approx([0.1, 0.3, 0.6, 1.0])


@pytest.mark.parametrize("skipped", [0.3, 0.5, 0.7])
def test_plans_skip_what_was_asked_for_and_none_has_less_noise_than_the_optimum(scores: torch.Tensor, skipped: float) -> None:
    found = {key: keep for key, _, keep in plans(scores, skipped)}
    assert set(found) == {"tiers", "importance", "careful", "best"} | ({"mean"} if skipped < 0.63 else set())
    noise = {key: added_noise(norms_of(scores), keep) for key, keep in found.items()}
    for key, keep in found.items():
        assert float(keep.mean()) == pytest.approx(1 - skipped, abs=1e-3), key
        assert noise[key] >= noise["best"] * 0.999 or key == "careful", key
    assert noise["importance"] < 1.25 * noise["best"]
    assert float(found["careful"].min()) >= (1 - skipped) / 2 - 1e-4


def test_a_mean_threshold_that_would_have_to_skip_all_below_the_mean_is_no_plan(scores: torch.Tensor) -> None:
    below = float((scores < scores.mean()).double().mean())
    policy = mean_threshold(scores, 0.99 * below)
    assert policy is not None
    assert policy.prune_ratio == pytest.approx(0.99, abs=1e-3)
    assert mean_threshold(scores, 1.01 * below) is None


def test_quantile_tiers_are_scaled_alike_until_the_larger_ratio_is_at_its_end(scores: torch.Tensor) -> None:
    default = QuantileTiers()
    half = quantile_tiers(scores, default.expected_saved_fraction / 2)
    assert half is not None
    assert half.prune_ratios == pytest.approx([ratio / 2 for ratio in default.prune_ratios])
    capped = quantile_tiers(scores, 0.7)
    assert capped is not None
    assert capped.prune_ratios == pytest.approx((0.99, (0.7 - 0.2 * 0.99) / 0.65))
    assert 1 - float(keep_probabilities(scores, capped).mean()) == pytest.approx(0.7, abs=1e-3)
    assert quantile_tiers(scores, 0.85) is None


def test_a_cell_is_the_mean_over_the_seeds_and_a_dash_where_a_seed_has_no_plan() -> None:
    def entry(*noise: float) -> dict[str, list[dict[str, object]]]:
        parts = zip((0.3, 0.5, 0.7), noise, strict=False)
        return {"plans": [{"losses": "recorded", "policy": "mean", "skipped": part, "by_losses": value} for part, value in parts]}

    assert cell([entry(0.5, 2.0, 9.0), entry(0.7, 12.0)], "recorded", "mean", "by_losses") == "0.60 / 7.0 / -"
    shown = {12.34: "12", 2.04: "2.0", 1.004: "1.00", 0.1: "0.10", 0.0123: "0.012", 0.0004: "<0.001"}
    assert {value: written(value) for value in shown} == shown


@pytest.mark.slow
@pytest.mark.parametrize(("workload", "size", "epochs", "moments"), [("digits", 100, 3, [1, 2, 3]), ("text", 100, 1, [1])])
def test_the_command_measures_three_moments_of_each_seed_and_goes_on_where_it_was(
    tmp_path: Path, workload: str, size: int, epochs: int, moments: list[int]
) -> None:
    path = tmp_path / f"noise-{workload}.json"
    words = ["--workload", workload, "--train-size", str(size), "--epochs", str(epochs), "--out", str(path)]
    for seeds in ("1", "2"):
        done = run_script(STUDY / "noise.py", *words, "--cache", str(tmp_path), "--seeds", seeds)
        assert done.returncode == 0, done.stderr
    results = json.loads(path.read_text())
    assert len(results["sessions"]) == 2
    assert results["train_size"] == size
    assert [(run["seed"], run["epochs"]) for run in results["runs"]] == [(seed, epoch) for seed in (0, 1) for epoch in moments]
    for run in results["runs"]:
        assert run["scores"]["seen"] == size
        known = {plan["skipped"]: plan["by_gradients"] for plan in run["plans"] if plan["policy"] == "known"}
        uniform_like = [plan for plan in run["plans"] if plan["policy"] in ("importance", "careful", "best")]
        assert len(uniform_like) == 2 * 3 * 3
        for plan in uniform_like:
            assert plan["kept"] == pytest.approx(1 - plan["skipped"], abs=1e-3)
            assert plan["by_gradients"] > 0.99 * known[plan["skipped"]], "nothing beats the optimum of the norms themselves"

    page = tmp_path / "page.md"
    marks = [f"<!-- study:{name}:begin -->\nold\n<!-- study:{name}:end -->\n" for name in ("noise", "noise-gradients")]
    page.write_text("before\n" + "between\n".join(marks) + "after\n")
    told = run_script(STUDY / "noise_report.py", str(path), "--document", str(page))
    assert told.returncode == 0, told.stderr
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("-->\nafter\n")
    assert "\nold\n" not in text
    tables = [[line for line in part.split("\n") if line.startswith("|")] for part in text.split("between")]
    for rows in tables:
        assert len(rows) == 2 + len(moments)
        assert len({row.count("|") for row in rows}) == 1
    assert tables[0][2].split(" | ")[3:] == [
        *(cell(results["runs"][:: len(moments)], *column[1:], "by_losses") for column in BY_LOSSES[:-1]),
        cell(results["runs"][:: len(moments)], *BY_LOSSES[-1][1:], "by_losses") + " |",
    ]


@pytest.mark.skipif(not RESULTS, reason="a source distribution has no results")
def test_the_page_shows_the_committed_numbers(tmp_path: Path) -> None:
    page = ROOT / "docs" / "policies.md"
    copy = shutil.copy(page, tmp_path)
    done = run_script(STUDY / "noise_report.py", *map(str, RESULTS), "--document", str(copy))
    assert done.returncode == 0, done.stderr
    assert Path(copy).read_text() == page.read_text()
    assert len(RESULTS) == 3


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    for words in (["--train-size", "99"], ["--seeds", "0"], ["--data", str(tmp_path / "none")]):
        done = run_script(STUDY / "noise.py", "--workload", "digits", "--out", str(tmp_path / "x.json"), *words)
        assert done.returncode == 2
        assert words[0] in done.stderr
