"""Data sources: whether an inner data set hands out ids that are wrong for the whole, and whether a data set has changed."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from numbers import Integral
from typing import Any

from torch.utils.data import ChainDataset, ConcatDataset, StackDataset, Subset

WRAPPERS = (ConcatDataset, Subset, StackDataset, ChainDataset)  # torch's own; random_split makes Subsets

MARK = "infobatch_hands_out_ids"  # an attribute of the classes whose items come with their ids, and True there


def hands_out_ids(dataset: Any) -> bool:
    """Whether items of ``dataset`` come with their ids. Its class tells: instances may forward attributes to others."""
    return getattr(type(dataset), MARK, None) is True


def refuse_ids_inside(name: str, source: Any) -> None:
    """Makes sure that items which come with ids have the ids of ``source`` as a whole.

    Classes other than torch's may forward indices unchanged. So such a data set passes if it is as long as the inner one.

    Raises:
        ValueError: A data set inside ``source`` hands out its own ids.
    """
    for path in _paths([source]):
        inner = path[-1]
        if any(isinstance(outer, WRAPPERS) for outer in path[:-1]) or not _as_long(inner, source):
            classes = "(".join(type(dataset).__name__ for dataset in path) + ")" * (len(path) - 1)
            raise ValueError(
                f"{name} is {classes}: with_index is inside, so items come with the ids of the {len(inner)} inner samples and not "
                f"with those of {type(source).__name__}, and losses would go to wrong samples. Write {_remedy(source)}, without "
                "another with_index inside"
            )


def what_changed(source: Sized | int, num_samples: int) -> str | None:
    """A warning if the length of a data set is no longer ``num_samples``; else None."""
    if isinstance(source, Integral):
        return None
    size = len(source)  # type: ignore[arg-type]
    if size == num_samples:
        return None
    if size > num_samples:
        return (
            f"the data source has {size} samples now, but the pruner knows only {num_samples} of them: call pruner.grow() between "
            "epochs, or the new samples are never trained on"
        )
    return (
        f"the data source has {size} samples now, but the pruner draws from {num_samples}: data sets grow at their end only, so "
        "construct a new pruner"
    )


def _paths(path: list[Any]) -> Iterator[list[Any]]:
    """Ways from the first data set of ``path`` down to those that hand out ids; each data set is looked into once."""
    seen, left = {id(path[0])}, [path]
    while left:
        path = left.pop()
        for inner in _inside(path[-1]):
            if hands_out_ids(inner):
                yield [*path, inner]
            elif id(inner) not in seen:
                seen.add(id(inner))
                left.append([*path, inner])


def _inside(dataset: Any) -> Iterator[Any]:
    """What ``dataset`` holds in its own attributes ``dataset`` and ``datasets``. No code of its class is run."""
    try:
        own = object.__getattribute__(dataset, "__dict__")
    except AttributeError:  # a list, a tensor
        return
    if "dataset" in own:
        yield own["dataset"]
    more = own.get("datasets")
    if isinstance(more, dict):
        more = list(more.values())
    if isinstance(more, (list, tuple)):
        yield from more


def _as_long(inner: Any, source: Any) -> bool:
    try:
        return len(inner) == len(source)
    except Exception:  # it has no length, which is somebody else's to say
        return True


def _remedy(source: Any) -> str:
    if isinstance(source, Subset):
        return "with_index(Subset(dataset, indices)), also around what random_split returns"
    if isinstance(source, StackDataset):
        return "with_index(StackDataset(a, b))"
    if isinstance(source, (ConcatDataset, ChainDataset)):
        return "with_index(ConcatDataset([a, b]))"
    return f"with_index({type(source).__name__}(...))"
