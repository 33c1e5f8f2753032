"""Static selection: scores from the literature, by which to choose a subset, before or beside training with a pruner.

>>> from infobatch_fast.selection import error_norms, select
>>> scores = error_norms(logits, labels)                                                  # doctest: +SKIP
>>> subset = Subset(dataset, select(scores, keep=0.5, labels=labels).tolist())            # doctest: +SKIP
"""

from .choice import select
from .forgetting import ForgettingEvents
from .norms import error_norms, gradient_norms

__all__ = ["ForgettingEvents", "error_norms", "gradient_norms", "select"]
