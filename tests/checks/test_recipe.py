"""What of a training is likely to disappoint."""

import re
from collections.abc import Sequence

import pytest
from mmengine.config import Config
from support import CONFIGS

from vitdense.checks import Run, check
from vitdense.datasets.scan import SplitReport


def remarks(cfg: Config, reports: Sequence[SplitReport] = (), processes: int = 1) -> list[str]:
    run = Run(cfg, reports=reports, processes=processes)
    return [str(finding) for stage in ('config', 'data') for finding in check(run, stage) if not finding.fatal]


def the_remark(*given) -> str:
    [remark] = remarks(*given)
    return remark


def plain(model: dict, **cfg) -> Config:
    settings = dict(optim_wrapper=dict(optimizer=dict(lr=1e-4)), train_dataloader=dict(batch_size=2))
    return Config(dict(model=model, **settings) | cfg)


def data(images: int, split: str = 'train') -> list[SplitReport]:
    return [SplitReport(f'{split}_dataloader.dataset', 'CocoDataset', images=images)]


OURS = dict(type='SingleStageDetector', bbox_head=dict(type='vitdense.DETRHead'))
YOLOS = dict(type='SingleStageDetector', bbox_head=dict(type='vitdense.YOLOSHead'))
THEIRS = [dict(type=name, bbox_head=dict(type=f'{name}Head')) for name in ('DETR', 'ConditionalDETR', 'DABDETR')]


@pytest.mark.parametrize('model', [OURS, YOLOS, *THEIRS], ids=lambda model: model['bbox_head']['type'])
def test_a_detr_from_random_weights_on_little_data_is_warned_about(model):
    warning = the_remark(plain(model), data(205))
    for part in ('205 images', 'load_from', '150 to 500 epochs', 'Deformable DETR', 'tools/overfit.py'):
        assert part in warning
    named = next(word for word in warning.split() if word.startswith('configs/'))
    assert (CONFIGS.parent / named).is_file()
    assert remarks(plain(model), data(10_000), 1) == []
    assert remarks(plain(model), data(205, 'val'), 1) == []
    assert remarks(plain(model, load_from='detr.pth'), data(205), 1) == []
    assert remarks(plain(model, resume=True), data(205), 1) == []


@pytest.mark.parametrize('model', [
    dict(type='RetinaNet', bbox_head=dict(type='RetinaHead')),
    dict(type='FasterRCNN', roi_head=dict(bbox_head=dict(type='Shared2FCBBoxHead'))),
    dict(type='DeformableDETR', bbox_head=dict(type='DeformableDETRHead')),
    dict(type='DINO', bbox_head=dict(type='DINOHead')),
    YOLOS | dict(backbone=dict(init_cfg=dict(checkpoint='checkpoints/yolos_ti.pth'))),
])  # fmt: skip
def test_others_are_not(model):
    assert remarks(plain(model), data(205), 1) == []


@pytest.mark.parametrize(
    ('batch', 'processes', 'accumulated', 'rate'), [(2, 1, 1, '1.25e-05'), (2, 4, 1, '5e-05'), (8, 4, 2, '0.0004')]
)
def test_a_batch_that_the_learning_rate_is_not_for(batch, processes, accumulated, rate):
    cfg = plain(dict(type='RetinaNet'), auto_scale_lr=dict(base_batch_size=16), train_dataloader=dict(batch_size=batch))
    cfg.optim_wrapper.accumulative_counts = accumulated
    warning = the_remark(cfg, data(205), processes)
    assert f'{batch * processes * accumulated} images a step' in warning
    assert 'lr: 0.0001, and' in warning
    assert f'optim_wrapper.optimizer.lr={rate}' in warning
    assert '--auto-scale-lr' in warning
    cfg.auto_scale_lr.enable = True
    assert remarks(cfg, data(205), processes) == []


@pytest.mark.parametrize(('batch', 'processes', 'accumulated'), [(16, 1, 1), (2, 8, 1), (2, 1, 8)])
def test_a_batch_that_it_is_for(batch, processes, accumulated):
    cfg = plain(dict(type='RetinaNet'), auto_scale_lr=dict(base_batch_size=16), train_dataloader=dict(batch_size=batch))
    cfg.optim_wrapper.accumulative_counts = accumulated
    assert remarks(cfg, data(205), processes) == []
    cfg.auto_scale_lr = None
    assert remarks(cfg, data(205), processes + 1) == []


@pytest.mark.parametrize(
    ('leaf', 'hint'),
    [
        (
            'setr/setr_naive_vit-l_8xb1-80k_cityscapes-768x768.py',
            'lr: 0.01, and 1 image a.*expected 8 .*lr=0.00125',
        ),
        (
            'setr/setr_mla_vit-l_8xb2-160k_ade20k-512x512.py',
            'lr: 0.001, and 2 images.*expected 16 .*lr=0.000125',
        ),
    ],
)
def test_a_setr_on_one_gpu_is_told_its_learning_rate(leaf, hint):
    warning = the_remark(Config.fromfile(CONFIGS / leaf))
    assert re.search(hint, warning, re.DOTALL)


@pytest.mark.parametrize('leaf', ['camvid/setr_pup_vit-t_camvid.py', 'quickstart/retinanet_pvtv2-b0_fpn_shapes.py'])
def test_a_config_for_one_process_on_one_is_told_nothing(leaf):
    assert remarks(Config.fromfile(CONFIGS / leaf), [], 1) == []
