"""Data sets, pipelines and hooks of another form than mmengine builds."""

import pytest
from mmdet.datasets.transforms import PackDetInputs
from mmengine.config import Config
from mmengine.dataset import BaseDataset

from vitdense.checks import Run, check
from vitdense.config.missing_files import check_files

LOAD, PACK = dict(type='LoadImageFromFile'), dict(type='PackDetInputs')
COCO = dict(type='CocoDataset', ann_file='', pipeline=[LOAD, PACK])


class Packed(BaseDataset):
    """Of a user, with images that need no pipeline."""


def found(dataset, stage='parts', split='train', model='mmdet.RetinaNet', **cfg) -> dict[str, str]:
    """What is said of a data set, by its place below the loader."""
    node = {f'{split}_dataloader': dict(dataset=dataset), 'default_scope': 'mmdet', 'model': dict(type=model)}
    names = ('part of another form', 'pipeline that does not pack')
    findings = check(Run(Config(node | cfg), (split,)), stage)
    findings = [finding for finding in findings if finding.kind in names]
    assert all(finding.fatal for finding in findings)
    return {finding.where.removeprefix(f'{split}_dataloader.'): str(finding) for finding in findings}


@pytest.mark.parametrize(
    ('dataset', 'where'),
    [
        ([COCO, COCO], 'dataset'),
        ('coco', 'dataset'),
        (dict(type='ConcatDataset', datasets=[]), 'dataset.datasets'),
        (dict(type='ConcatDataset', datasets=COCO), 'dataset.datasets'),
        (dict(type='ConcatDataset', datasets=[COCO, dict(ann_file='')]), 'dataset.datasets.1'),
        (dict(type='RepeatDataset', times=2, dataset=[COCO]), 'dataset.dataset'),
        (dict(type='RepeatDataset', times=2, dataset=dict(COCO, metainfo=['a'])), 'dataset.dataset.metainfo'),
        (dict(COCO, ann_file=['a.json', 'b.json']), 'dataset.ann_file'),
        (dict(COCO, data_root=['a', 'b']), 'dataset.data_root'),
        (dict(COCO, data_prefix='images'), 'dataset.data_prefix'),
        (dict(COCO, metainfo=('a', 'b')), 'dataset.metainfo'),
        (dict(type='mmseg.BaseSegDataset', metainfo='classes.txt'), 'dataset.metainfo'),
        (dict(COCO, pipeline=LOAD), 'dataset.pipeline'),
        (dict(COCO, pipeline=[LOAD, 'PackDetInputs']), 'dataset.pipeline.1'),
        (dict(COCO, pipeline=[LOAD, [PACK]]), 'dataset.pipeline.1'),
    ],
)
@pytest.mark.parametrize('split', ['train', 'test'])
def test_another_form(dataset, where, split):
    assert list(found(dataset, split=split)) == [where]


@pytest.mark.parametrize(
    'dataset',
    [
        COCO,
        dict(COCO, metainfo=dict(classes=('a',)), data_prefix=dict(img='x')),
        dict(type='ConcatDataset', datasets=[COCO, dict(type='RepeatDataset', times=2, dataset=COCO)]),
        dict(type=Packed, ann_file=['a', 'b']),
        dict(type='Unknown', metainfo=['a']),
    ],
)
def test_forms_that_are_right(dataset):
    assert found(dataset) == {}


def test_what_mmdet_2_wrote_has_a_remedy():
    assert "dict(type='ConcatDataset', datasets=[...])" in found([COCO])['dataset']
    assert "dict(type='ConcatDataset', datasets=[...])" in found(dict(COCO, ann_file=['a']))['dataset.ann_file']


@pytest.mark.parametrize('hooks', [dict(type='EMAHook'), 'EMAHook', ['EMAHook']])
def test_hooks_are_a_list_of_dicts(hooks):
    assert list(found(COCO, custom_hooks=hooks)) == ['custom_hooks']
    assert found(COCO, custom_hooks=[dict(type='EMAHook')]) == {}


def test_files_are_looked_for_whatever_the_form():
    check_files(Config(dict(train_dataloader=dict(dataset=dict(COCO, data_prefix='images', data_root=None)))))
    check_files(Config(dict(train_dataloader=dict(dataset=dict(COCO, data_root=['a', 'b'])))))


@pytest.mark.parametrize(
    ('pipeline', 'said'),
    [
        ([LOAD], 'it ends with LoadImageFromFile'),
        ([], 'no steps'),
        ([LOAD, dict(type='mmseg.PackSegInputs')], 'PackSegInputs, and the model RetinaNet is of mmdet'),
    ],
)
def test_inputs_that_nobody_packs(pipeline, said):
    dataset = dict(COCO, pipeline=pipeline)
    for node, where in (
        (dataset, 'dataset.pipeline'),
        (dict(type='RepeatDataset', times=2, dataset=dataset), 'dataset.dataset.pipeline'),
        (dict(type='ConcatDataset', datasets=[COCO, dataset]), 'dataset.datasets.1.pipeline'),
    ):
        [(place, text)] = found(node, 'config').items()
        assert place == where
        assert said in text
        assert text.endswith("dict(type='PackDetInputs') as the last step")


@pytest.mark.parametrize(
    'dataset',
    [
        COCO,
        dict(COCO, pipeline=[LOAD, dict(type=PackDetInputs)]),
        dict(COCO, pipeline=[LOAD, dict(type='TestTimeAug', transforms=[[LOAD], [PACK]])]),
        dict(COCO, pipeline=[LOAD, dict(type='MultiBranch', branch_field=['sup'], sup=[PACK])]),
        dict(COCO, pipeline=[LOAD, dict(type='Own')]),
        dict(type='MultiImageMixDataset', dataset=dict(COCO, pipeline=[LOAD]), pipeline=[PACK]),
        dict(type=Packed),
    ],
)
def test_inputs_that_somebody_packs_or_may_pack(dataset):
    assert found(dataset, 'config') == {}


def test_each_package_packs_its_own():
    maps = dict(type='mmseg.BaseSegDataset', pipeline=[LOAD, dict(type='PackDetInputs')])
    assert 'PackSegInputs' in found(maps, 'config', model='mmseg.EncoderDecoder')['dataset.pipeline']
    maps['pipeline'][1] = dict(type='mmseg.PackSegInputs')
    assert found(maps, 'config', model='mmseg.EncoderDecoder') == {}
    assert found(dict(COCO, pipeline=[LOAD]), 'config', model='Own') == {}


@pytest.mark.parametrize('preprocessor', [dict(bgr_to_rgb=True), dict(rgb_to_bgr=True), dict(mean=[1, 2, 3])])
@pytest.mark.parametrize('split', ['train', 'val'])
def test_grey_images_of_a_detector_for_colours(preprocessor, split):
    def told(color: str, preprocessor: dict = preprocessor, kind: str = 'mmdet.RetinaNet') -> list[str]:
        dataset = dict(COCO, pipeline=[dict(LOAD, color_type=color), PACK])
        cfg = {f'{split}_dataloader': dict(dataset=dataset), 'model': dict(type=kind, data_preprocessor=preprocessor)}
        findings = check(Run(Config(cfg | dict(default_scope='mmdet')), (split,)), 'config')
        return [one.where for one in findings if one.kind == 'grey images of a detector for colours']

    assert told('grayscale') == [f'{split}_dataloader.dataset.pipeline.0.color_type']
    assert told('color') == told('unchanged') == told('grayscale', dict(mean=[1])) == []
    assert told('grayscale', kind='mmseg.EncoderDecoder') == [], 'mmseg makes three channels of one'
