"""``--data`` of the commands: errors at once, and the same training from all formats."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from support import CONFIGS, ROOT
from support.converters import CONVERTERS
from support.own_data import DISC, SLAB, YOLO, YOLO_LINES, coco, shapes, write_tree, xml
from support.processes import without_torch

from vitdense.commands.arguments import parser_of
from vitdense.commands.early import read_early
from vitdense.config.load import load_config
from vitdense.datasets.formats import read_data

DETECTOR = str(CONFIGS / 'quickstart/retinanet_pvtv2-b0_fpn_shapes.py')
SEGMENTOR = str(CONFIGS / 'quickstart/sem-fpn_pvtv2-b0_shapes.py')


@pytest.mark.parametrize(
    ('files', 'args', 'message'),
    [
        (
            {'a.jpg': '', 'readme.md': 'x'},
            (),
            'error: --data {root}/data: no format that is known: found 1 images, 1 .md in',
        ),
        (YOLO | {'a.xml': xml(DISC)}, (), 'error: --data {root}/data has 2 formats: --format yolo or --format voc?'),
        (
            YOLO | {'labels/val/b.txt': '2 .5 .5 .1 .1'},
            (),
            'error: 1 fault in --data data (yolo):\nclass beyond the names: 1, expected one of 0 to 1: disc, slab\n'
            '  {root}/data/labels/val/b.txt:1: class 2\n--lenient leaves them out; no file of yours is changed\n',
        ),
        (YOLO | {'labels/val/b.txt': '1 .5 .5 .1 64'}, (), '1 fault in --data data (yolo):\ncoordinate beyond 0 to 1'),
        ({'a.jpg': '', 'b.jpg': '', 'a.xml': xml(('', (1, 1, 9, 9))), 'b.xml': xml(SLAB)}, (), 'object without a name'),
        (YOLO | {'labels/val/zebra.txt': YOLO_LINES}, (), 'label file without an image: 1'),
        ({'a.jpg': '', 'a.json': coco('lost.jpg')}, (), "none of 1 image looked for is there, as 'lost.jpg'"),
        ({'a.jpg': '', 'a.json': shapes('a.jpg', DISC)}, (), 'has no images for val: found train (1 image)'),
        (YOLO, ('--format', 'voc'), 'not of the format voc: expected Pascal VOC (an XML file for each image), found'),
        (YOLO, ('--format', 'cvat'), 'argument --format: invalid choice'),
        (YOLO, ('--val-fraction', '0'), 'argument --val-fraction: expected a number above 0 and up to 1, found 0'),
        ({'images/a.jpg': '', 'masks/a.png': ''}, (), ': for segmentation, but the config is for detection'),
    ],
)
def test_bad_data_answer_at_once_and_write_nothing(files, args, message, tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    write_tree(tmp_path / 'data', files)
    result = without_torch(tmp_path, 'train', DETECTOR, '--data', 'data', *args)
    assert result.returncode == 2
    assert message.format(root=tmp_path) in result.stderr
    assert 'Traceback' not in result.stderr
    assert not (tmp_path / 'work_dirs').exists()


@pytest.mark.slow
def test_other_arguments(tmp_path):
    result = without_torch(tmp_path, 'check', DETECTOR, '--data', 'lost')
    assert (result.returncode, result.stderr.splitlines()[0]) == (
        2,
        f'error: --data {tmp_path}/lost: no such file or folder',
    )
    result = without_torch(tmp_path, 'check', DETECTOR, '--val-fraction', '0.5')
    assert result.stderr.startswith('error: --format and --val-fraction are of --data, which is not given')
    write_tree(tmp_path / 'data', YOLO)
    result = without_torch(tmp_path, 'train', SEGMENTOR, '--data', 'data')
    assert ': for detection, but the config is for segmentation' in result.stderr


@pytest.mark.parametrize('command', ['train', 'test', 'check', 'overfit'])
def test_all_commands_that_load_data_have_the_option(command):
    more = ['best.pth'] if command == 'test' else []
    args = parser_of(command).parse_args(['a.py', *more, '--data', 'my data', '--format', 'yolo'])
    assert (args.data, args.format, args.val_fraction) == (Path('my data'), 'yolo', 0.2)


def test_lenient_leaves_faulty_lines_out_and_tells_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    root = write_tree(tmp_path / 'data', YOLO | {'labels/val/b.txt': '2 .5 .5 .1 .1\n' + YOLO_LINES})
    cfg = read_early(parser_of('train').parse_args([DETECTOR, '--data', str(root), '--lenient']))
    said = capsys.readouterr().out
    assert f'left out of --data:\n  class beyond the names: 1, expected one of 0 to 1: disc, slab\n    {root}/' in said
    file = json.loads(Path(cfg.val_dataloader.dataset.ann_file).read_text())
    assert [one['category_id'] for one in file['annotations']] == [1, 2]


def test_a_test_takes_the_order_of_the_classes_from_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    root = write_tree(tmp_path / 'data', YOLO)
    weights = dict(weight=torch.zeros(1))
    torch.save(dict(meta=dict(dataset_meta=dict(classes=('slab', 'disc'))), state_dict=weights), tmp_path / 'best.pth')
    torch.save(dict(state_dict=weights), tmp_path / 'bare.pth')
    (tmp_path / 'broken.pth').write_text('x')
    for name, classes in (('best', ('slab', 'disc')), ('bare', ('disc', 'slab')), ('broken', ('disc', 'slab'))):
        args = parser_of('test').parse_args([DETECTOR, str(tmp_path / f'{name}.pth'), '--data', str(root)])
        assert read_early(args).test_dataloader.dataset.metainfo.classes == classes


@pytest.mark.parametrize('suffix', ['json', 'yaml'])
def test_configs_of_other_styles(suffix, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    load_config(DETECTOR).dump(tmp_path / f'mine.{suffix}')
    root = write_tree(tmp_path / 'data', YOLO)
    args = [str(tmp_path / f'mine.{suffix}'), '--data', str(root)]
    cfg = read_early(parser_of('train').parse_args(args))
    assert (cfg.model.bbox_head.num_classes, cfg.train_dataloader.dataset.data_root) == (2, str(root))
    assert '\nconfig     {val,test}_dataloader.dataset.ann_file: -> ' in capsys.readouterr().out
    args[2] = str(root / 'data.yaml')
    read_early(parser_of('train').parse_args([*args, '--val-fraction', '0.3']))
    assert '--val-fraction 0.3 is not used: the data have a validation' in capsys.readouterr().out
    assert read_early(parser_of('train').parse_args(args)).to_dict() == cfg.to_dict()


def tool(home: Path, *args: str) -> str:
    """What a command prints."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': '160', 'VITDENSE_CACHE': str(home / 'cache')}
    command = [sys.executable, '-m', 'vitdense', *args]
    result = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def whole_pixels(folder: Path) -> None:
    """Images of rectangles with boxes of whole pixels, as a COCO folder of two parts."""
    import cv2
    import numpy as np

    (folder / 'annotations').mkdir(parents=True)
    for number, (split, images) in enumerate((('train', 16), ('val', 6))):
        rng = np.random.default_rng(number)
        content: dict = dict(images=[], annotations=[], categories=[dict(id=k + 5, name=n) for k, n in enumerate('ba')])
        (folder / split).mkdir()
        for i in range(images):
            picture = rng.integers(0, 60, (96, 128, 3), np.uint8)
            name = f'{i:03} [{split}].png'
            content['images'].append(dict(id=i + 1, file_name=name, width=128, height=96))
            for k in rng.permutation(2).tolist():
                x, y, w, h = (int(value) for value in rng.integers([2, 2, 30, 30], [60, 40, 60, 50]))
                picture[y : y + h, x : x + w] = (250, 120, 30) if k else (20, 220, 220)
                one = dict(id=len(content['annotations']) + 1, image_id=i + 1, category_id=k + 5, iscrowd=0)
                content['annotations'].append(one | dict(bbox=[float(v) for v in (x, y, w, h)], area=float(w * h)))
            assert cv2.imwrite(str(folder / split / name), picture)
        (folder / f'annotations/instances_{split}.json').write_text(json.dumps(content))


def test_converted_annotations_are_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    whole_pixels(tmp_path / 'coco')
    wanted = {
        split: json.loads((tmp_path / f'coco/annotations/instances_{split}.json').read_text())
        for split in ('train', 'val')
    }
    for name, convert in CONVERTERS.items():
        convert(tmp_path / 'coco', tmp_path / name)
        data = read_data(tmp_path / name, 'detection')
        assert (data.format, data.classes, data.findings, data.remarks) == (name, ('b', 'a'), [], [])
        for split, want in wanted.items():
            found = json.loads(Path(data.parts[split].ann_file).read_text())
            images = [dict(one, file_name=Path(one['file_name']).name) for one in found['images']]
            assert images == want['images']
            for one, right in zip(found['annotations'], want['annotations'], strict=True):
                assert [one[key] for key in ('id', 'image_id', 'bbox', 'area', 'iscrowd')] == [
                    right[key] for key in ('id', 'image_id', 'bbox', 'area', 'iscrowd')
                ]
                assert one['category_id'] == right['category_id'] - 4


@pytest.mark.sweep
def test_the_same_training_from_all_formats(tmp_path):
    whole_pixels(tmp_path / 'coco')
    measured = {}
    for name in ('coco', 'yolo', 'voc'):
        if name != 'coco':
            CONVERTERS[name](tmp_path / 'coco', tmp_path / name)
        options = ('train_cfg.max_epochs=6', 'train_cfg.val_interval=6', 'train_dataloader.num_workers=0')
        options += ('val_dataloader.num_workers=0', 'param_scheduler=[]', 'custom_hooks=[]')
        said = tool(
            *(tmp_path, 'train', DETECTOR, '--data', name, '--work-dir', f'runs/{name}', '--seed', '1'),
            *('--deterministic', '--cfg-options', *options),
        )
        assert f'{tmp_path}/{name}: {name}; train 16 images, val 6 images; 2 classes: b, a' in said
        with open(tmp_path / f'runs/{name}/results.csv') as file:
            measured[name] = list(csv.DictReader(file))
    times = ('time', 'seconds', 'memory', 'data_time')
    for name in ('yolo', 'voc'):
        for row, right in zip(measured[name], measured['coco'], strict=True):
            for key, value in right.items():
                if value and not any(word in key for word in times):
                    assert float(row[key]) == pytest.approx(float(value), abs=1e-6), (name, key)
        tables = [(tmp_path / f'runs/{one}/per_class.csv').read_text() for one in (name, 'coco')]
        assert tables[0] == tables[1]
    last = measured['coco'][-1]
    assert float(last['val/coco/bbox_mAP']) > 0.01
    cfg = Config.fromfile(next((tmp_path / 'runs/voc').glob('*.py')))
    assert cfg.model.bbox_head.num_classes == 2
    said = tool(tmp_path, 'test', str(next((tmp_path / 'runs/voc').glob('*.py'))), 'runs/voc/best.pth')
    assert f'coco/bbox_mAP    │ {float(last["val/coco/bbox_mAP"]):.3f}' in said
