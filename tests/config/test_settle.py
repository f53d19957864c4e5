"""What follows from other settings of a config and is not asked for."""

import numpy as np
import pytest
from mmdet.models import RetinaNet
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmengine.runner import IterBasedTrainLoop
from torch.utils.data import DataLoader

from vitdense.config.settle import settle


@pytest.mark.parametrize(
    'setting',
    [
        dict(persistent_workers=True),
        dict(prefetch_factor=2),
        dict(timeout=5),
        dict(multiprocessing_context='fork'),
    ],
)
@pytest.mark.parametrize('none', [dict(num_workers=0), {}, dict(num_workers=None)])
@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_a_loader_without_workers_is_asked_nothing_about_them(setting, none, split):
    """PyTorch refuses these settings there."""
    cfg = Config({f'{split}_dataloader': dict(batch_size=2, **none, **setting)})
    assert settle(cfg) == []
    loader = dict(cfg[f'{split}_dataloader'], num_workers=0)
    assert next(iter(DataLoader([1, 1], **loader))).tolist() == [1, 1]
    cfg = Config({f'{split}_dataloader': dict(num_workers=1, **setting)})
    settle(cfg)
    assert cfg[f'{split}_dataloader'] == dict(num_workers=1, **setting)


@pytest.mark.parametrize(
    ('model', 'given', 'scope'),
    [
        ('RetinaNet', None, 'mmdet'),
        ('mmdet.RetinaNet', None, 'mmdet'),
        ('mmdet.models.detectors.retinanet.RetinaNet', None, 'mmdet'),
        (RetinaNet, None, 'mmdet'),
        ('EncoderDecoder', None, 'mmseg'),
        ('RetinaNet', 'mmseg', 'mmseg'),
        ('NoSuchNet', None, None),
        ('mine.RetinaNet', None, None),
    ],
)
def test_a_scope_that_is_missing_is_that_of_the_model(model, given, scope):
    cfg = Config(dict(model=dict(type=model), default_scope=given))
    said = settle(cfg)
    assert cfg.default_scope == scope
    assert len(said) == (scope != given)
    if said:
        assert f'default_scope is not set: {scope}' in said[0]


@pytest.mark.parametrize('model', [None, {}, 'RetinaNet', [1], dict(backbone=dict())])
def test_configs_without_a_model_are_left_to_the_rules(model):
    assert settle(Config(dict(model=model))) == []


RESIZES = [
    dict(type='Resize', scale=(96, 64), keep_ratio=True),
    dict(type='RandomResize', scale=[(96, 64), (90, 60)], keep_ratio=True),
    dict(type='RandomChoiceResize', scales=[(96, 64), (90, 60)], keep_ratio=True),
    dict(type='RandomChoice', transforms=[[dict(type='Resize', scale=(96, 64), keep_ratio=True)]]),
]


@pytest.mark.parametrize('step', RESIZES)
@pytest.mark.parametrize('suffix', ['py', 'json', 'yaml'])
@pytest.mark.parametrize('key', ['pipeline', 'tta_pipeline'])
def test_sizes_of_transforms_are_tuples_in_all_formats(step, suffix, key, tmp_path):
    """JSON and YAML make lists of them, which mmcv does not take."""
    flip = dict(type='RandomFlip', prob=[0.5, 0.5], direction=['horizontal', 'vertical'])
    written = Config({key: [step, flip], 'indices': [3, 4]})
    written.dump(tmp_path / f'config.{suffix}')
    cfg = Config.fromfile(tmp_path / f'config.{suffix}')
    settle(cfg)
    assert cfg._cfg_dict[key] == written._cfg_dict[key]
    assert cfg.indices == [3, 4]
    with DefaultScope.overwrite_default_scope('mmdet'):
        results = Compose(cfg[key])(dict(img=np.zeros((48, 80, 3), np.uint8)))
    assert 54 <= results['img'].shape[0] <= 58


LOOPS = [
    dict(type='IterBasedTrainLoop', max_iters=50, val_interval=5),
    dict(type='mmengine.IterBasedTrainLoop', max_iters=50, val_interval=5),
    dict(type=IterBasedTrainLoop, max_iters=50, val_interval=5),
    dict(by_epoch=False, max_iters=50, val_interval=5),
]


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize(
    ('hook', 'interval', 'lines'),
    [(dict(), -1, 0), (dict(interval=1), 5, 1), (dict(interval=20), 20, 0), (dict(interval=2, by_epoch=False), 2, 0)],
)
def test_what_is_told_and_saved_of_iterations_is_counted_in_iterations(loop, hook, interval, lines):
    cfg = Config(dict(
        train_cfg=loop, log_processor=dict(by_epoch=True), model=dict(type='X'), default_scope='mmdet',
        default_hooks=dict(checkpoint=dict(type='vitdense.CheckpointHook', **hook)),
    ))  # fmt: skip
    assert len(settle(cfg)) == lines
    assert cfg.log_processor.by_epoch is False
    assert cfg.default_hooks.logger == dict(type='LoggerHook', log_metric_by_epoch=False)
    assert cfg.default_hooks.checkpoint.by_epoch is False
    assert cfg.default_hooks.checkpoint.get('interval', -1) == interval


@pytest.mark.parametrize('loop', [dict(by_epoch=True, max_epochs=3), dict(type='EpochBasedTrainLoop', max_epochs=3)])
def test_epochs_stay_what_they_are(loop):
    cfg = Config(dict(
        train_cfg=loop, log_processor=dict(by_epoch=False),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=400, by_epoch=False)),
    ))  # fmt: skip
    before = cfg.to_dict()
    assert settle(cfg) == []
    assert cfg.to_dict() == before


def test_hooks_that_are_switched_off_stay_off():
    cfg = Config(dict(train_cfg=LOOPS[0], default_hooks=dict(checkpoint=None, logger=None)))
    assert settle(cfg) == []
    assert cfg.default_hooks == dict(checkpoint=None, logger=None)


@pytest.mark.parametrize('other', [{}, dict(test_pipeline=[dict(type='Other')])])
def test_mmseg_predicts_with_the_pipeline_of_the_test(other):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    cfg = Config(dict(default_scope='mmseg', test_dataloader=dict(dataset=dict(pipeline=pipeline)), **other))
    settle(cfg)
    assert cfg.test_pipeline == pipeline
    cfg = Config(dict(default_scope='mmdet', test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    settle(cfg)
    assert 'test_pipeline' not in cfg
