"""The data sets of a config, and which of their entries count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.dataset import BaseDataset

from vitdense.config.datasets import leaf_datasets, metrics, positions

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


@pytest.mark.parametrize(
    ('evaluator', 'expected'),
    [
        (None, {}),
        (dict(type='a'), {'val_evaluator': 'a'}),
        ([dict(type='a'), dict(type='b')], {'val_evaluator.0': 'a', 'val_evaluator.1': 'b'}),
        (dict(metrics=dict(type='a')), {'val_evaluator.metrics': 'a'}),
        (
            dict(type='E', metrics=[dict(type='a'), dict(type='b')]),
            {f'val_evaluator.metrics.{i}': 'ab'[i] for i in (0, 1)},
        ),
        ([dict(metrics=[dict(type='a')])], {'val_evaluator.0.metrics.0': 'a'}),
    ],
)
def test_metrics_of_a_split_with_their_keys(evaluator, expected):
    cfg = Config(dict(val_evaluator=evaluator))
    assert {key: node.type for key, node in metrics(cfg, 'val')} == expected
    assert list(metrics(cfg, 'test')) == []
