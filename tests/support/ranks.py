"""Starts the ranks of a process group on this machine, and brings back what they return.

The ranks are forked from one server that has imported torch and started nothing else, so that a group costs a fraction of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from itertools import chain
from multiprocessing.connection import wait
from typing import Any

import pytest
import torch
import torch.distributed as dist

from infobatch_fast import InfoBatch
from support.gpus import GPUS, ON_A_GPU
from support.runs import ARBITRARY_NOTICES, loss_of, record

CONTEXT = multiprocessing.get_context("forkserver")
SLOW = [
    "torch",
    "torch._dynamo",
    "torch.distributed.checkpoint",
    "torch.distributed.tensor",
    "fsspec.core",
    "infobatch_fast",
    "pytest",
]
CONTEXT.set_forkserver_preload(SLOW)
SECONDS = 900.0  # a group that takes longer is killed and the test fails: no test hangs
PATIENCE = 120.0  # in a collective call: a connection that was lost is noticed by it, and made anew

NOT_CONNECTED = "not connected: "

needs_gloo = pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")
ON_GPUS = [pytest.mark.gpu, pytest.mark.skipif(GPUS < 2, reason="NCCL needs a GPU for each rank")]
BACKENDS = [  # with the device of the tables; gloo ranks may share a GPU
    ("gloo", "cpu"),
    pytest.param(("gloo", "cuda"), marks=ON_A_GPU),
    pytest.param(("nccl", "cuda"), marks=ON_GPUS),
]


def preload(*modules: str) -> None:
    """Has the server import more before the first ranks are forked: for modules of tests whose ranks would all import it."""
    SLOW.extend(modules)
    CONTEXT.set_forkserver_preload(SLOW)


class Killed(Exception):
    """A rank was ended by SIGKILL, and the others with it."""


class NotConnected(AssertionError):
    """The ranks found no way to each other; over gloo ``target`` has then begun on none of them."""


def arbitrary(target: Callable[..., Any]) -> Callable[..., Any]:
    """Marks what ranks run as tests are marked by ``ARBITRARY``."""
    target.is_arbitrary = True  # type: ignore[attr-defined]
    return target


def run_ranks(world: int, target: Callable[..., Any], *args: Any, backend: str = "gloo") -> list[Any]:
    """What ``target(*args)`` returns on each of ``world`` ranks.

    Raises:
        Killed: A rank was ended by SIGKILL; the others were killed at once, as a launcher does.
        AssertionError: A rank raised, died otherwise, or was not done in time; with the tracebacks.
    """
    try:
        return _start(world, target, args, backend)
    except NotConnected:  # gloo loses a connection that is being made now and then, where the machine is busy
        return _start(world, target, args, backend)


def _start(world: int, target: Callable[..., Any], args: tuple[Any, ...], backend: str) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "store")
        ends = [CONTEXT.Pipe(duplex=False) for _ in range(world)]
        started = [
            CONTEXT.Process(target=_rank, args=(rank, world, backend, store, send, target, args), daemon=True)
            for rank, (_, send) in enumerate(ends)
        ]
        for process, (_, send) in zip(started, ends, strict=True):
            process.start()
            send.close()
        try:
            return _collect(started, [receive for receive, _ in ends])
        finally:
            for process in started:
                process.kill()
                process.join()


def _collect(started: Sequence[Any], pipes: Sequence[Any]) -> list[Any]:
    results: dict[int, Any] = {}
    failures: dict[int, str] = {}
    deadline = time.monotonic() + SECONDS
    while len(results) + len(failures) < len(started):
        waiting = {pipes[rank]: rank for rank in range(len(started)) if rank not in results and rank not in failures}
        ready = wait(list(waiting), timeout=max(0.0, deadline - time.monotonic()))
        for pipe in ready:
            rank = waiting[pipe]
            try:
                done, value = pickle.loads(pipe.recv_bytes())
                (results if done else failures)[rank] = value
            except EOFError:
                started[rank].join()
                if started[rank].exitcode == -signal.SIGKILL:
                    raise Killed(f"rank {rank}") from None
                failures[rank] = f"ended with exit code {started[rank].exitcode} and said nothing"
        if not ready:
            failures |= dict.fromkeys(waiting.values(), "not done in time")
        elif failures:  # the others may wait for it forever
            deadline = min(deadline, time.monotonic() + 5.0)
    if failures:
        connected = not any(text.startswith(NOT_CONNECTED) for text in failures.values())
        raise (AssertionError if connected else NotConnected)(
            "\n".join(f"rank {rank} of {len(started)}: {text}" for rank, text in sorted(failures.items()))
        )
    return [results[rank] for rank in range(len(started))]


def _rank(rank: int, world: int, backend: str, store: str, pipe: Any, target: Callable[..., Any], args: tuple[Any, ...]) -> None:
    warnings.filterwarnings("error", module="infobatch_fast|support|test_")  # as pytest does in its own process
    if hasattr(target, "is_arbitrary"):
        warnings.filterwarnings("ignore", ARBITRARY_NOTICES)
    torch.set_num_threads(1)
    place = {"init_method": f"file://{store}", "rank": rank, "world_size": world, "timeout": timedelta(seconds=PATIENCE)}
    connected = False
    try:
        if GPUS:
            torch.cuda.set_device(rank % GPUS)
        if backend == "nccl":
            place["device_id"] = torch.device("cuda", rank)
        dist.init_process_group(backend, **place)
        if backend == "gloo":
            dist.barrier()  # no rank begins before all are connected
        connected = True
        message = (True, target(*args))
    except BaseException:
        message = (False, ("" if connected else NOT_CONNECTED) + traceback.format_exc())
    pipe.send_bytes(pickle.dumps(message))
    if message[0]:  # until it is ended: no rank closes its connections while another one still needs them
        time.sleep(SECONDS)


def error_of(call: Callable[[], Any]) -> str:
    """The message of the error that a call raises on this rank, with its type."""
    try:
        call()
    except BaseException as error:  # as that of torch.distributed.checkpoint is
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def flat(lists: Iterable[Iterable[Any]]) -> list[Any]:
    """What all ranks returned, in one list."""
    return list(chain.from_iterable(lists))


def own_ids(pruner: InfoBatch) -> torch.Tensor:
    """The samples of this rank, ascending; asked of the table, since the public functions count others' samples as faults."""
    table, everything = pruner.engine.table, torch.arange(pruner.num_samples, device=pruner.device)
    return everything[table.slots_of(everything) >= 0].cpu()


def record_own(pruner: InfoBatch, epoch: int = 0) -> None:
    """One loss for each sample of this rank."""
    ids = own_ids(pruner)
    record(pruner, ids, loss_of(ids, epoch))


def kept_here(pruner: InfoBatch) -> list[int]:
    """The samples of this rank that the current plan keeps, ascending."""
    ids = own_ids(pruner)
    kept = pruner.is_kept(ids)
    assert isinstance(kept, torch.Tensor)
    return ids[kept.cpu()].tolist()


def local_value(value: Any) -> Any:
    """A value of a state dict, comparable with ==: of a tensor the bytes, of a DTensor those of this rank."""
    if hasattr(value, "to_local"):
        value = value.to_local().local_shards()[0]
    return value.cpu().numpy().tobytes() if isinstance(value, torch.Tensor) else value


class Collectives:
    """Counts what this rank sends while it is in force: a list of (function, bytes handed over)."""

    NAMES = ("all_reduce", "all_gather", "all_gather_object", "all_gather_into_tensor", "broadcast", "broadcast_object_list")
    NAMES += ("barrier", "gather", "gather_object", "reduce", "reduce_scatter", "scatter", "all_to_all", "send", "recv", "isend")

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, int]] = []
        for name in self.NAMES:
            patch.setattr(dist, name, self._counted(name, getattr(dist, name)))

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, sum(a.numel() * a.element_size() for a in args if isinstance(a, torch.Tensor))))
            return function(*args, **kwargs)

        return call
