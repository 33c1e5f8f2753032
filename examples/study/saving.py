"""What an epoch of InfoBatch saves, and how that depends on the losses: one row a file, over all seeds and pruned epochs."""

from __future__ import annotations

from statistics import correlation, mean
from typing import Any


def _pruned_epochs(results: dict[str, Any]) -> list[dict[str, float]]:
    """The distribution of the losses when an epoch was planned, and what that epoch saved."""
    runs = [run for run in results["runs"] if run["method"] == "infobatch"]
    return [
        scores | {"saved": saved, "ratio": scores["median"] / scores["mean"]}
        for run in runs
        for scores, saved in zip(run["scores"], run["saved"], strict=True)
        if saved > 0
    ]


def saving_table(files: dict[str, dict[str, Any]]) -> str:
    """Markdown; ``files`` are results by the name of their workload. Those with several optimisers are left out."""
    lines = [
        "| workload | pruned epochs | median / mean of the losses | skewness | below the mean | saved | "
        "saved - r x below, at most | correlation of saved with median / mean | with skewness |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, results in files.items():
        epochs = _pruned_epochs(results)
        if len(results["config"]["optimizers"]) > 1 or len(epochs) < 2:
            continue
        ratio, skewness, below, saved = ([epoch[key] for epoch in epochs] for key in ("ratio", "skewness", "below_mean", "saved"))
        off = max(abs(epoch["saved"] - results["config"]["prune_ratio"] * epoch["below_mean"]) for epoch in epochs)
        pairs = " | ".join(f"{correlation(saved, values):.2f}" for values in (ratio, skewness))
        lines.append(
            f"| {name} | {len(epochs)} | {max(ratio):.2f} to {min(ratio):.2f} | {min(skewness):.1f} to {max(skewness):.1f} | "
            f"{100 * min(below):.0f} to {100 * max(below):.0f} % | {100 * min(saved):.0f} to {100 * max(saved):.0f} %, mean "
            f"{100 * mean(saved):.0f} % | {100 * off:.1f} points | {pairs} |"
        )
    return "\n".join(lines)
