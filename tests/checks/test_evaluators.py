"""Evaluators against the data sets whose predictions they are given."""

import copy
import json

import pytest
from mmengine.config import Config
from mmengine.dataset import RepeatDataset

from vitdense.checks import Run, check
from vitdense.datasets.scan import SplitReport

CLASSES = ('disc', 'slab')


def content(ids=(1, 2), shift=0, folder='') -> dict:
    images = [dict(id=i, file_name=f'{folder}{i}.jpg', width=8, height=8) for i in ids]
    objects = [
        dict(id=10 * k, image_id=i, category_id=1 + k % 2, bbox=[1 + shift, 1, 3, 3], area=9, iscrowd=0)
        for k, i in enumerate(ids)
    ]
    categories = [dict(id=1, name='disc'), dict(id=2, name='slab'), dict(id=3, name='kite')]
    return dict(images=images, annotations=objects, categories=categories)


@pytest.fixture
def found(tmp_path):
    """Findings about a validation of files of these contents."""

    def check_files(evaluator, *data, kind='CocoMetric', split='val', **node) -> list[str]:
        for i, one in enumerate(data):
            (tmp_path / f'data{i}.json').write_text(json.dumps(one))
        if evaluator is not None:
            (tmp_path / 'other.json').write_text(json.dumps(evaluator))
            node['ann_file'] = str(tmp_path / 'other.json')
        datasets = [
            dict(type='CocoDataset', data_root=str(tmp_path), ann_file=f'data{i}.json') for i in range(len(data))
        ]
        dataset = datasets[0] if len(data) == 1 else dict(type='ConcatDataset', datasets=datasets)
        cfg = Config(
            {'default_scope': 'mmdet', 'model': dict(type='X'), f'{split}_dataloader': dict(dataset=dataset),
             f'{split}_evaluator': node if 'metrics' in node else dict(type=kind, **node)}
        )  # fmt: skip
        keys = ['dataset'] if len(data) == 1 else [f'dataset.datasets.{i}' for i in range(len(data))]
        reports = [SplitReport(f'{split}_dataloader.{key}', 'CocoDataset', CLASSES) for key in keys]
        return [str(finding) for finding in check(Run(cfg, (split,), reports), 'data')]

    return check_files


def edited(**changes) -> dict:
    """The content with the first object changed."""
    changed = content()
    changed['annotations'][0] |= changes
    return changed


@pytest.mark.parametrize(
    ('evaluator', 'fault'),
    [
        (content((1, 3)), '1 of the 2 images of data0.json are not in it, the first is 2'),
        (content(('1', '2')), '2 of the 2 images of data0.json are not in it, the first is 1'),
        (content((1, 2, 3)), 'it has 1 images that data0.json has not, whose objects would count as missed'),
        (content(folder='x'), 'image 1 is x1.jpg there and 1.jpg in data0.json'),
        (content(shift=1), '2 of 2 images have other objects there than in data0.json, the first is 1'),
        (edited(category_id=2), '1 of 2 images have other objects'),
        (edited(iscrowd=1), '1 of 2 images have other objects'),
    ],
)
@pytest.mark.parametrize('split', ['val', 'test'])
def test_another_file(evaluator, fault, split, found, tmp_path):
    [text] = found(evaluator, content(), split=split)
    path = tmp_path / 'other.json'
    assert text.startswith(f'evaluator of another file: {split}_evaluator.ann_file: {path}: {fault}')
    assert text.endswith(f'--cfg-options {split}_evaluator.ann_file={tmp_path / "data0.json"}')


def renumbered() -> dict:
    """The same categories by other numbers, and fields that nobody evaluates."""
    other = content()
    other['info'] = dict(year=2026)
    for category in other['categories']:
        category['id'] += 7
    for ann in other['annotations']:
        ann['category_id'] += 7
        ann['id'] += 100
    return other


def more_categories() -> dict:
    other = content()
    other['annotations'].append(dict(other['annotations'][0], id=99, category_id=3))
    return other


@pytest.mark.parametrize(
    'evaluator', [content(), dict(reversed(content().items())), renumbered(), more_categories(), content(folder='val/')]
)
def test_the_same_in_another_file(evaluator, found):
    assert found(evaluator, content()) == []


def test_no_objects_in_the_file_of_the_data_and_nothing_to_compare(found, tmp_path):
    images = content()
    del images['annotations']
    assert found(content(), images) == []
    assert found(content((7, 8)), content(), format_only=True) == []
    assert found(None, content()) == []
    assert found(None, content(), ann_file='s3://bucket/val.json') == []
    (tmp_path / 'list.json').write_text('[1, 2]')
    assert found(None, content(), ann_file=str(tmp_path / 'list.json')) == []


def test_links_and_other_paths_are_not_read(found, tmp_path, monkeypatch):
    def never(*_):
        raise AssertionError('the file is read')

    monkeypatch.setattr('vitdense.checks.evaluators.AnnotationFile.read', never)
    (tmp_path / 'data0.json').write_text(json.dumps(content()))
    (tmp_path / 'link.json').symlink_to(tmp_path / 'data0.json')
    for path in (tmp_path / 'link.json', f'{tmp_path}/../{tmp_path.name}/./data0.json'):
        assert found(None, content(), ann_file=str(path)) == []
    assert found(content(), content()) == []


def test_concatenated_sets(found):
    one, two = content(), content((3, 4), shift=2)
    both = copy.deepcopy(one)
    both['images'] += two['images']
    both['annotations'] += two['annotations']
    assert found(both, one, two) == []
    [text] = found(one, one, two)
    assert '2 of the 4 images of the data sets are not in it, the first is 3' in text
    [text] = found(None, one, content((2, 3)))
    assert text.startswith('image ids that two data sets share: val_dataloader: 1 of ')
    assert 'the first is 2' in text
    assert 'MultiDatasetsEvaluator' in text
    assert found(None, one, content((2, 3)), kind='VOCMetric') == []


def test_a_metric_for_each_of_several_sets(found, tmp_path):
    def metrics(*files):
        metrics = [dict(type='CocoMetric', ann_file=str(tmp_path / file)) for file in files]
        return dict(type='MultiDatasetsEvaluator', metrics=metrics, dataset_prefixes=['a', 'b'])

    data = content(), content((2, 3))
    assert found(None, *data, **metrics('data0.json', 'data1.json')) == []
    [*texts] = found(None, *data, **metrics('data1.json', 'data0.json'))
    assert [text.split(': ')[1] for text in texts] == [f'val_evaluator.metrics.{i}.ann_file' for i in (0, 1)]


@pytest.mark.parametrize('maps', ['same', 'copy', 'link', 'other', 'none', 'empty'])
def test_panoptic_maps(maps, tmp_path):
    own, given = tmp_path / 'own', tmp_path / maps
    own.mkdir()
    (own / '1.png').write_bytes(b'a')
    if maps in ('copy', 'other'):
        given.mkdir()
        (given / '1.png').write_bytes(b'a' if maps == 'copy' else b'b')
    elif maps == 'empty':
        given.mkdir()
    elif maps == 'link':
        given.symlink_to(own)
    given = own if maps == 'same' else given
    dataset = dict(type='CocoPanopticDataset', data_root=str(tmp_path), data_prefix=dict(seg='own'))
    evaluator = dict(type='CocoPanopticMetric', seg_prefix=str(given))
    cfg = Config(
        dict(default_scope='mmdet', model=dict(type='X'), val_dataloader=dict(dataset=dataset), val_evaluator=evaluator)
    )
    texts = [str(finding) for finding in check(Run(cfg, ('val',)), 'data')]
    assert len(texts) == (maps in ('other', 'none', 'empty'))
    assert all('val_evaluator.seg_prefix' in text for text in texts)


def test_the_metric_of_cityscapes_and_other_classes():
    cfg = Config(
        dict(default_scope='mmseg', model=dict(type='X'), val_dataloader=dict(dataset=dict(type='BaseSegDataset')),
             val_evaluator=dict(type='CityscapesMetric', output_dir='out'))
    )  # fmt: skip
    report = SplitReport('val_dataloader.dataset', 'BaseSegDataset', CLASSES)
    [text] = [str(finding) for finding in check(Run(cfg, ('val',), [report]), 'data')]
    assert 'metric of other classes: val_evaluator: 2 classes, the first is disc' in text


@pytest.mark.parametrize('indices', [1, -1, [1]])
def test_a_part_of_the_images_against_all_objects(indices, tmp_path):
    (tmp_path / 'data.json').write_text(json.dumps(content()))

    def told(**node) -> list[str]:
        dataset = dict(type='CocoDataset', data_root=str(tmp_path), ann_file='data.json', **node)
        cfg = dict(val_dataloader=dict(dataset=dataset), model=dict(type='X'), default_scope='mmdet')
        cfg['val_evaluator'] = dict(type='CocoMetric', ann_file=str(tmp_path / 'data.json'))
        reports = [SplitReport('val_dataloader.dataset', 'CocoDataset', CLASSES)]
        return [str(finding) for finding in check(Run(Config(cfg), ('val',), reports), 'data')]

    [text] = told(indices=indices)
    assert 'it has 1 images that indices of the data set leaves out, whose objects would count as missed' in text
    assert text.endswith('--cfg-options val_dataloader.dataset.indices=None evaluates all images')
    assert told() == told(indices=None) == told(indices=[0, 1]) == told(indices=2) == []


def test_shared_ids_are_not_told_as_other_objects(found):
    [text] = found(content(), content(), content())
    assert text.startswith('image ids that two data sets share')
    assert "dict(type='MultiDatasetsEvaluator'" in text


def config_of(dataset: dict, evaluator: dict | list) -> Run:
    cfg = dict(val_dataloader=dict(dataset=dataset), val_evaluator=evaluator, default_scope='mmdet')
    return Run(Config(dict(cfg, model=dict(type='X'))), ('val',))


@pytest.mark.parametrize(
    ('wrapper', 'where'),
    [
        (lambda node: dict(type='RepeatDataset', times=2, dataset=node), 'val_dataloader.dataset'),
        (lambda node: dict(type=RepeatDataset, times=3, dataset=node), 'val_dataloader.dataset'),
        (lambda node: dict(type='ClassBalancedDataset', oversample_thr=1, dataset=node), 'val_dataloader.dataset'),
        (
            lambda node: dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', times=2, dataset=node)]),
            'val_dataloader.dataset.datasets.0',
        ),
        (lambda node: dict(type='RepeatDataset', times=1, dataset=node), None),
        (lambda node: dict(type='ConcatDataset', datasets=[node]), None),
    ],
)
def test_images_that_are_evaluated_twice(wrapper, where):
    dataset = wrapper(dict(type='CocoDataset', ann_file='', img_suffix='.jpg'))
    for metric in (dict(type='CocoMetric'), [dict(type='Own'), dict(type='vitdense.CocoMetric')]):
        cases = check(config_of(dataset, metric), 'config')
        assert [case.where for case in cases if case.kind == 'image that is evaluated twice'] == [where] * bool(where)
    maps = check(config_of(dataset, dict(type='mmseg.IoUMetric')), 'config')
    assert [case.kind for case in maps if case.kind == 'image that is evaluated twice'] == [], 'shares stay the same'


@pytest.mark.parametrize(('metrics', 'prefixes', 'sets'), [(2, 1, 2), (1, 2, 2), (2, 2, 1), (2, 0, 2), (2, 2, 2)])
def test_each_data_set_has_a_metric_and_a_prefix(metrics, prefixes, sets):
    dataset = dict(type='ConcatDataset', datasets=[dict(type='CocoDataset', ann_file='')] * sets)
    names = [f'set{i}' for i in range(prefixes)]
    metric = dict(type='CocoMetric')
    evaluator = dict(type='MultiDatasetsEvaluator', metrics=[metric] * metrics, dataset_prefixes=names)
    texts = [str(case) for case in check(config_of(dataset, evaluator), 'config') if 'alone' in case.kind]
    expected = f'val_evaluator: {metrics} metrics and {prefixes} prefixes for {sets} data sets'
    assert [expected in text for text in texts] == [True] * (not metrics == prefixes == sets)
