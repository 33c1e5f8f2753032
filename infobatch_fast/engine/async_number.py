"""A number that a device computes and the host reads later, without waiting for it."""

from __future__ import annotations

import torch


class AsyncNumber:
    """The number that was asked for last, once it is there."""

    def __init__(self) -> None:
        self._on_host: torch.Tensor | None = None
        self._event: torch.cuda.Event | None = None

    def ask(self, number: torch.Tensor) -> None:
        """Brings an int64 number to the host, unless one is under way already."""
        if self._is_under_way():
            return
        if number.is_cpu:
            self._on_host = number
            return
        self._on_host = torch.empty((), dtype=torch.int64, device="cpu", pin_memory=True)
        self._on_host.copy_(number, non_blocking=True)
        self._event = torch.cuda.current_stream(number.device).record_event()

    def number(self) -> int | None:
        """The number; None if none is there yet."""
        return None if self._on_host is None or self._is_under_way() else int(self._on_host)

    def _is_under_way(self) -> bool:
        return self._event is not None and not self._event.query()  # type: ignore[no-untyped-call]
