"""Data sets of semantic maps against their pipelines and metrics."""

import pytest

pytest.importorskip('mmseg')

import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.datasets import BaseSegDataset, CityscapesDataset
from mmseg.datasets.transforms import LoadAnnotations, LoadBiomedicalAnnotation
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample

from vitdense.checks import Run, check
from vitdense.datasets.scan import MapFacts, SplitReport
from vitdense.findings import Finding

IMAGE = dict(type='LoadImageFromFile')
MAP = dict(type='LoadAnnotations')
PACK = dict(type='PackSegInputs')
SEGMENTOR = dict(type='EncoderDecoder')


def config(split: str = 'val', pipeline: tuple = (IMAGE, MAP), metric: dict | None = None, **node) -> Config:
    dataset = dict(type='BaseSegDataset', pipeline=[*pipeline, PACK], data_prefix=dict(img_path='val'), **node)
    parts = {
        f'{split}_dataloader': dict(sampler=dict(type='DefaultSampler'), dataset=dataset),
        f'{split}_evaluator': dict(type='IoUMetric') | (metric or {}),
    }
    return Config(dict(default_scope='mmseg', model=SEGMENTOR, **parts))


def found(cfg: Config, stage: str, *reports: SplitReport, split: str = 'val') -> list[Finding]:
    kinds = ('query detector from random weights', 'learning rate of another batch size', 'missing package')
    return [finding for finding in check(Run(cfg, (split,), reports), stage) if finding.kind not in kinds]


def report(split: str = 'val', classes: tuple[str, ...] = ('a', 'b'), number: int = 4, **facts) -> SplitReport:
    key = f'{split}_dataloader.dataset'
    return SplitReport(key, 'BaseSegDataset', classes, 4, maps=MapFacts(number, **facts))


def keys(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.kind, finding.where) for finding in findings]


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
@pytest.mark.parametrize('types', ['names', 'classes'])
def test_a_pipeline_without_maps(split, types):
    cfg = config(split, [IMAGE])
    if types == 'classes':
        cfg[f'{split}_dataloader'].dataset.type = BaseSegDataset
        cfg[f'{split}_evaluator'].type = IoUMetric
    [finding] = found(cfg, 'config', split=split)
    assert keys([finding]) == [('pipeline that loads no semantic maps', f'{split}_dataloader.dataset.pipeline')]
    reader = 'the loss' if split == 'train' else f'IoUMetric ({split}_evaluator)'
    assert finding.found == f'no step loads maps, which {reader} needs'


@pytest.mark.parametrize(
    'step',
    [
        MAP,
        dict(type='mmseg.LoadAnnotations'),
        dict(type=LoadAnnotations),
        dict(type=LoadBiomedicalAnnotation),
        dict(type='LoadBiomedicalData', with_seg=True),
        dict(type='Own'),
        dict(type='RandomChoice', transforms=[[MAP]]),
        dict(type='TestTimeAug', transforms=[[MAP], [dict(type='PackSegInputs')]]),
    ],
)
def test_steps_that_load_maps_or_may_do_so(step):
    assert found(config(pipeline=[IMAGE, step]), 'config') == []


def test_without_a_metric_no_maps_are_needed():
    assert found(config('test', [IMAGE], dict(format_only=True, output_dir='out')), 'config', split='test') == []
    cfg = config('val', [IMAGE])
    cfg.val_evaluator.type = 'Own'
    assert found(cfg, 'config') == []
    cfg.val_evaluator = [dict(type='Own'), dict(type='vitdense.IoUMetric')]
    assert 'IoUMetric (val_evaluator.1)' in found(cfg, 'config')[0].found
    other = config('train', [IMAGE])
    other.train_dataloader.dataset.type = 'mmdet.CocoDataset'
    assert found(other, 'config', split='train') == []


def test_images_without_maps():
    [finding] = found(config(), 'data', report(number=0))
    where = 'val_dataloader.dataset.data_prefix.seg_map_path'
    assert keys([finding]) == [('images without semantic maps', where)]
    assert finding.found == 'not set: 4 images have no map, and LoadAnnotations reads maps'
    assert 'format_only=True' in str(finding)
    assert found(config(pipeline=[IMAGE], metric=dict(format_only=True)), 'data', report(number=0)) == []


def test_the_metric_of_cityscapes_reads_the_files_itself():
    cfg = config(pipeline=[IMAGE], metric=dict(type='CityscapesMetric'))
    classes = CityscapesDataset.METAINFO['classes']
    [finding] = found(cfg, 'data', report(number=0, classes=classes))
    assert finding.found.endswith('CityscapesMetric reads maps')
    assert found(cfg, 'data', report(classes=classes)) == []
    assert found(cfg, 'config') == []


@pytest.mark.parametrize('reduced', [False, True])
def test_one_class(reduced):
    facts = report(classes=('crack',), reduce_zero_label=reduced)
    [finding] = found(config(), 'data', facts)
    assert keys([finding]) == [('segmentation of one class', 'val_dataloader.dataset.metainfo.classes')]
    for part in ("'crack'", "classes=('background', 'object')", 'num_classes=2', 'use_sigmoid=True'):
        assert part in str(finding)
    cfg = config()
    cfg.model.type = 'Own'
    assert found(cfg, 'data', facts) == [], 'of models of other kinds nothing is known'


@pytest.mark.parametrize(
    ('number', 'reduced', 'many'), [(255, False, 0), (256, False, 1), (254, True, 0), (255, True, 1)]
)
def test_more_classes_than_labels_of_8_bits(number, reduced, many):
    """255 is ignored, and so is what becomes of 0 with reduce_zero_label."""
    facts = report(classes=tuple(map(str, range(number))), reduce_zero_label=reduced)
    findings = found(config(), 'data', facts)
    assert [finding.found for finding in findings] == [f'{number} classes'] * many
    assert found(config(pipeline=[IMAGE, dict(type='Own')]), 'data', facts) == []


@pytest.mark.parametrize('said', [False, True])
def test_reduce_zero_label_of_pipeline_and_data_set(said):
    cfg = config(pipeline=[IMAGE, dict(MAP, reduce_zero_label=said)])
    assert found(cfg, 'data', report(reduce_zero_label=said)) == []
    [finding] = found(cfg, 'data', report(reduce_zero_label=not said))
    assert keys([finding]) == [('reduce_zero_label of the pipeline', 'val_dataloader.dataset.pipeline')]
    assert finding.found == f'LoadAnnotations(reduce_zero_label={said}), and the data set has {not said}'


def test_reduce_zero_label_of_two_splits():
    cfg = config()
    cfg.train_dataloader = cfg.val_dataloader
    run = Run(cfg, ('train', 'val'), [report('train', reduce_zero_label=True), report('val')])
    [finding] = check(run, 'data')
    assert keys([finding]) == [('reduce_zero_label of another split', 'val_dataloader.dataset.reduce_zero_label')]
    assert (finding.found, finding.fatal) == ('False, and True in train_dataloader.dataset', False)


@pytest.mark.parametrize('split', ['val', 'test'])
def test_maps_that_are_resized(split):
    cfg = config(split)

    def told(hw: tuple[int, int], ori_shape: tuple = (60, 80), views: bool = False) -> list[Finding]:
        sample = SegDataSample(metainfo=dict(ori_shape=ori_shape), gt_sem_seg=PixelData(data=torch.zeros(1, *hw)))
        run = Run(cfg, (split,), samples={split: [sample] if views else sample})
        return [one for one in check(run, 'model') if one.kind == 'semantic maps that are resized for an evaluation']

    [finding] = told((64, 85))
    assert (finding.where, finding.fatal) == (f'{split}_dataloader.dataset.pipeline', True)
    assert finding.found == 'the first map is of 85 x 64, its image of 80 x 60'
    assert told((60, 80)) == told((60, 80), (60, 80, 3)) == told((64, 85), views=True) == []
    cfg[f'{split}_evaluator'].format_only = True
    assert told((64, 85)) == []
