"""Whether the host waits for the GPU, as torch notices it. Its mode is always set back: it belongs to the whole process."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def no_host_sync() -> Iterator[None]:
    """What waits for the GPU raises within."""
    with _debug_mode("error"):
        yield


@contextmanager
def host_syncs() -> Iterator[list[str]]:
    """The waits for the GPU within: a message for each of them, there at the end."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # or a line of code would be told of once only
        with _debug_mode("warn"):
            yield found
    found += [str(warning.message) for warning in caught if "called a synchronizing" in str(warning.message)]


@contextmanager
def _debug_mode(mode: str) -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    try:
        _set_debug_mode(mode)
        yield
    finally:
        _set_debug_mode(before)


def _set_debug_mode(mode: str | int) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*prototype feature")  # as an error it would come after the mode was set
        torch.cuda.set_sync_debug_mode(mode)
