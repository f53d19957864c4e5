"""Metrics that take the ground truth from the samples."""

import pytest
from mmdet.evaluation import OpenImagesMetric
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from support.open_images import META_KEYS

from vitdense.checks import Run
from vitdense.checks.ground_truth import no_truth, open_images, resized_truth

IMAGE, LOAD = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)
RESIZE, PACK = dict(type='Resize', scale=(80, 60)), dict(type='PackDetInputs')
FULL = dict(PACK, meta_keys=META_KEYS)


class Mine(BaseDataset):
    """A data set of a user."""


def run(metric: dict, *pipeline: dict, kind: str | type = 'CocoDataset', wrapped: bool = False) -> Run:
    dataset = dict(type=kind, pipeline=list(pipeline))
    dataset = dict(type='ConcatDataset', datasets=[dataset]) if wrapped else dataset
    cfg = dict(default_scope='mmdet', val_dataloader=dict(dataset=dataset), val_evaluator=metric)
    return Run(Config(cfg))


OID, VOC, COCO = (dict(type=f'{name}Metric') for name in ('OpenImages', 'VOC', 'Coco'))


@pytest.mark.parametrize('metric', [OID, dict(type=OpenImagesMetric), COCO, dict(type='LVISMetric'), [COCO]])
@pytest.mark.parametrize('wrapped', [False, True])
def test_samples_without_instances(metric, wrapped):
    (case,) = no_truth(run(metric, IMAGE, RESIZE, LOAD, PACK, wrapped=wrapped))
    assert case.where == f'val_dataloader.dataset{".datasets.0" if wrapped else ""}.pipeline'
    assert "no 'instances'" in case.found
    assert "'instances')" in case.remedy
    assert list(no_truth(run(metric, IMAGE, RESIZE, LOAD, FULL, wrapped=wrapped))) == []


@pytest.mark.parametrize(
    'metric',
    [dict(COCO, ann_file='a.json'), dict(COCO, format_only=True), dict(type='CrowdHumanMetric'), dict(type='Own')],
)
def test_metrics_that_need_no_instances(metric):
    assert list(no_truth(run(metric, IMAGE, RESIZE, PACK))) == []


def test_steps_of_others_may_pack_anything():
    assert list(no_truth(run(OID, IMAGE, dict(type='MyPacking')))) == []


def test_boxes_for_the_metric_of_voc():
    (case,) = no_truth(run(VOC, IMAGE, RESIZE, PACK))
    assert 'no LoadAnnotations' in case.found
    assert list(no_truth(run(VOC, IMAGE, RESIZE, LOAD, PACK))) == []


@pytest.mark.parametrize(
    ('steps', 'told'),
    [
        ((IMAGE, LOAD, RESIZE, PACK), True),
        ((IMAGE, LOAD, dict(type='mmdet.FixScaleResize', scale=(80, 60)), PACK), True),
        ((IMAGE, LOAD, dict(type='vitdense.DETRResize', scale=(80, 60)), PACK), True),
        ((IMAGE, RESIZE, LOAD, PACK), False),
        ((IMAGE, LOAD, PACK), False),
    ],
)
def test_boxes_that_are_resized(steps, told):
    """The predictions are scaled back, so a perfect model would have an AP of 0 or little more."""
    cases = list(resized_truth(run(VOC, *steps)))
    assert len(cases) == told
    assert list(resized_truth(run(COCO, *steps))) == []


def test_the_tree_of_open_images():
    (case,) = open_images(run(OID, FULL))
    assert case == ('val_evaluator', 'OpenImagesMetric, and val_dataloader.dataset is a CocoDataset', '', '')
    for kind in ('OpenImagesDataset', 'mmdet.OpenImagesChallengeDataset', 'DSDLDetDataset', Mine):
        assert list(open_images(run(OID, FULL, kind=kind))) == []
