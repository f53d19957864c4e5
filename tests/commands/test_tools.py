"""The tools end to end on small COCO data, and what they say about input that is wrong."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from support import ROOT
from support.sweep import but_for_the_sweep

from vitdense.commands import parser_of
from vitdense.commands import run as run_command
from vitdense.config.load import config_path

RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
SEMANTIC_FPN = 'sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py'
IN_PROCESS = [
    f'{split}_dataloader.{key}'
    for split in ('train', 'val', 'test')
    for key in ('num_workers=0', 'persistent_workers=False')
]


@pytest.fixture(scope='module')
def coco(tmp_path_factory) -> Path:
    """Four images in the tree of COCO, with its 80 category names."""
    root = tmp_path_factory.mktemp('coco')
    (root / 'annotations').mkdir()
    for split in ('train2017', 'val2017'):
        (root / split).mkdir()
        images, annotations = [], []
        for i in range(4):
            picture = np.random.default_rng(i).integers(0, 255, (60, 80, 3), np.uint8)
            cv2.imwrite(str(root / split / f'{i}.jpg'), picture)
            images.append(dict(id=i, file_name=f'{i}.jpg', height=60, width=80))
            box = dict(id=i + 1, image_id=i, category_id=1 + 15 * (i % 2), bbox=[8, 10, 40, 36], area=1440, iscrowd=0)
            annotations.append(box)
        categories = [dict(id=n, name=name) for n, name in enumerate(CocoDataset.METAINFO['classes'], 1)]
        content = dict(images=images, annotations=annotations, categories=categories)
        (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))
    return root


def options(coco: Path) -> list[str]:
    return [
        '--cfg-options',
        *(f'{split}_dataloader.dataset.data_root={coco}' for split in ('train', 'val', 'test')),
        *(f'{split}_evaluator.ann_file={coco}/annotations/instances_val2017.json' for split in ('val', 'test')),
        *IN_PROCESS,
        'train_cfg.max_epochs=1',
        'model.test_cfg.score_thr=0.0',
        'train_dataloader.dataset.pipeline.2.scale=(96,64)',
        'val_dataloader.dataset.pipeline.1.scale=(96,64)',
        'test_dataloader.dataset.pipeline.1.scale=(96,64)',
    ]  # fmt: skip


def run(script: Path, *args: str, cwd: Path) -> subprocess.CompletedProcess:
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': '160'}
    return subprocess.run(
        [sys.executable, str(script), *map(str, args)], cwd=cwd, env=env, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope='module')
def trained(coco, tmp_path_factory) -> tuple[Path, str]:
    """Work dir and output of one epoch of a stock mmdet config with ``--backbone pvt_tiny``."""
    home = tmp_path_factory.mktemp('run')
    result = run(
        ROOT / 'tools/train.py', RETINANET, '--backbone', 'pvt_tiny', '--no-pretrained', *options(coco),
        'model.test_cfg.conf=0.1', cwd=home,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return home / 'work_dirs/retinanet_r50_fpn_1x_coco_pvt_tiny', result.stdout + result.stderr


@pytest.mark.slow
def test_stock_mmdet_config_trains_with_another_backbone(trained):
    work_dir, output = trained
    assert (work_dir / 'epoch_1.pth').is_file()
    assert 'model.backbone: ResNet -> pvt_tiny' in output
    assert 'model.neck.in_channels: [256, 512, 1024, 2048] -> [128, 320, 512]' in output
    assert 'SGD -> AdamW' in output
    assert re.search(r'loss \d+\.\d+', output)
    assert re.search(r'coco/bbox_mAP +│ +-?\d\.\d{3}', output)
    assert f'work dir: {work_dir}' in output.replace('\n', '')


@pytest.mark.slow
def test_a_key_that_nothing_known_reads_is_warned_about_once_on_the_console_and_in_the_log(trained):
    work_dir, output = trained
    [log] = work_dir.rglob('*.log')
    for text in (output, log.read_text()):
        assert text.count("unknown key of model.test_cfg 'conf': did you mean 'conf_thr'?") == 1
    assert 'warning: --cfg-options model.test_cfg.conf: ' in output.replace('\n', ' ')


@pytest.mark.slow
def test_dumped_config_is_the_effective_one_and_tests_the_checkpoint(trained, coco):
    work_dir, _ = trained
    dumped = work_dir / 'retinanet_r50_fpn_1x_coco.py'
    cfg = Config.fromfile(dumped)
    assert cfg.model.backbone.type == 'vitdense.PVT'
    assert cfg.model.neck.in_channels == [128, 320, 512]
    assert list(cfg.model.backbone.out_indices) == [1, 2, 3], 'the first map is read by nothing'
    out, drawn = work_dir / 'predictions.pkl', work_dir / 'drawn'
    result = run(
        ROOT / 'tools/test.py', dumped, work_dir / 'epoch_1.pth', '--out', out, '--show-dir', drawn, cwd=work_dir
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert out.is_file()
    assert len(list(drawn.rglob('*.jpg'))) == 4
    assert 'coco/bbox_mAP' in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ('option', 'setting', 'epochs'),
    but_for_the_sweep(
        [('--resume', 'resume=False', 2), ('--no-pretrained', 'resume=True', 3), ('--resume', 'resume=True', 3)],
        [('--resume', 'resume=False', 2)],
    ),
)
def test_resume_goes_on_from_the_last_checkpoint(trained, coco, option, setting, epochs):
    """By the option or by the config, and also where nothing is left to train."""
    work_dir, _ = trained
    left = not (work_dir / f'epoch_{epochs}.pth').is_file()
    args = [*options(coco), setting, f'train_cfg.max_epochs={epochs}', f'train_cfg.val_interval={epochs}']
    result = run(
        ROOT / 'tools/train.py', RETINANET, '--backbone', 'pvt_tiny', '--no-pretrained', option, *args,
        '--accept-changes', cwd=work_dir.parents[1],
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert f'resumed from work_dirs/{work_dir.name}/last.pth' in result.stdout
    assert (work_dir / f'epoch_{epochs}.pth').is_file()
    assert ('nothing is left to train' in result.stdout) is not left
    assert [path.name for path in work_dir.parent.iterdir()] == [work_dir.name]


@pytest.mark.slow
def test_a_loader_without_a_step_is_refused(coco, tmp_path):
    settings = [f'train_dataloader.{setting}' for setting in ('batch_size=16', 'batch_sampler=None', 'drop_last=True')]
    args = ['--backbone', 'pvt_tiny', '--no-pretrained', *options(coco), *settings]
    result = run(ROOT / 'tools/train.py', RETINANET, *args, cwd=tmp_path)
    assert result.returncode == 2
    assert 'loader without a batch: train_dataloader: 0 steps in batches of 16, drop_last=True' in result.stderr
    assert 'Traceback' not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize('package', but_for_the_sweep(['mmdet', 'mmseg'], ['mmdet']))
def test_one_custom_imports_line_is_enough_for_the_tools_of_others(package, coco, tmp_path):
    """Their ``tools/train.py`` as installed, in a process that imports vitdense only through the config."""
    config = tmp_path / 'pvt.py'
    if package == 'mmdet':
        text = (
            f"_base_ = '{RETINANET}'\n"
            "model = dict(backbone=dict(_delete_=True, type='vitdense.PVT', arch='tiny'),\n"
            '             neck=dict(in_channels=[64, 128, 320, 512]))\n'
            'val_cfg = None\nval_dataloader = None\nval_evaluator = None\n'
        )
        args = [a for a in options(coco) if not a.startswith('val_')]
    else:
        make_ade20k(tmp_path / 'ade')
        text = (
            f"_base_ = '{config_path('mmseg::' + SEMANTIC_FPN)}'\n"
            "model = dict(pretrained=None, backbone=dict(_delete_=True, type='vitdense.PVTv2', arch='b0'),\n"
            '             neck=dict(in_channels=[32, 64, 160, 256]))\n'
            'train_cfg = dict(max_iters=1)\nval_cfg = None\nval_dataloader = None\nval_evaluator = None\n'
            'train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)\n'
        )
        args = [
            '--cfg-options',
            f'train_dataloader.dataset.data_root={tmp_path / "ade"}',
        ]
    config.write_text("custom_imports = dict(imports=['vitdense'])\n" + text)
    tool = Path(find_spec(package).origin).parent / '.mim/tools/train.py'
    result = run(tool, config, '--work-dir', tmp_path / 'work', *args, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert list((tmp_path / 'work').glob('*.pth'))


def make_ade20k(root: Path) -> None:
    rng = np.random.default_rng(0)
    for kind, suffix in (('images', 'jpg'), ('annotations', 'png')):
        folder = root / kind / 'training'
        folder.mkdir(parents=True)
        for i in range(2):
            shape = (64, 80, 3) if kind == 'images' else (64, 80)
            cv2.imwrite(str(folder / f'{i}.{suffix}'), rng.integers(0, 150, shape, np.uint8))


@pytest.mark.slow
def test_segmentation_config_trains(tmp_path):
    make_ade20k(tmp_path / 'ade')
    result = run(
        ROOT / 'tools/train.py', f'mmseg::{SEMANTIC_FPN}',
        '--backbone', 'pvt_v2_b0', '--no-pretrained', '--cfg-options',
        'train_cfg.max_iters=1', 'train_cfg.val_interval=1',
        *(f'{split}_dataloader.dataset.data_root={tmp_path / "ade"}' for split in ('train', 'val')),
        'val_dataloader.dataset.data_prefix.img_path=images/training',
        'val_dataloader.dataset.data_prefix.seg_map_path=annotations/training',
        *IN_PROCESS,
        'train_dataloader.batch_size=2',
        cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert re.search(r'mIoU +│ +\d+\.\d{3}', result.stdout)


@pytest.mark.parametrize(
    ('args', 'error', 'message'),
    [
        (
            [RETINANET],
            FileNotFoundError,
            r'missing data/coco/annotations/[\s\S]*cocodataset.org',
        ),
        (
            ['configs/pvt/retinanet_pvt-z_fpn_1x_coco.py'],
            FileNotFoundError,
            r'no config .* nearest in .*: retin',
        ),
        ([RETINANET, '--backbone', 'pvt_smal'], ValueError, "unknown --backbone 'pvt_smal': did you mean 'pvt_small'"),
        ([RETINANET, '--bakcbone', 'pvt_small'], SystemExit, '2'),
    ],
)
def test_wrong_input_is_named_before_anything_is_built(args, error, message, tmp_path, monkeypatch):
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        run_command('train', parser_of('train').parse_args(args))
    assert [path.name for path in tmp_path.iterdir()] == ['configs']
