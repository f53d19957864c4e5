"""What ``tools/check.py`` takes a step of."""

import re
from collections.abc import Iterator

import pytest
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmseg.visualization import SegLocalVisualizer
from support.small import make_data, write_config

from vitdense import commands
from vitdense.commands import parser_of
from vitdense.config.load import load_config

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_visualizers() -> Iterator[None]:
    """A visualizer of the same name writes to the folder of its first run, which is gone after it."""
    clear_visualizers()
    yield
    clear_visualizers()


def clear_visualizers() -> None:
    for visualizer in (DetLocalVisualizer, SegLocalVisualizer):
        visualizer._instance_dict.clear()


@pytest.mark.parametrize(
    'name', ['yolox/yolox_tiny_8xb8-300e_coco.py', 'tood/tood_r50_fpn_1x_coco.py', 'gfl/gfl_r50_fpn_1x_coco.py']
)
def test_models_that_ask_for_epoch_and_iteration(name, tmp_path, monkeypatch, capsys):
    """YOLOX resizes batches by the iteration, TOOD assigns by the epoch; hooks set both."""
    make_data(tmp_path / 'data')
    cfg = Config.fromfile(write_config('detector', tmp_path / 'small.py', tmp_path / 'data'))
    cfg.model = load_config(f'mmdet::{name}').model
    cfg.model.bbox_head.num_classes = 2
    cfg.custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA')]
    cfg.dump(tmp_path / 'config.py')
    monkeypatch.chdir(tmp_path)
    commands.run('check', parser_of('check').parse_args(['config.py']))
    assert re.search(r'\nno fault was found, \d+ remarks?$', capsys.readouterr().out.rstrip())


RESIZED = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=(40, 30)),
    dict(type='PackSegInputs'),
]


@pytest.mark.parametrize(
    ('kind', 'key', 'value', 'said'),
    [
        ('maps', 'param_scheduler', [dict(type='StepLR')], r'^param_scheduler\.0 \(StepLR\): .*step_size'),
        ('detector', 'custom_hooks', [dict(type='EMAHook', momentumm=1)], r'^custom_hooks\.0.*momentumm'),
        ('detector', 'val_evaluator.metric', 'mAP', r'^val_evaluator \(CocoMetric\): metric should be one of'),
        ('maps', 'val_dataloader.dataset.pipeline', RESIZED, r'the first map is of 40 x 30, its image of 80 x 60'),
    ],
)
def test_what_would_fail_later(kind, key, value, said, tmp_path, monkeypatch):
    """Steps of the training build schedules and averages, and an evaluation comes after an epoch."""
    make_data(tmp_path / 'data')
    cfg = Config.fromfile(write_config(kind, tmp_path / 'small.py', tmp_path / 'data'))
    cfg.merge_from_dict({key: value})
    cfg.dump(tmp_path / 'config.py')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        commands.run('check', parser_of('check').parse_args(['config.py']))
