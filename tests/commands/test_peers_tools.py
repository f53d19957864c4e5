"""The tools of mmdet and mmseg with our configs, in a Python that has read our ``.pth`` file, as once installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT
from support.sweep import but_for_the_sweep

SPLITS = ('train', 'val', 'test')
SMALL = [
    'model.backbone.init_cfg=None',
    'model.test_cfg.score_thr=0.0',  # or nothing is detected
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    *(f'{split}_dataloader.dataset.indices=4' for split in SPLITS),
    *(f'{split}_dataloader.num_workers=0' for split in SPLITS),
    *(f'{split}_dataloader.persistent_workers=False' for split in SPLITS),
]


def run(tool: str, folder: Path, *arguments: str) -> None:
    """Run ``PACKAGE/.mim/tools/NAME.py`` of a package as a script of its own."""
    package, name = tool.split('/')
    program = f"""
import runpy, shutil, site, sys
from importlib.util import find_spec
shutil.copy({str(ROOT / 'vitdense_startup.pth')!r}, {str(folder)!r})
site.addsitedir({str(folder)!r})
sys.argv[0] = find_spec({package!r}).submodule_search_locations[0] + '/.mim/tools/{name}.py'
runpy.run_path(sys.argv[0], run_name='__main__')
"""
    command = [sys.executable, '-c', program, *arguments, '--work-dir', 'out', '--cfg-options', *SMALL]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ('package', 'config', 'metric'),
    but_for_the_sweep(
        [
            ('mmdet', 'retinanet_pvtv2-b0_fpn_shapes', 'coco/bbox_mAP_s'),
            ('mmseg', 'sem-fpn_pvtv2-b0_shapes', 'mIoU'),
        ],
        [('mmdet', 'retinanet_pvtv2-b0_fpn_shapes', 'coco/bbox_mAP_s')],
    ),
)
def test_peers_tools_train_and_test_our_configs(tmp_path, package, config, metric):
    """The test finds the last weights as good as the validation of the training did, on the same images."""
    path = str(ROOT / f'configs/quickstart/{config}.py')
    run(f'{package}/train', tmp_path, path)
    run(f'{package}/test', tmp_path, path, str(tmp_path / 'out/last.pth'))
    logs = ''.join(log.read_text() for log in sorted(tmp_path.glob('out/*/*.log')))
    found = dict(re.findall(rf'Epoch\((val|test)\).* {metric}: (\S+)', logs))
    assert set(found) == {'val', 'test'}
    assert found['val'] == found['test'] != '-1.0000'
