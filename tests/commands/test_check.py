"""What ``tools/check.py`` takes a step of."""

import re

import pytest
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from support.small import make_data, write_config

from vitdense import commands
from vitdense.commands import parser_of
from vitdense.config.load import load_config

pytestmark = pytest.mark.slow


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
    DetLocalVisualizer._instance_dict.clear()  # one with the name of the config writes to the folder of its first run
    commands.run('check', parser_of('check').parse_args(['config.py']))
    assert re.search(r'\nno fault was found, \d+ remarks?$', capsys.readouterr().out.rstrip())
