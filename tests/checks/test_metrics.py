"""Metrics that a config names against those that its evaluators give."""

import pytest
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import DefaultScope
from mmseg.models import EncoderDecoder

from vitdense.checks import Run, check
from vitdense.config.load import load_config
from vitdense.config.swap.measure import build_weightless, without_weights

COCO, MAPS = dict(type='CocoMetric', metric=['bbox', 'segm']), dict(type='mmseg.IoUMetric', iou_metrics=['mDice'])


class Mine(BaseMetric):
    """Its keys are not known before an evaluation."""

    def process(self, data_batch, data_samples):
        pass

    def compute_metrics(self, results):
        return {}


def found(evaluator, monitor=None, custom=None, names=('train', 'val'), **checkpoint) -> list[str]:
    hooks = [dict(type='EarlyStoppingHook', monitor=monitor)] if monitor else []
    cfg = Config(
        dict(
            default_scope='mmdet', val_evaluator=evaluator, custom_hooks=hooks + (custom or []),
            val_dataloader=dict(batch_size=1), default_hooks=dict(checkpoint=dict(type='CheckpointHook', **checkpoint)),
        )
    )  # fmt: skip
    return [str(finding) for finding in check(Run(cfg, names), 'config') if finding.kind != 'missing package']


@pytest.mark.parametrize(
    ('evaluator', 'chosen', 'remedy'),
    [
        (COCO, 'bbox_mAP', 'coco/bbox_mAP'),
        (COCO, 'coco/bbox_map', 'coco/bbox_mAP'),
        (dict(COCO, prefix='val'), 'coco/segm_mAP', 'val/segm_mAP'),
        (dict(COCO, metric='bbox'), 'coco/segm_mAP', 'coco/bbox_mAP'),
        (dict(COCO, metric_items=['mAP_50']), 'coco/bbox_mAP', 'coco/bbox_mAP_50'),
        (MAPS, 'mIoU', 'mDice'),
        ([COCO, MAPS], 'coco/mDice', 'mDice'),
        (dict(COCO, type=CocoMetric), 'bbox_mAP', 'coco/bbox_mAP'),
        (dict(type='LVISMetric'), 'lvis/bbox_mAP', 'lvis/bbox_AP'),
        (dict(type='LVISMetric', metric='proposal'), 'AR@300', 'lvis/AR@300'),
        (dict(type='OpenImagesMetric'), 'mAP', 'openimages/mAP'),
        (dict(type='OpenImagesMetric', iou_thrs=[0.5, 0.75]), 'openimages/AP70', 'openimages/AP50'),
        (dict(type='VOCMetric', iou_thrs=0.5), 'voc/mAP', 'pascal_voc/mAP'),
    ],
)
def test_a_metric_that_is_not_there(evaluator, chosen, remedy):
    [text] = found(evaluator, save_best=chosen)
    assert text.startswith(
        f'metric that the evaluators do not give: default_hooks.checkpoint.save_best: {chosen!r}; expected one of '
    )
    assert text.endswith(f'--cfg-options default_hooks.checkpoint.save_best={remedy}')
    [text] = found(evaluator, monitor=chosen)
    assert 'custom_hooks.0.monitor' in text


@pytest.mark.parametrize(
    ('evaluator', 'chosen'),
    [
        (COCO, 'coco/segm_mAP_50'),
        (COCO, ['coco/segm_mAP', 'coco/bbox_mAP']),
        (dict(COCO, classwise=True), 'coco/person_precision'),
        (dict(COCO, metric='proposal_fast', proposal_nums=(10,)), 'coco/AR@10'),
        (MAPS, 'mDice'),
        (MAPS, 'auto'),
        ([COCO, MAPS], 'mDice'),
        ([COCO, dict(type=Mine)], 'loss'),
        (dict(type='LVISMetric'), 'lvis/bbox_AP'),
        (COCO, None),
    ],
)
def test_metrics_that_are_there_and_such_that_nobody_can_know(evaluator, chosen):
    assert found(evaluator, save_best=chosen) == []


def test_an_unknown_direction():
    [text] = found(dict(type=Mine), save_best='mine/boxes')
    assert text.startswith('metric of unknown direction: default_hooks.checkpoint.save_best: ')
    assert text.endswith('--cfg-options default_hooks.checkpoint.rule=greater (or less)')
    assert found(dict(type=Mine), save_best='mine/boxes', rule='less') == []
    assert found(dict(type=Mine), save_best='mine/boxes', greater_keys=['boxes']) == []
    assert len(found(dict(type=Mine), monitor='mine/boxes')) == 1
    assert found(dict(type=Mine), monitor='mine/accuracy') == []
    assert found(COCO, save_best='nothing', names=('test',)) == []


@pytest.mark.parametrize(
    ('evaluator', 'name'),
    [
        ([dict(MAPS), dict(MAPS, iou_metrics=['mIoU'])], 'aAcc'),
        ([dict(type='CocoMetric'), dict(type='CocoMetric', classwise=True)], 'coco/bbox_mAP'),
        ([dict(COCO, prefix='a'), dict(COCO, prefix='a')], 'a/bbox_mAP'),
    ],
)
def test_two_evaluators_that_give_the_same_names(evaluator, name):
    [text] = found(evaluator)
    assert text.startswith('metrics of one name: val_evaluator.1: ')
    assert name in text
    assert 'as val_evaluator.0 has' in text
    assert found([evaluator[0], dict(evaluator[1], prefix='other')]) == []
    assert found([evaluator[0], dict(type=Mine)]) == []


def test_metrics_inside_an_evaluator():
    assert 'as val_evaluator.metrics.0 has' in found(dict(metrics=[dict(MAPS), dict(MAPS)]))[0]
    many = dict(type='MultiDatasetsEvaluator', metrics=[dict(MAPS), dict(MAPS)], dataset_prefixes=['a', 'b'])
    assert found(many, save_best='a/mDice') == [], 'each has a prefix of its own'


def built(name: str, evaluator, names=('train', 'val')) -> list[str]:
    cfg = load_config(f'mmdet::{name}')
    cfg.val_evaluator = cfg.test_evaluator = evaluator
    with DefaultScope.overwrite_default_scope('mmdet'):
        run = Run(cfg, names, model=build_weightless(without_weights(cfg.model)))
        return [str(finding) for finding in check(run, 'model') if finding.kind == 'masks of a model without masks']


@pytest.mark.slow
@pytest.mark.parametrize('name', ['retinanet/retinanet_r50_fpn_1x_coco.py', 'detr/detr_r50_8xb2-150e_coco.py'])
def test_masks_of_a_model_of_boxes(name):
    [text] = built(name, COCO)
    assert text.startswith("masks of a model without masks: val_evaluator.metric: 'segm', of a ")
    assert text.endswith('--cfg-options val_evaluator.metric=bbox')
    [text] = built(name, [dict(type=CocoMetric, metric='segm')], ('test',))
    assert 'test_evaluator.0.metric' in text
    assert built(name, dict(COCO, metric='bbox')) == []


@pytest.mark.parametrize(
    'name',
    [
        'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        'solo/solo_r50_fpn_1x_coco.py',
        'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py',
        'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py',
        'yolact/yolact_r50_1xb8-55e_coco.py',
    ],
)
def test_models_of_masks(name):
    assert built(name, COCO) == []


@pytest.mark.parametrize(
    ('metric', 'model', 'package'),
    [
        ('mmseg.IoUMetric', 'mmdet.RetinaNet', 'mmseg'),
        ('vitdense.IoUMetric', 'mmdet.RetinaNet', 'mmseg'),
        ('mmseg.CityscapesMetric', 'mmdet.MaskFormer', 'mmseg'),
        ('CocoMetric', 'mmseg.EncoderDecoder', 'mmdet'),
        ('vitdense.CocoMetric', 'mmseg.EncoderDecoder', 'mmdet'),
        (CocoMetric, EncoderDecoder, 'mmdet'),
        ('VOCMetric', 'mmdet.RetinaNet', None),
        ('mmseg.IoUMetric', 'mmseg.EncoderDecoder', None),
        (Mine, 'mmdet.RetinaNet', None),
        ('CocoMetric', 'NobodyKnows', None),
    ],
)
@pytest.mark.parametrize('split', ['val', 'test'])
def test_a_metric_of_another_kind_of_model(metric, model, package, split):
    cfg = {f'{split}_dataloader': dict(batch_size=1), f'{split}_evaluator': [dict(type=Mine), dict(type=metric)]}
    cfg = Config(dict(cfg, model=dict(type=model), default_scope='mmdet'))
    cases = [one for one in check(Run(cfg, (split,)), 'config') if one.kind == 'metric of another kind of model']
    assert [case.where for case in cases] == [f'{split}_evaluator.1'] * bool(package)
    assert all(f' of {package}, and ' in case.found for case in cases)
