"""Random use of the public face: threads, damaged states and odd arguments. A seed tells what was tried."""

from __future__ import annotations

import copy
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from infobatch_fast import ImportanceSampling, InfoBatch, MeanThreshold, Policy, QuantileTiers, RandomPruning
from support.runs import decisions, record, record_all, snapshot, train

Errors = (TypeError, ValueError, IndexError, RuntimeError)  # what a user may be told by; anything else is a finding
POLICIES: list[Callable[[], Policy]] = [MeanThreshold, QuantileTiers, RandomPruning, lambda: MeanThreshold(0.3, momentum=0.5)]
POLICIES += [ImportanceSampling, lambda: ImportanceSampling(0.7, "score", 0.01)]


def some_pruner(dice: random.Random, device: torch.device, n: int) -> InfoBatch:
    """Epoch 1 of 20, of which a part was visited."""
    kind: dict[str, Any] = {"seed": dice.randrange(2**64), "policy": dice.choice(POLICIES)(), "delta": 1.0, "device": device}
    if dice.random() < 0.3:
        kind["protect"] = dice.sample(range(n), n // 4)
    if dice.random() < 0.3:
        kind |= dice.choice([{"batch_size": 8, "steps_per_epoch": 5}, {"steps_per_epoch": math.inf}])
    pruner = InfoBatch(n, 20, **kind)
    record_all(pruner)
    pruner.set_epoch(1)
    train(pruner, 8, steps=dice.randrange(1, 6))
    return pruner


# ---- threads that read while others plan ----


def read_for(pruner: InfoBatch, dice: random.Random, ends: float, found: list[BaseException]) -> None:
    """Reads in every way until it is time. An iterator of a plan that is past says so; ids never leave the data set."""
    n = pruner.num_samples
    while time.monotonic() < ends and not found:
        try:
            match dice.randrange(5):
                case 0:
                    seen: set[int] = set()
                    for batch in pruner.sampler.batches(dice.choice([7, 256, 4096])):
                        assert all(0 <= sample < n for sample in batch)
                        assert seen.isdisjoint(batch), "a sample came twice"
                        seen.update(batch)
                        if dice.random() < 0.05:
                            break
                case 1:
                    ids = pruner.sampler.indices(0, dice.choice([None, 100]))
                    assert bool(((ids >= 0) & (ids < n)).all())
                case 2:
                    weights = pruner.weights(torch.randint(n, (100,)))
                    assert bool((weights >= 1).all())
                case 3:
                    pruner.is_kept(torch.randint(n, (100,)))
                case _:
                    assert len(pruner.scores(torch.randint(n, (100,)))) == 100
        except Errors:
            pass  # the plan has moved on
        except BaseException as error:
            found.append(error)


def fuzz_threads(seed: int, device: torch.device, seconds: float = 0.5) -> None:
    """Three threads read while this one plans and records."""
    dice = random.Random(seed)
    n = dice.choice([500, 70_000, 300_000])
    pruner = InfoBatch(n, 10_000, delta=1.0, device=device, seed=seed, policy=dice.choice(POLICIES)())
    record_all(pruner)
    ends, found = time.monotonic() + seconds, list[BaseException]()
    threads = [threading.Thread(target=read_for, args=(pruner, random.Random(seed + k), ends, found)) for k in range(1, 4)]
    for thread in threads:
        thread.start()
    epoch = 1
    while time.monotonic() < ends and not found:
        pruner.set_epoch(epoch)
        len(pruner.sampler)
        index = torch.randint(n, (256,))
        record(pruner, index, torch.rand(256))
        epoch += 1
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
    if found:
        raise found[0]


# ---- damaged states ----


UNCHECKED = {"scored", "done"}  # what each rank counts for itself, and docs/distributed.md names


def damaged(state: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    """A copy of which one thing is not what it was."""
    state = copy.deepcopy(state)
    name = dice.choice(sorted(state.keys() - UNCHECKED))
    value = state[name]
    others: list[Any] = [
        None,
        "x",
        -1,
        2**63,
        2**70,
        math.nan,
        1.5,
        [],
        {},
        torch.tensor([]),
        torch.zeros(3, dtype=torch.int8),
        True,
    ]
    if isinstance(value, torch.Tensor) and value.numel() > 0 and dice.random() < 0.8:
        flat = value.contiguous().view(-1)
        match dice.randrange(5):
            case 0 | 1:
                bits = flat.view(torch.uint8)
                for _ in range(dice.randrange(1, 4)):
                    bits[dice.randrange(len(bits))] ^= 1 << dice.randrange(8)
                state[name] = flat.view(value.shape)
            case 2:
                state[name] = flat[: dice.randrange(len(flat))]
            case 3:
                state[name] = torch.cat([flat, flat])
            case _:
                state[name] = value.to(dice.choice([torch.float64, torch.int32, torch.bool, torch.uint8]))
    elif dice.random() < 0.3:
        del state[name]
    else:
        state[name] = dice.choice(others)
    return state


def fuzz_states(seed: int, device: torch.device) -> None:
    """A damaged state is refused and changes nothing, or it is as good as the one that was saved."""
    dice = random.Random(seed)
    n = dice.choice([9, 64, 300])
    pruner = some_pruner(dice, device, n)
    good = copy.deepcopy(pruner.state_dict())
    for _ in range(5):
        bad = damaged(good, dice)
        before = snapshot(pruner), pruner.epoch
        try:
            pruner.load_state_dict(bad)
        except (*Errors, KeyError):
            assert (snapshot(pruner), pruner.epoch) == before, "a state that was refused has changed something"
            continue
        if good.get("is_over") and not bad.get("is_over"):
            continue  # nothing is left of that epoch, whether or not the state says so
        after = decisions(pruner)
        pruner.load_state_dict(copy.deepcopy(good))
        assert after == decisions(pruner), f"a damaged state was taken: {[k for k in good if repr(good[k]) != repr(bad.get(k))]}"


# ---- odd arguments ----


@contextmanager
def odd_surroundings(dice: random.Random) -> Iterator[None]:
    """Defaults of torch that a program may have changed."""
    dtype = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dice.choice([torch.float32, torch.float64, torch.bfloat16]))
        with torch.device(dice.choice(["cpu", "meta"])), torch.set_grad_enabled(dice.random() < 0.5):
            yield
    finally:
        torch.set_default_dtype(dtype)


def odd_index(dice: random.Random, n: int, device: torch.device) -> Any:
    plain = torch.tensor([dice.randrange(n) for _ in range(4)], device=device)
    return dice.choice(
        [
            plain,
            plain.cpu(),
            plain.tolist(),
            plain.to(dice.choice([torch.int32, torch.int16, torch.float32, torch.bool, torch.complex64])),
            plain.cpu().numpy()[::-1],
            plain.expand(3, 4)[1],
            plain.repeat(2)[::2],
            plain.to("meta"),
            plain.to_sparse(),
            torch._efficientzerotensor((4,), dtype=torch.int64, device=device),
            torch._C._functorch._add_batch_dim(plain[None], 0, 1) if dice.random() < 0.1 else plain,
            np.int64(3),
            [np.uint64(2**63)],
            [2**70],
            [-1],
            [],
            None,
            "ab",
            plain[:0],
            plain[None],
        ]
    )


def odd_losses(dice: random.Random, device: torch.device) -> Any:
    plain = torch.rand(4, device=device) * 10
    return dice.choice(
        [
            plain,
            plain.double(),
            plain.half(),
            plain.bfloat16(),
            plain.requires_grad_(),
            plain.repeat(2)[::2],
            plain.expand(2, 4)[0],
            torch.complex(plain, -plain).conj().imag,
            torch._efficientzerotensor((4,), device=device),
            plain.to("meta"),
            plain.to_sparse(),
            plain.to(torch.int32),
            plain.sum(),
            plain[:3],
            torch.full((4,), dice.choice([math.nan, math.inf, -math.inf, 1e-45]), device=device),
            plain.tolist(),
            None,
        ]
    )


def tables(pruner: InfoBatch) -> tuple[bytes, bytes]:
    """Scores and marks, bit for bit."""
    return tuple(part.cpu().numpy().tobytes() for part in (pruner.engine.table.scores, pruner.engine.table.row_marks))  # type: ignore[return-value]


def fuzz_arguments(seed: int, device: torch.device) -> None:
    """Odd arguments are refused and change nothing, or mean what their plain copies mean."""
    dice = random.Random(seed)
    n = dice.choice([9, 300])
    pruner = some_pruner(dice, device, n)
    for _ in range(10):
        index, losses = odd_index(dice, n, device), odd_losses(dice, device)
        reduction = dice.choice(["none", "mean", "sum"])
        twin = copy.deepcopy(pruner.state_dict())
        pruner.load_state_dict(copy.deepcopy(twin))  # so that both calls below come after a restart
        pruner.is_kept(0)  # makes the plan, where the epoch before was done
        before = snapshot(pruner)
        try:
            with odd_surroundings(dice):
                weighed = pruner.weigh(index, losses, reduction)
                got = pruner.update(index, losses, reduction=reduction)
                weights = pruner.weights(index)
        except Errors:
            faults = pruner.engine.table.faults.tolist()
            assert faults[1:3] != [0, 0] or snapshot(pruner) == before, f"{index!r}, {losses!r} changed something"
            pruner.engine.table.faults.zero_()
            continue
        after = tables(pruner)
        pruner.load_state_dict(twin)
        plain_index = torch.as_tensor(np.array(index if not isinstance(index, torch.Tensor) else index.tolist()), dtype=torch.int64)
        plain = torch.tensor(losses.detach().clone().tolist(), dtype=losses.dtype, device=device)
        expected = pruner.update(plain_index.view(-1), plain, reduction=reduction)
        for each in (got, weighed):  # torch adds up in another order where strides differ
            torch.testing.assert_close(each.detach(), expected, equal_nan=True)
        assert torch.equal(weights, pruner.weights(plain_index.view(-1)))
        assert tables(pruner) == after
