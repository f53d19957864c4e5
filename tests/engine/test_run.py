"""A whole run: what it prints, what it leaves in its folder, and what a second one does."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from support import ROOT

from vitdense.datasets import ShapesSpec, ensure_shapes

QUICKSTART = ROOT / 'configs/quickstart/retinanet_pvtv2-b0_fpn_shapes.py'
NAME = QUICKSTART.stem


def run(tool: str, *args: str, cwd: Path, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': '160', 'VITDENSE_CACHE': str(cwd / 'cache')}
    command = [sys.executable, *launcher, ROOT / 'tools' / tool, *args]
    return subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope='module')
def shapes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('shapes') / 'data'
    ensure_shapes(root, ShapesSpec(num_train=24, num_val=8))
    return root


def options(shapes: Path, epochs: int = 2) -> list[str]:
    loaders = ('train', 'val', 'test')
    data = (f'data_root={shapes}', 'num_train=24', 'num_val=8')
    return [
        '--cfg-options',
        *(f'{split}_dataloader.dataset.{key}' for split in loaders for key in data),
        *(f'{split}_evaluator.ann_file={shapes}/annotations/instances_val.json' for split in ('val', 'test')),
        *(f'{split}_dataloader.{key}' for split in loaders for key in ('num_workers=0', 'persistent_workers=False')),
        f'train_cfg.max_epochs={epochs}',
        'train_cfg.val_interval=1',
        'model.test_cfg.score_thr=0.0',
    ]  # fmt: skip


@pytest.fixture(scope='module')
def first(shapes, tmp_path_factory) -> tuple[Path, str]:
    """Home of a run of two epochs, and what it printed."""
    home = tmp_path_factory.mktemp('home')
    result = run('train.py', QUICKSTART, '--seed', '5', *options(shapes), cwd=home)
    assert result.returncode == 0, result.stderr[-3000:]
    return home, result.stdout


@pytest.mark.slow
def test_console_says_what_people_ask_for(first, shapes):
    home, output = first
    lines = output.splitlines()
    start = lines[: next(i for i, line in enumerate(lines) if line.startswith('epoch 1/2'))]
    assert len(start) <= 22, 'some fifteen lines and the class table'
    text = '\n'.join(start)
    content = json.loads((shapes / 'annotations/instances_train.json').read_text())
    assert f'train: 24 images, {len(content["annotations"])} instances, 5 classes' in text
    for category in content['categories']:
        boxes = [a['image_id'] for a in content['annotations'] if a['category_id'] == category['id']]
        assert re.search(rf'{category["name"]} +{len(set(boxes))} +{len(boxes)} ', text)
    parameters = sum(p.numel() for p in load_model(home / 'work_dirs' / NAME).values())
    assert f'{parameters / 1e6:.2f} M parameters' in text
    for part in (
        'vitdense ',
        'torch ',
        'AdamW; lr 0.002',
        '8 images a step',
        '2 epochs of 3 steps',
        'weights    random',
    ):
        assert part in text
    assert re.search(
        r'^epoch 1/2  step 3/3  eta \S+  \S+ img/s  data \d+%  mem \S+ GB  lr \S+  .*loss \S+', output, re.M
    )
    assert re.search(r'^val epoch 2/2  \S+  bbox_mAP \S+  bbox_mAP_50', output, re.M)
    assert re.search(r'coco/bbox_mAP +│ +-?\d\.\d{3}', output)
    assert f'work dir: {home}/work_dirs/{NAME}' in output


def load_model(work_dir: Path) -> dict[str, torch.Tensor]:
    model = torch.load(work_dir / 'last.pth', weights_only=True)['state_dict']
    return {key: value for key, value in model.items() if 'running_' not in key and 'num_batches' not in key}


@pytest.mark.slow
def test_work_dir_holds_what_people_are_used_to(first):
    work_dir = first[0] / 'work_dirs' / NAME
    files = {path.name for path in work_dir.iterdir()}
    expected = {'best.pth', 'last.pth', 'results.csv', 'results.png', 'per_class.csv', 'pr_curves.png'}
    expected |= {'confusion_matrix.png', 'labels.png', 'train_batch_0.jpg', f'{NAME}.py', 'environment.txt'}
    assert expected <= files
    for name in files:
        if name.endswith(('.png', '.jpg')):
            picture = cv2.imread(str(work_dir / name))
            assert picture is not None, name
            assert picture.std() > 5, f'{name} is empty'
    assert 'PyTorch: ' in (work_dir / 'environment.txt').read_text()
    with (work_dir / 'results.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['epoch'] for row in rows] == ['1', '2']


@pytest.mark.slow
def test_second_run_gets_its_own_folder_and_resume_goes_on_in_the_first(first, shapes):
    home, _ = first
    work_dirs = home / 'work_dirs'
    before = (work_dirs / NAME / 'last.pth').read_bytes()
    second = run('train.py', QUICKSTART, '--seed', '5', *options(shapes, epochs=1), cwd=home)
    assert second.returncode == 0, second.stderr[-3000:]
    assert (work_dirs / f'{NAME}_run2/last.pth').is_file()
    assert (work_dirs / NAME / 'last.pth').read_bytes() == before

    resumed = run(
        'train.py',
        QUICKSTART,
        '--resume',
        work_dirs / NAME / 'last.pth',
        '--accept-changes',
        *options(shapes, epochs=3),
        cwd=home,
    )
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert 'epoch 3/3' in resumed.stdout
    assert not re.search('^epoch 2/3', resumed.stdout, re.MULTILINE)
    with (work_dirs / NAME / 'results.csv').open() as file:
        assert [row['epoch'] for row in csv.DictReader(file)] == ['1', '2', '3']
    assert torch.load(work_dirs / NAME / 'last.pth', weights_only=True)['meta']['epoch'] == 3
    assert not (work_dirs / f'{NAME}_run3').exists()


@pytest.mark.slow
def test_same_seed_same_run(first, shapes, tmp_path):
    again = run('train.py', QUICKSTART, '--seed', '5', '--deterministic', *options(shapes, epochs=1), cwd=tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    with (first[0] / 'work_dirs' / NAME / 'results.csv').open() as one:
        row = next(csv.DictReader(one))
    with (tmp_path / 'work_dirs' / NAME / 'results.csv').open() as other:
        same = next(csv.DictReader(other))
    assert row['train/loss'] == same['train/loss']


@pytest.mark.slow
def test_checkpoint_of_another_model_is_refused(first, shapes, tmp_path):
    checkpoint = first[0] / 'work_dirs' / NAME / 'last.pth'
    for args in (['train.py', QUICKSTART], ['test.py', QUICKSTART, checkpoint]):
        wrong = [*options(shapes), 'model.backbone.arch=b1', 'model.neck.in_channels=[64,128,320,512]']
        if args[0] == 'train.py':
            wrong.append(f'load_from={checkpoint}')
        result = run(*args, *wrong, cwd=tmp_path)
        assert result.returncode == 2
        assert re.search(r'^error: .*last\.pth', result.stderr, re.M), result.stderr[-2000:]
        assert 'Traceback' not in result.stderr


@pytest.mark.slow
def test_check_writes_nothing(shapes, tmp_path):
    result = run('check.py', QUICKSTART, '--check', 'full', *options(shapes), 'model.test_cfg.iou=1', cwd=tmp_path)
    assert "warning: --cfg-options model.test_cfg.iou: unknown key of model.test_cfg 'iou'" in result.stdout
    assert result.returncode == 0, result.stderr[-3000:]
    assert re.search(r'^no fault was found, \d+ remarks?$', result.stdout, re.M), result.stdout[-2000:]
    assert re.search(r'^step +loss \d', result.stdout, re.M)
    assert {path.name for path in tmp_path.iterdir()} <= {'cache'}


@pytest.mark.slow
def test_two_processes_train_as_one(shapes, tmp_path):
    """One of them gets images without objects, which must neither hang nor leave parameters without gradient."""
    content = json.loads((shapes / 'annotations/instances_train.json').read_text())
    odd = {image['id'] for image in content['images'][1::2]}
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] not in odd]
    alone = tmp_path / 'instances_half.json'
    alone.write_text(json.dumps(content))
    extra = [
        f'train_dataloader.dataset.ann_file={alone}',
        'train_dataloader.sampler.shuffle=False',
        'train_dataloader.batch_size=2',
    ]
    launcher = ('-m', 'torch.distributed.run', '--nproc_per_node=2', '--master_port=29533')
    result = run(
        'train.py', QUICKSTART, '--launcher', 'pytorch', *options(shapes, epochs=1), *extra,
        cwd=tmp_path, launcher=launcher,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count('work dir: ') == 1
    assert '4 images a step (2 x 2 processes)' in result.stdout
    assert [path.name for path in (tmp_path / 'work_dirs').iterdir()] == [NAME]


@pytest.mark.slow
def test_faults_stop_a_run_and_lenient_leaves_them_out(shapes, tmp_path):
    annotations = shapes / 'annotations/instances_train.json'
    content = json.loads(annotations.read_text())
    content['annotations'][0]['bbox'][2] = -5
    content['annotations'][3]['bbox'][0] = float('nan')
    broken = tmp_path / 'instances_broken.json'
    broken.write_text(json.dumps(content))
    before = broken.read_bytes()
    arguments = [*options(shapes, epochs=1), f'train_dataloader.dataset.ann_file={broken}']
    strict = run('train.py', QUICKSTART, *arguments, cwd=tmp_path)
    assert strict.returncode != 0
    first, second = (content['annotations'][i]['id'] for i in (0, 3))
    for part in ('2 faults in the data', f'annotation {first} of image', f'annotation {second} of image', '--lenient'):
        assert part in strict.stderr
    assert not (tmp_path / 'work_dirs').exists()

    lenient = run('train.py', QUICKSTART, '--lenient', *arguments, cwd=tmp_path)
    assert lenient.returncode == 0, lenient.stderr[-3000:]
    total = len(content['annotations'])
    assert f'{total - 2} of {total} annotations are left' in lenient.stdout
    assert f'{total - 2} instances' in lenient.stdout
    assert broken.read_bytes() == before
    assert len(list((tmp_path / 'work_dirs' / NAME / 'clean').iterdir())) == 1
