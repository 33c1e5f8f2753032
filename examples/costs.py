"""What pruning costs at ten million samples: a plan, and all ids of an epoch, beside what one would use instead.

    python examples/costs.py            # 20 seconds on two cores
    python examples/costs.py --size 1e8

`python -m infobatch_fast bench` measures every operation with more care; this is for a first look.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import torch
from digits_report import picture
from matplotlib.figure import Figure
from tqdm import tqdm

from infobatch_fast.bench.baselines import PlainTorch, Published, TorchDistributedSampler
from infobatch_fast.bench.contender import Contender, Ours, fill_all, ignore_notices

BATCH = 256
TITLES = {
    "infobatch_fast": "infobatch_fast",
    "torch ops": "the same in plain torch",
    "DistributedSampler": "DistributedSampler (no pruning)",
    "published": "InfoBatch as published",
}
PARTS = {"plan": "a plan", "epoch": "a plan and all ids"}
PATIENCE = 1.0  # seconds in which a measurement is repeated
Seconds = dict[str, dict[str, float]]  # of a "plan" and an "epoch", by contender


def measure(size: int) -> Seconds:
    """Plans by the mean loss, and whole epochs: a plan, and all its ids in batches."""
    ignore_notices()
    contenders: list[Contender] = [
        which(size, torch.device("cpu")) for which in (Ours, PlainTorch, TorchDistributedSampler, Published)
    ]
    fill_all(contenders, size)
    found: Seconds = {"plan": {}, "epoch": {}}
    for contender in tqdm(contenders, desc=f"{size:,} samples"):
        found["plan"][contender.name], found["epoch"][contender.name] = timed(contender)
    return found


def timed(contender: Contender) -> tuple[float, float]:
    """Seconds of a plan, and of a plan with all its ids: medians of as many epochs as fit into the patience, at least one."""
    plans: list[float] = []
    wholes: list[float] = []
    while sum(wholes) < PATIENCE:
        begin = time.perf_counter()
        contender.plan(len(wholes) + 1)
        plans.append(time.perf_counter() - begin)
        for _ in contender.batches(BATCH):
            pass
        wholes.append(time.perf_counter() - begin)
    return median(plans), median(wholes)


def told(found: Seconds, size: int) -> str:
    """The bars in words."""
    lines = []
    for part, meaning in (("plan", "planning an epoch"), ("epoch", "that and all its ids in batches of 256")):
        seconds = found[part]
        ours = seconds[Ours.name]
        others = "; ".join(
            f"{TITLES[name]}: {value / ours:.1f} times as long" for name, value in seconds.items() if name != Ours.name
        )
        lines.append(f"{size:,} samples, {meaning}: {ours:.3g} s. {others}.")
    return "\n".join(lines)


def draw(found: Seconds, size: int, path: Path) -> None:
    figure = Figure(figsize=(9, 3), layout="constrained", dpi=120)
    for axes, (part, seconds) in zip(figure.subplots(1, 2, sharey=True), found.items(), strict=True):
        names = [TITLES[name] for name in seconds]
        bars = axes.barh(names, list(seconds.values()), color=["#0072B2", *["#999999"] * (len(names) - 1)])
        axes.bar_label(bars, [f"{value:.3g} s" for value in seconds.values()], padding=3)
        axes.set(title=f"{PARTS[part]}, {size:,} samples", xlabel="seconds")
        axes.set_xlim(right=1.25 * max(seconds.values()))
    axes.invert_yaxis()  # of both panels: ours on top
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=10_000_000, help="samples, from 1000 to 1e9")
    parser.add_argument("--out", type=picture, default=Path("build/costs.png"), help="the picture")
    args = parser.parse_args()
    if not 1000 <= args.size <= 1e9:
        parser.error(f"--size {args.size:g}: from 1000 to 1e9")
    size = int(args.size)
    found = measure(size)
    print(told(found, size))
    draw(found, size, args.out)
    print(f"picture: {args.out}")


if __name__ == "__main__":
    main()
