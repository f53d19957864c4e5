"""Arguments of a config that the classes it builds do not take."""

from copy import deepcopy

import pytest
from mmengine.config import Config

from vitdense.checks import Run, check
from vitdense.config.load import load_config
from vitdense.config.runtime import use_runtime

RETINANET, UPERNET = (
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    ('mmseg::upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py'),
)


@pytest.fixture(scope='module')
def configs() -> dict[str, Config]:
    found = {name: load_config(name) for name in (RETINANET, UPERNET)}
    for cfg in found.values():
        use_runtime(cfg)
    return found


def found(cfg: Config, names: tuple[str, ...] = ('train', 'val')) -> dict[str, str]:
    findings = [one for one in check(Run(cfg, names), 'config') if one.kind == 'unknown argument']
    assert all(finding.fatal for finding in findings)
    return {finding.where: str(finding) for finding in findings}


@pytest.mark.parametrize(
    ('name', 'place', 'nearest'),
    [
        (RETINANET, 'model.bbox_head.num_clases', 'num_classes'),
        (RETINANET, 'model.bbox_head.loss_cls.alfa', 'alpha'),
        (RETINANET, 'train_dataloader.num_worker', 'num_workers'),
        (RETINANET, 'train_dataloader.dataset.anno_file', 'ann_file'),
        (RETINANET, 'train_dataloader.dataset.pipeline.2.keepratio', 'keep_ratio'),
        (RETINANET, 'val_evaluator.classwize', 'classwise'),
        (RETINANET, 'optim_wrapper.optimizer.learning_rate', 'lr'),
        (RETINANET, 'optim_wrapper.clip_grad.maxnorm', 'max_norm'),
        (RETINANET, 'train_cfg.max_epoch', 'max_epochs'),
        (RETINANET, 'param_scheduler.1.milestone', 'milestones'),
        (RETINANET, 'default_hooks.checkpoint.intervall', 'interval'),
        (RETINANET, 'env_cfg.mp_cfg.start_method', 'mp_start_method'),
        (RETINANET, 'randomness.seeds', 'seed'),
        (UPERNET, 'model.decode_head.chanels', 'channels'),
        (UPERNET, 'model.auxiliary_head.loss_decode.avgnonignore', 'avg_non_ignore'),
        (UPERNET, 'train_dataloader.dataset.img_sufix', 'img_suffix'),
        (UPERNET, 'train_dataloader.sampler.shufle', 'shuffle'),
    ],
)
def test_an_argument_that_nobody_takes(configs, name, place, nearest):
    cfg = deepcopy(configs[name])
    cfg.setdefault('env_cfg', dict()).setdefault('mp_cfg', dict())
    cfg.setdefault('randomness', dict())
    cfg.optim_wrapper.clip_grad = dict(max_norm=1)
    assert found(cfg) == {}
    cfg.merge_from_dict({place: 5})
    [(where, text)] = found(cfg).items()
    assert where == place
    assert nearest in text.partition('expected one of ')[2]


@pytest.mark.parametrize(
    ('name', 'place', 'nearest'),
    [
        (UPERNET, 'val_evaluator.ignoreindex', 'ignore_index'),
        (UPERNET, 'val_evaluator.iou_metric', 'iou_metrics'),
    ],
)
def test_an_argument_that_is_dropped_is_a_remark(configs, name, place, nearest):
    cfg = deepcopy(configs[name])
    cfg.merge_from_dict({place: 5})
    assert found(cfg) == {}
    [remark] = [one for one in check(Run(cfg), 'config') if one.kind == 'argument that nobody reads']
    assert (remark.where, remark.fatal) == (place, False)
    assert nearest in remark.expected


def test_a_class_of_several_bases():
    head = dict(type='VFNetHead', num_classes=2, strides=[8], clases=1)
    cfg = Config(dict(default_scope='mmdet', model=dict(type='VFNet', bbox_head=head)))
    assert list(found(cfg)) == ['model.bbox_head.clases'], 'strides is of the second base'


@pytest.mark.parametrize(
    'model',
    [
        dict(type='ResNet', depth=50, dcn=dict(type='DCNv2', deformable_groups=1, fallback_on_stride=False)),
        dict(type='DETRHead', loss_cls=dict(type='CrossEntropyLoss', bg_cls_weight=0.1)),
        dict(type='NobodyKnows', colour='red'),
        dict(type='FPN', init_cfg=dict(type='Xavier', layer='Conv2d', distribution='uniform')),
        dict(type='ResNet', norm_cfg=dict(type='BN', requires_grad=True)),
    ],
)
def test_arguments_that_somebody_takes_off(model):
    around = dict(type='RetinaNet', backbone=model, bbox_head=model)
    assert found(Config(dict(default_scope='mmdet', model=around))) == {}


def test_backbones_of_vitdense_say_it_themselves():
    assert found(Config(dict(model=dict(type='vitdense.PVTv2', archh='b0')))) == {}


def test_splits_that_do_not_run_are_not_looked_at(configs):
    cfg = deepcopy(configs[RETINANET])
    cfg.test_dataloader.num_worker = 1
    assert found(cfg) == {}
    assert list(found(cfg, ('test',))) == ['test_dataloader.num_worker']
