"""Data sets that hand out ids of another one are refused, and those that hand out the right ones are not."""

from typing import Any

import pytest
from torch.utils.data import ChainDataset, ConcatDataset, DataLoader, Dataset, StackDataset, Subset, random_split

from infobatch_fast import InfoBatch, with_index
from support.items import SIZE, Items
from support.refusals import raises


class Forwards(Dataset[Any]):
    """A data set of a user's own around another one, which it is asked for everything that it has not."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["dataset"], name)


class FirstHalf(Forwards):
    def __len__(self) -> int:
        return len(self.dataset) // 2


class Joined(Dataset[Any]):
    def __init__(self, **datasets: Any) -> None:
        self.datasets = datasets

    def __len__(self) -> int:
        return sum(map(len, self.datasets.values()))


def indexed(size: int = SIZE) -> Any:
    return with_index(Items(size))


@pytest.mark.parametrize("constructs", [lambda source: InfoBatch(source, 3), with_index], ids=["InfoBatch", "with_index"])
@pytest.mark.parametrize(
    ("source", "classes", "remedy"),
    [
        (ConcatDataset([indexed(), indexed()]), "ConcatDataset(IndexedDataset)", "Write with_index(ConcatDataset([a, b]))"),
        (ConcatDataset([Items(), indexed()]), "ConcatDataset(IndexedDataset)", "Write with_index(ConcatDataset([a, b]))"),
        (Subset(indexed(), range(5)), "Subset(IndexedDataset)", "Write with_index(Subset(dataset, indices))"),
        (random_split(indexed(), [60, 30])[0], "Subset(IndexedDataset)", "random_split"),
        (StackDataset(indexed(), Items()), "StackDataset(IndexedDataset)", "Write with_index(StackDataset(a, b))"),
        (StackDataset(x=indexed(), y=Items()), "StackDataset(IndexedDataset)", "Write with_index(StackDataset(a, b))"),
        (Subset(ConcatDataset([indexed()]), [3]), "Subset(ConcatDataset(IndexedDataset))", "Write with_index(Subset("),
        (Forwards(Subset(indexed(), [3])), "Forwards(Subset(IndexedDataset))", "Write with_index(Forwards(...))"),
        (FirstHalf(indexed()), "FirstHalf(IndexedDataset)", "Write with_index(FirstHalf(...))"),
        (Joined(a=indexed(), b=Items()), "Joined(IndexedDataset)", "Write with_index(Joined(...))"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_data_set_around_indexed_ones_is_refused_with_the_classes_and_the_remedy(
    constructs: Any, source: Any, classes: str, remedy: str
) -> None:
    with raises(ValueError, f"is {classes}: with_index is inside", f"ids of the {SIZE} inner samples", remedy):
        constructs(source)


def test_a_chain_of_indexed_data_sets_is_refused() -> None:
    with raises(ValueError, "data_source is ChainDataset(IndexedDataset)", "Write with_index(ConcatDataset([a, b]))"):
        InfoBatch(ChainDataset([indexed(), indexed()]), 3)


def test_a_data_set_is_wrapped_once() -> None:
    with raises(ValueError, "dataset is with_index(range(0, 4)), whose items come with their index already", "wrap it once"):
        with_index(with_index(range(4)))


def test_grow_refuses_what_the_constructor_refuses() -> None:
    pruner = InfoBatch(Items(), 3)
    with raises(ValueError, "new_size is ConcatDataset(IndexedDataset)"):
        pruner.grow(ConcatDataset([Items(), indexed()]))
    assert pruner.num_samples == SIZE


def test_the_wrapper_outermost_has_the_ids_of_the_whole() -> None:
    both = ConcatDataset([Items(), Items(7)])
    for source in (with_index(both), with_index(Subset(both, range(10))), with_index(StackDataset(both, both))):
        assert InfoBatch(source, 3).num_samples == len(source)


def test_a_data_set_that_forwards_the_index_as_it_is_is_let_through() -> None:
    for source in (Forwards(indexed()), Forwards(Forwards(indexed()))):
        assert InfoBatch(source, 3).num_samples == SIZE


def test_data_sets_that_refer_to_each_other_are_looked_into_once() -> None:
    first = Forwards(Items())
    first.dataset = ConcatDataset([Forwards(Items()), Items()])
    first.dataset.datasets[0].dataset = first.dataset.datasets[1]
    first.dataset.datasets.append(first)
    assert InfoBatch(first, 3).num_samples == 2 * SIZE


def test_attributes_of_these_names_that_are_something_else_do_not_matter() -> None:
    class Odd(Items):
        dataset, datasets = property(lambda self: 1 / 0), property(lambda self: 1 / 0)

    other = Items()
    other.dataset, other.datasets = "imagenet", 3  # type: ignore[attr-defined]
    for source in (Odd(), other, [1, 2], range(3)):
        assert InfoBatch(source, 3).num_samples == len(source)


def test_a_loader_is_no_data_set() -> None:
    with pytest.raises(TypeError, match=r"data_source is a DataLoader.*number of batches: pass the data set, data_source\.dataset"):
        InfoBatch(DataLoader(range(100), 10), 4)
