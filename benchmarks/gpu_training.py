"""What pruning adds to a training step on a GPU: a line of JSON for each figure, within half a minute.

python benchmarks/gpu_training.py [--seconds 7]

ResNet-18 in bfloat16 trains on synthetic images of 32 x 32, which lie on the GPU, with a plain sampler and with infobatch_fast,
some steps each in turn, so that changes of the clock fall on both. They share one model, as another one would lie elsewhere in
memory. A second plain variant shows what such a difference is worth. "eager" issues each operation, "graph" replays a captured
step, to which only the indices come from the host. What a step has from its logits to their gradients is also timed alone, as its
difference is small beside the noise of steps. All batches have the same size: what pruning saves is not in these figures.

``--device cpu`` runs the same code, without graphs, on a small model for development.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from bench_training import CLASSES, OURS, PLAIN, Trainer, overhead
from gpu_speed import captured, show
from pages import interval

from infobatch_fast.bench.baselines import TorchRandomSampler
from infobatch_fast.bench.contender import Ours, fill_all
from infobatch_fast.bench.timing import spread, wait_for
from infobatch_fast.engine.device import check_device

AGAIN = "no pruning, again"
CLOCKS = ("device", "wall", "host")  # between two events on the device; until it was done; until all was issued
STEPS, TAILS = 5, 100  # in a block, which is what is timed
Run = Callable[[], object]


def replay(graph: torch.cuda.CUDAGraph, held: Run) -> None:
    """Replays a graph, and holds what it was captured of, as it reads and writes where those tensors lie."""
    graph.replay()


def captured_step(trainer: Trainer) -> Run:
    index = trainer.next_batch()
    graph = captured(lambda: trainer.train(index))

    def step() -> None:
        index.copy_(trainer.next_batch())
        graph.replay()

    return step


def repeated(step: Run, times: int) -> Run:
    def run() -> None:
        for _ in range(times):
            step()

    return run


def tail(trainer: Trainer) -> Run:
    """From logits to their gradients: all that the variants differ in on the device."""
    index = trainer.next_batch()
    logits = torch.randn(trainer.batch, CLASSES, device=trainer.device, requires_grad=True)
    run = repeated(lambda: torch.autograd.grad(trainer.loss(index, logits), logits), TAILS)
    return partial(replay, captured(run), run) if trainer.device.type == "cuda" else run


def seconds_of(run: Run, device: torch.device) -> tuple[float, float, float]:
    """By each of the clocks."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device.type == "cuda" else []
    wait_for(device)
    start = time.perf_counter()
    for event in events[:1]:
        event.record()
    run()
    for event in events[1:]:
        event.record()
    host = time.perf_counter() - start
    wait_for(device)
    wall = time.perf_counter() - start
    return events[0].elapsed_time(events[1]) / 1e3 if events else wall, wall, host


def take_turns(runs: dict[str, Run], seconds: float, steps: int, device: torch.device) -> dict[str, np.ndarray]:
    """Seconds a step of each variant, [clock, round]; the order changes from round to round."""
    for run in [*runs.values()] * 2:
        run()
    taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    for names in itertools.cycle(itertools.permutations(runs)):
        for name in names:
            taken[name].append(seconds_of(runs[name], device))
        if time.perf_counter() > end:
            break
    return {name: np.array(rounds).T / steps for name, rounds in taken.items()}


def compared(taken: dict[str, np.ndarray], step: float | None = None) -> dict[str, Any]:
    """By each clock: seconds, and how many more and how many percent the pruned variant and the second plain one take.

    Percent are of the plain variant, or of ``step`` seconds, with a 95 % interval.
    """
    figures: dict[str, Any] = {}
    for clock, name in enumerate(CLOCKS):
        plain, pruned, again = (taken[variant][clock] for variant in (PLAIN, OURS, AGAIN))
        scale = float(np.median(plain)) / step if step else 1.0
        figures[name] = {"plain": spread(list(plain)), "pruned": spread(list(pruned)), "more": spread(list(pruned - plain))}
        for key, values in (("percent", pruned), ("percent_again", again)):
            figures[name][key] = {part: scale * value for part, value in overhead(values, plain).items()}
        figures[name]["percent_of_means"] = scale * 100 * float(pruned.mean() / plain.mean() - 1)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--samples", type=int, default=500_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=7.0, help="of the eager steps, and of the captured ones")
    arguments = parser.parse_args()
    device, size, batch = check_device(arguments.device), arguments.samples, arguments.batch
    images = torch.randint(256, (size, 3, 32, 32), dtype=torch.uint8, device=device)
    labels = torch.randint(CLASSES, (size,), device=device)
    ours = Ours(size, device)
    fill_all([ours], size)
    samplers = {PLAIN: TorchRandomSampler(size, device), OURS: ours, AGAIN: TorchRandomSampler(size, device)}
    trainers = {name: Trainer(sampler, images, labels, batch) for name, sampler in samplers.items()}
    for trainer in trainers.values():
        trainer.model, trainer.optimiser = trainers[PLAIN].model, trainers[PLAIN].optimiser
    model = "ResNet-18, bfloat16, 32 x 32" if device.type == "cuda" else "small CNN, float32"
    where = {"model": model, "batch": batch, "samples": size}

    step = 0.0  # seconds of the fastest way to take one
    for how in ("eager", "graph") if device.type == "cuda" else ("eager",):
        steps = {name: captured_step(trainer) if how == "graph" else trainer.step for name, trainer in trainers.items()}
        blocks = {name: repeated(run, STEPS) for name, run in steps.items()}
        figures = compared(take_turns(blocks, arguments.seconds, STEPS, device))
        median = figures["device"]["plain"]["median"]
        step = min(median, step or median)
        pruning, nothing = (interval(figures["device"][which]) for which in ("percent", "percent_again"))
        key = f"{how} step {1e3 * median:.2f} ms, pruning {pruning}, nothing {nothing}"
        show("training step", how=how, **where, steps_a_block=STEPS, **figures, key=key)

    tails = {name: tail(trainer) for name, trainer in trainers.items()}
    figures = compared(take_turns(tails, arguments.seconds / 4, TAILS, device), step)
    more = 1e6 * figures["device"]["more"]["median"]
    key = f"from logits to gradients {more:+.1f} us, {interval(figures['device']['percent'])} of a step"
    show("training step, logits to gradients", **where, calls_a_block=TAILS, step_seconds=step, **figures, key=key)

    epochs = itertools.count(1 << 20)
    plans = spread([seconds_of(lambda: ours.plan(next(epochs)), device)[1] for _ in range(20)])
    share = 100 * plans["median"] / (ours.pruner.stats.kept / batch * step)
    show("training step, plan", samples=size, seconds=plans, percent_of_epoch=share, key=f"a plan is {share:.4f} % of an epoch")


if __name__ == "__main__":
    main()
