"""What the tests of bad input share: how an error must read, and a pruner that must not change."""

import math
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from infobatch_fast import InfoBatch
from support.runs import record_all, train

INTS = [(1.5, TypeError), ("a", TypeError), (True, TypeError), (None, TypeError)]  # what is no int


@contextmanager
def raises(kind: type[Exception], *parts: object) -> Iterator[None]:
    """An error whose message holds all ``parts``, in this order.

    The error is gone afterwards, with all that its frames hold: torch keeps an error of a worker, and with it the iterator, in a
    cycle of references, and an iterator that the garbage collector ends waits five seconds for each of its workers.
    """
    with pytest.raises(kind, match="(?s)" + ".*".join(re.escape(str(part)) for part in parts)) as caught:
        yield
    traceback.clear_frames(caught.tb)
    del caught


def in_mid_epoch(device: torch.device) -> InfoBatch:
    """In epoch 1, with a plan of which two samples were visited; sample 3 has not been seen."""
    pruner = InfoBatch(10, 10, delta=1.0, device=device)
    record_all(pruner, [0.1, 0.2, 0.3, math.nan, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    pruner.set_epoch(1)
    train(pruner, batch_size=2, steps=1)
    return pruner
