"""What the public API takes on a GPU, beside what the card can do: a line of JSON for each figure, within a minute.

python benchmarks/gpu_speed.py [--sizes 1e8,1e9]

A plan is timed until ``len(sampler)`` is known, host included. Its floor are two reads of the scores, one to find the threshold and
one to decide, at the bandwidth of a copy. ``--device cpu`` runs the same code where there is no GPU, for development.
"""

import argparse
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from infobatch_fast import ImportanceSampling, InfoBatch, MeanThreshold, QuantileTiers
from infobatch_fast.bench.baselines import PlainTorch
from infobatch_fast.bench.contender import EPOCHS, ignore_notices
from infobatch_fast.bench.timing import Effort, Timed, alternate, spread
from infobatch_fast.machine import available_bytes

POLICIES = {"mean": MeanThreshold(), "tiers": QuantileTiers(), "importance": ImportanceSampling()}
BATCHES = (1024, 4096)
CALLS = 200  # updates in a captured graph
ROUNDS = Effort(rounds=25, seconds=4.0, patience=4.0)
FEW_ROUNDS = Effort(rounds=7, seconds=2.0, patience=1.0)
LARGE = 24 << 30  # bytes that must be free for more than 2e8 samples

epochs = itertools.count(1)


def show(what: str, **figures: Any) -> None:
    print(json.dumps({"what": what, **figures}), flush=True)


def timed(run: Callable[[], object], effort: Effort, device: torch.device) -> tuple[dict[str, Any], dict[str, Any]]:
    """Median and quartiles of the seconds until a call came back, and until the device was done, without the first call."""
    times = alternate([Timed("it", lambda _: run())], effort, device)["it"]
    rounds = [list(by_round.values()) for by_round in (times.host_seconds, times.seconds)]
    returned, done = (spread(seconds[1:] or seconds) for seconds in rounds)
    return returned, done


def free_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return available_bytes()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written."""
    source = torch.zeros(10**9 if device.type == "cuda" else 10**6, device=device)
    target = torch.empty_like(source)
    _, seconds = timed(lambda: target.copy_(source), Effort(12, 2.0, 2.0), device)
    return 2.0 * source.nbytes / float(seconds["median"])


def made(size: int, name: str, device: torch.device) -> InfoBatch:
    """A pruner that has seen every sample: exponential losses, 63 % of them below their mean."""
    pruner = InfoBatch(size, EPOCHS, delta=1.0, policy=POLICIES[name], device=device)
    pruner.engine.table.scores.exponential_()
    return pruner


def plan(pruner: InfoBatch) -> None:
    pruner.set_epoch(next(epochs))
    len(pruner.sampler)


def measure_plans(pruner: InfoBatch, name: str, bandwidth: float) -> float:
    """Seconds of a plan."""
    size, floor = pruner.num_samples, 2 * 4 * pruner.num_samples / bandwidth
    returned, done = timed(lambda: plan(pruner), ROUNDS, pruner.device)
    seconds, floors = float(returned["median"]), returned["median"] / floor
    figures = {"seconds": returned, "seconds_device_done": done, "times_floor": round(floors, 2), "kept": pruner.stats.kept}
    show("plan", policy=name, samples=size, **figures, key=f"plan by {name} of {size:.0e}: {floors:.2f} floors")
    return seconds


def measure_plain_torch(size: int, ours: dict[str, float], device: torch.device) -> None:
    """The same plans in operations of torch: thresholds, rand, mask, nonzero, randperm."""
    if free_bytes(device) < PlainTorch.peak * 1.2 * size:
        return
    plain = PlainTorch(size, device)
    plain._scores.exponential_()
    runs = {"mean": plain.plan, "tiers": plain.plan_quantiles}
    for name, run in runs.items():
        if name == "tiers" and size > 2 * 10**8:
            continue  # one block of threads finds an order statistic there: some seconds
        _, done = timed(lambda run=run: run(next(epochs)), FEW_ROUNDS, device)  # type: ignore[misc]
        show("plan in plain torch", policy=name, samples=size, seconds=done, times_ours=round(done["median"] / ours[name], 1))


def launches(pruner: InfoBatch, what: str, run: Callable[[], object], **where: Any) -> None:
    """What a call puts on the GPU, counted by the profiler."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if pruner.device.type == "cuda" else [])]
    run()
    with profile(activities=activities) as seen:
        run()
        if pruner.device.type == "cuda":
            torch.cuda.synchronize()
    on_device = [event for event in seen.events() or [] if event.device_type == torch.autograd.DeviceType.CUDA]
    kinds = Counter(next((kind for kind in ("Memcpy", "Memset") if event.name.startswith(kind)), "kernel") for event in on_device)
    each = [[event.name[:80], round(event.device_time, 2)] for event in on_device]
    show(f"launches of {what}", **where, samples=pruner.num_samples, **kinds, total=len(on_device), microseconds=each)


def measure_updates(pruner: InfoBatch) -> None:
    """Eager and captured, of ids all over the table."""
    device, size = pruner.device, pruner.num_samples
    for batch in BATCHES:
        index = torch.randint(size, (CALLS, batch), device=device)
        losses = torch.rand(batch, device=device, requires_grad=True)
        on_cpu = index.cpu()

        def all_of(ids: torch.Tensor, losses: torch.Tensor = losses) -> list[float]:
            """Seconds of each call until it came back."""
            seconds = []
            for each in ids:
                start = time.perf_counter()
                pruner.update(each, losses)
                seconds.append(time.perf_counter() - start)
            return seconds

        host = {
            name: median(all_of(ids) + all_of(ids)) for name, ids in (("index on the device", index), ("index on the CPU", on_cpu))
        }
        figures: dict[str, Any] = {"host_seconds": host}
        if device.type == "cuda":
            figures["eager_seconds"] = median(device_seconds(lambda: all_of(index)) for _ in range(5)) / CALLS  # noqa: B023
            graph = captured(lambda: all_of(index))  # noqa: B023
            figures["graph_seconds"] = median(device_seconds(graph.replay) for _ in range(20)) / CALLS
        key = " and ".join(
            f"{1e6 * figures[name]:.1f} us ({name[:5]})" for name in ("eager_seconds", "graph_seconds") if name in figures
        )
        show("update", batch=batch, samples=size, **figures, key=f"update of {batch}: {key}")
        launches(pruner, "an update", lambda: pruner.update(index[0], losses), batch=batch)  # noqa: B023


def device_seconds(run: Callable[[], object]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def captured(run: Callable[[], object]) -> torch.cuda.CUDAGraph:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


def measure_order(pruner: InfoBatch) -> None:
    plan(pruner)
    length = len(pruner.sampler)
    _, done = timed(pruner.sampler.indices, FEW_ROUNDS, pruner.device)
    show("order", samples=pruner.num_samples, ids=length, seconds=done, ids_a_second=length / done["median"])


def measure_memory(size: int, device: torch.device) -> None:
    """Construction, a plan and the first ids."""
    if device.type != "cuda":
        return
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    pruner = made(size, "mean", device)
    plan(pruner)
    for _ in itertools.islice(pruner.sampler, 200_000):
        pass
    held, most = torch.cuda.memory_allocated(device) - before, torch.cuda.max_memory_allocated(device) - before
    show("memory", samples=size, held_bytes_a_sample=held / size, peak_bytes_a_sample=most / size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", default="1e8,1e9", help="numbers of samples")
    arguments = parser.parse_args()
    ignore_notices()
    device = InfoBatch(1, 1, device=arguments.device).device
    bandwidth = copy_bandwidth(device)
    show("copy", bytes_a_second=bandwidth, key=f"copy {bandwidth / 1e9:.0f} GB/s")
    for size in (int(float(text)) for text in arguments.sizes.split(",")):
        if size > 2 * 10**8 and free_bytes(device) < LARGE:
            continue
        measure_memory(size, device)
        seconds = {}
        for name in POLICIES:
            pruner = made(size, name, device)
            seconds[name] = measure_plans(pruner, name, bandwidth)
            launches(pruner, "a plan", lambda pruner=pruner: plan(pruner), policy=name)  # type: ignore[misc]
            if name == "mean":
                measure_updates(pruner)
                measure_order(pruner)
            del pruner
        measure_plain_torch(size, seconds, device)


if __name__ == "__main__":
    main()
