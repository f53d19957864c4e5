"""The data sets of a config, and which of their entries count."""

from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.dataset import BaseDataset

from vitdense.config.datasets import evaluators, leaf_datasets, positions

INDICES = st.none() | st.integers(-9, 9) | st.lists(st.integers(-9, 9))


@given(number=st.integers(0, 6), indices=INDICES)
def test_indices_are_read_as_mmengine_reads_them(number, indices):
    """What is out of range is left out; mmengine raises."""
    dataset = BaseDataset(lazy_init=True)
    dataset.data_list = list(range(number))
    if isinstance(indices, list):
        indices = [i for i in indices if -number <= i < number]
    expected = dataset.data_list if indices is None else dataset._get_unserialized_subset(indices)
    assert positions(number, indices) == expected
    if isinstance(indices, list):
        assert positions(number, [*indices, number, -number - 1]) == expected


def test_wrappers_are_opened_and_what_is_missing_is_nothing():
    first, second, third = (dict(type='CocoDataset', ann_file=f'{i}.json') for i in range(3))
    wrapped = dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', times=2, dataset=first), second])
    cfg = Config(dict(train_dataloader=dict(dataset=wrapped), val_dataloader=dict(dataset=third), test_dataloader=None))
    found = dict(leaf_datasets(cfg, 'train'))
    assert found == {
        'train_dataloader.dataset.datasets.0.dataset': first,
        'train_dataloader.dataset.datasets.1': second,
    }
    assert dict(leaf_datasets(cfg, 'val')) == {'val_dataloader.dataset': third}
    assert list(leaf_datasets(cfg, 'test')) == []
    assert list(leaf_datasets(Config(), 'train')) == []


def test_a_split_has_no_evaluator_one_or_several():
    cfg = Config(dict(val_evaluator=dict(type='a'), test_evaluator=[dict(type='a'), dict(type='b')]))
    found = [[one.type for one in evaluators(cfg, split)] for split in ('train', 'val', 'test')]
    assert found == [[], ['a'], ['a', 'b']]
