"""``vitdense benchmark``: what it prints, and what it says about input that is wrong."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from support import ROOT
from support.trained import work_dir

from vitdense import commands
from vitdense.benchmark.complexity import complexity_of
from vitdense.benchmark.parts import PARTS
from vitdense.commands import parser_of
from vitdense.commands.benchmark import names_of, pictures_of
from vitdense.predict import load

RETINANET = f'{ROOT}/configs/quickstart/retinanet_pvtv2-b0_fpn_shapes.py'
TIMES = ('latency of a batch, p50', 'latency of a batch, p95', *PARTS)


@pytest.fixture(scope='module')
def home(tmp_path_factory) -> Path:
    """Work dirs of a detector and of a segmentor, and an exported file that finds nothing."""
    home = tmp_path_factory.mktemp('trained')
    for kind in ('detector', 'maps'):
        work_dir(kind, home)
    write_exported(home / 'nothing.onnx')
    return home


def write_exported(path: Path) -> None:
    """A file like those of ``vitdense export``: one detection with a score of 0 in a picture."""
    parts = dict(
        boxes=np.zeros((1, 1, 4), np.float32), scores=np.zeros((1, 1), np.float32), labels=-np.ones((1, 1), int)
    )
    nodes = [
        helper.make_node('Constant', [], [name], value=onnx.numpy_helper.from_array(value))
        for name, value in parts.items()
    ]
    types = [TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64]
    outputs = [
        helper.make_tensor_value_info(name, kind, value.shape)
        for (name, value), kind in zip(parts.items(), types, strict=True)
    ]
    image = helper.make_tensor_value_info('image', TensorProto.FLOAT, ['B', 3, 'H', 'W'])
    model = helper.make_model(
        helper.make_graph(nodes, 'nothing', [image], outputs),
        opset_imports=[helper.make_opsetid('', 18)],
        ir_version=10,
    )
    facts = dict(names=['disc'], palette=[[9, 9, 9]], task='detection', iou_threshold=0.5, mask_threshold=0.5)
    facts |= dict(version='0', preprocess=dict(rule='none', size=[0, 0], mean=[0, 0, 0], std=[1, 1, 1], rgb=False))
    helper.set_model_props(model, {'vitdense': json.dumps(facts)})
    onnx.save(model, path)


@pytest.fixture
def measure(home, monkeypatch, capsys):
    monkeypatch.chdir(home)

    def run(*line: str) -> tuple[dict[str, list[str]], str]:
        """Cells of the table by row, and the lines below it."""
        arguments = [*line, '--device', 'cpu', '--rounds', '2']
        assert commands.run('benchmark', parser_of('benchmark').parse_args(arguments)) is None
        out = capsys.readouterr().out
        rows = [
            [cell.strip() for cell in re.split('[│┃]', line)[1:-1]] for line in out.splitlines() if line[:1] in '│┃'
        ]
        return {name: cells for name, *cells in rows}, out.rpartition('┘')[2]

    return run


def numbers(cells: list[str]) -> list[float]:
    return [float(cell.split()[0]) for cell in cells]


def test_a_detector_beside_a_segmentor(measure, home):
    rows, below = measure('detector', '--vs', 'maps', '--batch-size', '3')
    assert rows[''] == ['detector', 'maps', 'ratio']
    assert rows['weights'] == ['best.pth', 'best.pth', '']
    assert rows['run by'] == ['PyTorch', 'PyTorch', '']
    assert rows['input'] == ['3 x 3 x 64 x 85', '3 x 3 x 64 x 85', '']
    counts = [numbers(rows[name]) for name in ('parameters', 'FLOPs of a picture')]
    for k, kind in enumerate(('detector', 'maps')):
        parameters, flops = counts[0][k], counts[1][k]
        network = load(home / kind, device='cpu').network
        assert parameters == pytest.approx(sum(p.numel() for p in network.parameters()) / 1e6, abs=0.005)
        assert flops == pytest.approx(complexity_of(network, (64, 85)).flops / 1e9, abs=0.005)
    for name in TIMES:
        assert rows[name][0].endswith(' ms')
        assert min(numbers(rows[name])) >= 0
    p50, speed = numbers(rows['latency of a batch, p50']), numbers(rows['pictures a second'])
    assert speed[:2] == pytest.approx([3000 / value for value in p50[:2]], rel=0.02)
    assert speed[2] == pytest.approx(1 / p50[2], rel=0.05, abs=0.01)
    assert 'rounds     2, in which the models take turns; ratios are of detector to maps\n' in below
    assert 'pictures   3 of the validation, 80 x 60 pixels\n' in below


def test_what_a_file_does_not_say_is_a_dash(measure):
    rows, below = measure('nothing.onnx', '--vs', 'detector', '--size', '40', '56', '--images', 'data/images/a/0.jpg')
    assert rows[''] == ['nothing.onnx', 'detector', 'ratio']
    assert rows['weights'] == ['in the file', 'best.pth', '']
    assert rows['run by'] == ['onnxruntime', 'PyTorch', '']
    assert rows['input'] == ['1 x 3 x 40 x 56'] * 2 + ['']
    for name in ('parameters', 'FLOPs of a picture', *PARTS):
        assert rows[name][0] == '-'
        assert rows[name][2] == ''
    assert 'pictures   1, 80 x 60 pixels\n' in below


def test_a_config_has_random_weights(measure):
    rows, below = measure(RETINANET, '--amp', '--size', '64', '64')
    assert rows[''] == [Path(RETINANET).stem]
    assert rows['weights'] == ['random']
    assert rows['run by'] == ['PyTorch, bfloat16 autocast']
    assert 'rounds     2\n' in below
    assert 'pictures   noise of 640 x 480 pixels' in below


@pytest.mark.slow
def test_a_segmentor_that_slides(measure, home, tmp_path):
    """Four windows of 32 x 32 pixels cost as much as four pictures of that size."""
    config = tmp_path / 'slides.py'
    changes = "dict(mode='slide', crop_size=(32, 32), stride=(32, 32))"
    config.write_text(f"_base_ = ['{next((home / 'maps').glob('*.py'))}']\nmodel = dict(test_cfg={changes})\n")
    slides = numbers(measure(str(config), '--size', '64', '64')[0]['FLOPs of a picture'])
    window = complexity_of(load(home / 'maps', device='cpu').network, (32, 32)).flops
    assert slides == pytest.approx([4 * window / 1e9], abs=0.005)


@pytest.mark.parametrize(
    ('kind', 'expected'), [('detector', ['PVTv2', 'FPN', 'RetinaHead']), ('maps', ['PVTv2', 'FPN', 'FPNHead'])]
)
def test_what_is_compiled(kind, expected, measure, monkeypatch):
    """The preprocessor takes lists of pictures, which ``torch.compile`` fails at."""
    compiled = []

    def note(forward):
        compiled.append(type(forward.__self__).__name__)
        return forward

    monkeypatch.setattr(torch, 'compile', note)
    assert measure(kind, '--compile')[0]['run by'] == ['PyTorch, compiled']
    assert compiled == expected


@pytest.mark.slow
def test_the_commands_of_the_page(home, tmp_path, monkeypatch, capsys):
    (tmp_path / 'work_dirs').mkdir()
    for target, source in {
        'work_dirs/cells': 'detector',
        'work_dirs/smaller': 'maps',
        'cells.onnx': 'nothing.onnx',
        'photos': 'data/images',
    }.items():
        (tmp_path / target).symlink_to(home / source)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.chdir(tmp_path)
    [block] = re.findall(r'```sh\n(.*?)```', (ROOT / 'docs/benchmark.md').read_text(), re.DOTALL)
    for line in block.splitlines():
        name, *arguments = shlex.split(line)
        assert name == 'vitdense'
        with pytest.raises(SystemExit) as end:
            commands.cli([*arguments, *([] if '--rounds' in line else ['--rounds', '2']), '--device', 'cpu'])
        assert not end.value.code, capsys.readouterr()
        assert 'latency of a batch, p50' in capsys.readouterr().out


def test_names_are_as_short_as_they_differ():
    assert names_of('runs/a', None) == ['a']
    assert names_of('mmdet::detr/detr_r50.py', 'x/model.onnx') == ['detr_r50', 'model.onnx']
    assert names_of('one/run', 'two/run') == ['one/run', 'two/run']
    assert names_of('one/run', 'one/run') == ['run', 'run again']


def test_pictures_have_one_size(tmp_path, home):
    paths = [str(home / f'data/images/{name}.jpg') for name in ('a/0', 'b/0')]
    frames, what = pictures_of(paths, [], 4)
    assert what == '2, 80 x 60 pixels'
    assert [frame.image.shape for frame in frames] == [(60, 80, 3)] * 2


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ([], 'the following arguments are required: MODEL'),
        (['none.py'], "no config 'none.py'"),
        (['detector', '--vs', 'none'], "there is no work dir or config 'none'"),
        (['detector', '--vs', 'none.onnx'], "there is no exported file 'none.onnx'"),
        (['data/images'], "model 'data/images' is not the work dir of a run: it has no config, but"),
        (['detector', '--checkpoint', 'none.pth'], "no checkpoint file 'none.pth'"),
        (['detector', '--vs', 'maps', '--vs-checkpoint', 'none.pth'], "no checkpoint file 'none.pth'"),
        (['detector', '--vs-checkpoint', 'maps/best.pth'], '--vs-checkpoint is of --vs, which is not given'),
        (['detector', '--images', 'none.jpg'], "there is no image, video or folder 'none.jpg'"),
        (['detector', '--images', 'data/coco.json'], 'data/coco.json cannot be read: it is no image file'),
        (['detector', '--batch-size', '0'], '--batch-size: expected a number above 0, found 0'),
        (['detector', '--size', '64'], '--size: expected 2 arguments'),
        (['detector', '--device', 'tpu'], "device 'tpu' cannot be used"),
        (['nothing.onnx', '--amp'], '--amp is not for exported files, which are run as they are'),
        (['detector/best.pth'], "model 'detector/best.pth' is a checkpoint"),
        pytest.param(
            ['detector', '--device', 'cuda'],
            "device 'cuda' cannot be used",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU'),
        ),
    ],
)
def test_bad_input(line, message, home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    with pytest.raises(SystemExit) as end:
        commands.cli(['benchmark', *line])
    assert end.value.code == 2
    text = capsys.readouterr().err
    assert message in text
    assert 'Traceback' not in text
    assert len(text.splitlines()) <= 2


def test_a_network_that_cannot_take_the_pictures(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    config = next((home / 'maps').glob('*.py'))
    Path('pooled.py').write_text(f"_base_ = ['{config}']\nmodel = dict(neck=dict(in_channels=[1, 2, 3, 4]))\n")
    with pytest.raises(SystemExit) as end:
        commands.cli(['benchmark', 'pooled.py', '--size', '64', '64'])
    assert end.value.code == 2
    text = capsys.readouterr().err
    assert 'error: pooled fails in PyTorch with 1 x 3 x 64 x 64 pixels: ' in text
    assert len(text.splitlines()) == 1
