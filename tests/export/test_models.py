"""Exported models find what their originals find, in pictures of several numbers and sizes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from mmengine.config import Config
from support import ROOT
from support.sweep import but_for_the_sweep
from support.trained import work_dir

import vitdense
from vitdense import commands
from vitdense.commands import export, parser_of
from vitdense.export import seal
from vitdense.export.graphs import graph_of
from vitdense.export.onnx import to_onnx
from vitdense.export.proof import compare
from vitdense.export.runtime import OnnxModel
from vitdense.predict.sources import Frame

pytestmark = pytest.mark.slow

SIZES = [(60, 80), (61, 83), (80, 60), (96, 64)]


@pytest.fixture(scope='module')
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('trained')


CHANGED = {
    'soft': ('detector', dict(test_cfg=dict(nms=dict(type='soft_nms'), score_thr=0.3, max_per_img=20))),
    'slide': ('maps', dict(test_cfg=dict(mode='slide', crop_size=(48, 72), stride=(32, 40)))),
}
"""Kinds of models and what differs in their configs; of the pictures, some are smaller than a window."""


def changed(folder: Path, changes: dict):
    """The model of a work dir with another config."""
    cfg = Config.fromfile(folder / f'{folder.name}.py')
    cfg.merge_from_dict(dict(model=changes))
    cfg.dump(folder / 'changed.json')
    model = vitdense.load(folder / 'changed.json', folder / 'best.pth', 'cpu')
    (folder / 'changed.json').unlink()
    return model


@pytest.fixture(scope='module', params=but_for_the_sweep(['soft', 'cascade', 'pooled maps', 'slide'], ['slide']))
def both(request, home) -> tuple:
    """A model, and what was exported of it."""
    kind, changes = CHANGED.get(request.param, (request.param, {}))
    folder = home / kind if (home / kind).exists() else work_dir(kind, home)
    model = changed(folder, changes) if changes else vitdense.load(folder, device='cpu')
    path = folder / f'{request.param}.onnx'
    to_onnx(model, path)
    assert seal.MARK + b'0' * 10 not in path.read_bytes()
    return model, vitdense.load(path)


def pictures(sizes) -> list[Frame]:
    rng = np.random.default_rng(0)
    return [
        Frame(cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), hw[::-1]), f'{i}') for i, hw in enumerate(sizes)
    ]


def test_equals_the_model(both):
    model, exported = both
    assert isinstance(exported, OnnxModel)
    assert (exported.names, exported.palette, exported.task) == (model.names, model.palette, model.task)
    differences = compare(model, exported, pictures(SIZES))
    assert differences.is_small, str(differences)
    assert differences.pictures == 4
    assert differences.detections > 0 or model.task == 'semantic segmentation'


def test_batches_are_free(both):
    _, exported = both
    frames = pictures([(60, 80)] * 8)
    one = [exported.infer_frames([frame], 0.0)[0] for frame in frames]
    for number in (3, 8):
        for alone, batched in zip(one, exported.infer_frames(frames[:number], 0.0), strict=False):
            for key in ('boxes', 'scores', 'semantic_map'):
                if getattr(alone, key) is not None:
                    np.testing.assert_allclose(getattr(batched, key), getattr(alone, key), atol=1e-3)


def test_the_file_says_what_it_is(both):
    model, exported = both
    inputs = {one.name: one.shape for one in exported.session.get_inputs()}
    assert [isinstance(side, str) for side in inputs['image']] == [True, False, True, True]
    facts = json.loads(exported.session.get_modelmeta().custom_metadata_map['vitdense'])
    assert facts['version'] == vitdense.__version__
    assert facts['names'] == list(model.names)
    assert facts['preprocess']['rule'] == 'fit'
    assert facts['preprocess']['rgb'] is True


def test_tiles_of_exported_models(both):
    model, exported = both
    picture = pictures([(90, 120)])[0].image
    if model.task == 'semantic segmentation':
        with pytest.raises(ValueError, match='an exported segmentor gives no scores'):
            exported.predict(picture, tile=64)
        return
    [expected], [found] = (one.predict(picture, threshold=0.0, tile=64) for one in (model, exported))
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)


def test_it_runs_without_torch_and_openmmlab(both, tmp_path):
    """In a process in which none of them can be imported."""
    _, exported = both
    cv2.imwrite(str(tmp_path / 'photo.png'), pictures([(60, 80)])[0].image)
    script = f"""
import sys
for name in ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'cv2', 'timm', 'rich', 'scipy'):
    sys.modules[name] = None
import vitdense
[result] = vitdense.load({str(exported.path)!r}).predict({str(tmp_path / 'photo.png')!r}, threshold=0.0)
print(repr(result))
"""
    found = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, env={'PYTHONPATH': str(ROOT)}
    )
    assert found.returncode == 0, found.stderr[-2000:]
    [result] = exported.predict(tmp_path / 'photo.png', threshold=0.0)
    assert found.stdout.strip() == repr(result)


def test_the_command_proves_what_it_writes(home, tmp_path, monkeypatch, capsys):
    folder = home / 'maps' if (home / 'maps').exists() else work_dir('maps', home)
    monkeypatch.chdir(tmp_path)
    args = ['export', str(folder), '--out', 'maps.onnx', '--evaluate']
    with pytest.raises(SystemExit) as end:
        commands.cli(args)
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert 'proof      4 pictures; 0 of the pixels differ (at most 0.0001)' in out
    [(before, after)] = [line.split('│')[2:4] for line in out.splitlines() if 'mDice' in line]
    assert float(before) == float(after) > 0
    onnxruntime.InferenceSession('maps.onnx')
    with pytest.raises(SystemExit) as end:
        commands.cli(args)
    assert end.value.code == 2
    assert 'maps.onnx is there already; --overwrite replaces it' in capsys.readouterr().err


def test_a_file_that_finds_something_else_is_not_written(home, tmp_path, monkeypatch, capsys):
    folder = home / 'maps' if (home / 'maps').exists() else work_dir('maps', home)
    other = vitdense.load(folder, device='cpu')
    prepare = other.prepare
    monkeypatch.setattr(other, 'prepare', lambda frame: prepare(replace(frame, image=255 - frame.image)))
    monkeypatch.setitem(export.WRITERS, 'onnx', lambda model, path, half: path.write_bytes(b'a file'))
    monkeypatch.setattr(export, 'load_exported', lambda path, device: other)
    args = parser_of('export').parse_args([str(folder), '--out', str(tmp_path / 'm.onnx')])
    assert commands.run('export', args) == 1
    assert 'FAILED: the file finds something else than the model' in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('kind', 'change', 'message'),
    [
        ('maps', dict(test_cfg=dict(mode='other')), "a test in the mode 'other' cannot be exported"),
        ('maps', dict(data_preprocessor=dict(test_cfg=dict(size=(64, 64)))), 'that a test pads to'),
        ('detector', dict(test_cfg=dict(nms=dict(type='nms_match'))), 'known are nms and soft_nms'),
    ],
)
def test_what_cannot_be_exported_says_why(kind, change, message, home):
    folder = home / kind if (home / kind).exists() else work_dir(kind, home)
    model = changed(folder, change)
    with pytest.raises(ValueError, match=message):
        graph_of(model.network, model.task)


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [('text.onnx', b'text', 'is no ONNX file'), ('none.onnx', None, 'there is no exported file')],
)
def test_what_is_no_exported_file(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        vitdense.load(tmp_path / name)
