"""The ways in which loader tests start workers."""

from typing import Any

import pytest

WORKER_WARNINGS = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning", "ignore:This DataLoader will create:UserWarning"
)

KINDS: dict[str, dict[str, Any]] = {
    "no workers": {},
    "two workers": {"num_workers": 2},
    "persistent": {"num_workers": 2, "persistent_workers": True, "prefetch_factor": 4},
    "spawned": {"num_workers": 2, "persistent_workers": True, "multiprocessing_context": "spawn"},
    "prefetch": {"num_workers": 2, "prefetch_factor": 16},
    "out of order": {"num_workers": 2, "in_order": False},
}
