"""The splits of a run against each other."""

import pytest
from mmengine.config import Config

from vitdense.checks import Run, check
from vitdense.datasets.scan import SplitReport


def cases(*classes: tuple[str, ...], keys=('train', 'val', 'test'), **model) -> list[str]:
    reports = [
        SplitReport(f'{key}_dataloader.dataset', 'VOCDataset', names) for key, names in zip(keys, classes, strict=False)
    ]
    run = Run(Config(dict(model=model)), reports=reports)
    return [str(finding) for finding in check(run, 'data') if finding.kind == 'classes of another split']


def test_the_same_classes_are_no_fault():
    assert cases(('a', 'b'), ('a', 'b'), ('a', 'b')) == []
    assert cases(('a', 'b')) == []
    assert cases((), ('a', 'b')) == []


@pytest.mark.parametrize(
    ('val', 'says'),
    [
        (('b', 'a'), "in another order: label 0 is 'b', in train_dataloader.dataset 'a'"),
        (('a', 'c'), "label 1 is 'c', in train_dataloader.dataset 'b'"),
        (('a',), "label 1 is no class, in train_dataloader.dataset 'b'"),
        (('a', 'b', 'c'), "label 2 is 'c', in train_dataloader.dataset no class"),
    ],
)
def test_other_classes(val, says):
    [case] = cases(('a', 'b'), val)
    assert says in case
    assert case.startswith('classes of another split: val_dataloader.dataset.metainfo.classes: ')


def test_data_sets_of_one_split_are_compared_as_well():
    assert len(cases(('a', 'b'), ('b', 'a'), keys=('train', 'train'))) == 1


def test_classes_that_are_words_of_a_text_may_differ():
    assert cases(('a', 'b'), ('c',), language_model=dict(type='BertModel')) == []
