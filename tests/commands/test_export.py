"""``vitdense export``: what it says before it records a model, and what it leaves behind."""

import json
import os
from pathlib import Path

import pytest
from mmengine.config import Config
from safetensors.torch import load_file, save_file
from support.trained import work_dir

import vitdense
from vitdense import commands
from vitdense.commands import export, parser_of
from vitdense.export.exported import ExportedModel
from vitdense.export.proof import Differences, compare
from vitdense.export.weights import facts_in, to_weights
from vitdense.predict.sources import Frame, find


@pytest.fixture(scope='module')
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp('trained here & there')
    for kind in ('detector', 'maps'):
        work_dir(kind, home)
    return home


@pytest.fixture
def run(home, monkeypatch, tmp_path):
    """Export in an empty folder; what a file would find is what its model finds."""
    monkeypatch.chdir(tmp_path)
    written: list[Path] = []

    def write(model, path, half):
        written.append(path)
        path.write_bytes(b'a file')

    for form in export.WRITERS:
        monkeypatch.setitem(export.WRITERS, form, write)

    def start(kind: str, *options: str, changes: dict | None = None, find=lambda model: model) -> int:
        written.clear()
        source, model = home / kind, vitdense.load(home / kind, device='cpu')
        if changes:
            cfg = Config.fromfile(source / f'{kind}.py')
            cfg.merge_from_dict(changes)
            cfg.dump('changed.py')
            options = (*options, '--checkpoint', f'{source}/best.pth')
            source = Path('changed.py')
        monkeypatch.setattr(export, 'load_exported', lambda path, device: find(model))
        return commands.run('export', parser_of('export').parse_args([str(source), *options]))

    start.written = written
    return start


FAULTS = {
    'no evaluator': (dict(val_evaluator=None, test_evaluator=None), 'no metrics to compare: the config has no val_ev'),
    'an evaluator of what there is not': (
        {'val_evaluator.metric': 'segm'},
        "^val_evaluator fails: 'segm is not in results'$",
    ),
    'no data': ({'val_dataloader.dataset.data_root': 'gone'}, r'(?s)val_dataloader.dataset .* is not there: missing'),
    'nothing found': ({'model.test_cfg.score_thr': 1.0}, 'val_evaluator has nothing to measure: nothing is found in 4'),
}


@pytest.mark.slow
@pytest.mark.parametrize('fault', FAULTS)
def test_an_evaluation_that_fails_does_so_before_the_model_is_recorded(fault, run, home):
    changes, message = FAULTS[fault]
    picture = str(home / 'data/images/a/0.jpg')
    for option in ('--half', '--evaluate'):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            run('detector', option, '--out', 'm.onnx', '--images', picture, changes=changes)
    assert run.written == []
    assert os.listdir() == ['changed.py']


@pytest.mark.slow
def test_an_evaluation_prints_metrics_alone(run, capfd):
    assert run('detector', '--evaluate', '--out', 'm.onnx') == 0
    lines = capfd.readouterr().out.splitlines()
    about = [line.split()[0] for line in lines if line[:1] not in '┏┃┡│└']
    assert about == ['exported', 'proof', 'file']
    [undefined] = [line for line in lines if 'bbox_mAP_l' in line]
    assert [cell.strip() for cell in undefined.split('│')[2:4]] == ['-', '-']


@pytest.mark.slow
def test_a_detector_that_finds_nothing_shows_little(run, capsys):
    assert run('detector', '--out', 'm.onnx', changes={'model.test_cfg.score_thr': 1.0}, find=silenced) == 0
    out = capsys.readouterr().out
    assert '4 pictures, in which the model finds nothing, which shows little; --images names others' in out
    assert 'pixels differ' not in out
    assert str(Differences(2, other=3)).startswith('2 pictures, in which the model finds nothing, but the file 3 det')
    assert not Differences(2, other=3).is_small


def silenced(model):
    """A model that finds nothing, as one whose scores are all below its own threshold."""
    model.network.bbox_head.test_cfg.score_thr = 1.0
    return model


def test_places_that_cannot_be_written_to(run, home, monkeypatch):
    Path('m.onnx').mkdir()
    for options in ([], ['--overwrite']):
        with pytest.raises(FileExistsError, match=r'--out m.onnx is a folder, expected the path of a file'):
            run('maps', '--out', 'm.onnx', *options)
    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    for options in (['--out', 'n.onnx'], ['--out', str(home / 'n.onnx')], []):
        with pytest.raises(PermissionError, match=r'--out .*: nothing can be written to'):
            run('maps', *options)
    assert run.written == []


@pytest.mark.slow
def test_another_export_to_the_same_file_meanwhile(run):
    def other_was_faster(model):
        Path('m.onnx').write_bytes(b'of the other')
        return model

    with pytest.raises(FileExistsError, match=r'm.onnx is there already'):
        run('maps', '--out', 'm.onnx', find=other_was_faster)
    assert Path('m.onnx').read_bytes() == b'of the other'
    assert os.listdir() == ['m.onnx']
    assert run('maps', '--out', 'm.onnx', '--overwrite', find=other_was_faster) == 0
    assert Path('m.onnx').read_bytes() == b'a file'


@pytest.mark.parametrize('name', ['my model.onnx', 'my model.pt2'])
@pytest.mark.parametrize('options', [[], ['--overwrite'], ['--to', 'safetensors']])
def test_what_is_exported_already(name, options, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(b'x')
    with pytest.raises(ValueError, match=f'^{name} is exported already; its work dir or a file of --to safetensors'):
        commands.run('export', parser_of('export').parse_args([name, *options]))
    assert Path(name).read_bytes() == b'x'


@pytest.mark.parametrize('command', ['predict', 'benchmark'])
def test_a_checkpoint_for_a_file_with_weights(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('m.onnx', 'best.pth'):
        Path(name).write_bytes(b'x')
    source = ['.', '--model'] if command == 'predict' else []
    args = parser_of(command).parse_args([*source, 'm.onnx', '--checkpoint', 'best.pth'])
    with pytest.raises(ValueError, match=r"'m.onnx' has its weights, it takes no other checkpoint: 'best.pth'"):
        commands.run(command, args)


FACTS = dict(names=['a'], palette=[[1, 2, 3]], task='detection', iou_threshold=0.5, mask_threshold=0.5, preprocess={})


@pytest.mark.parametrize(
    'facts',
    [
        '{"names": ["a',
        '[]',
        '3',
        *(json.dumps({key: value for key, value in FACTS.items() if key != left_out}) for left_out in FACTS),
        json.dumps(FACTS | dict(palette=[3])),
        json.dumps(FACTS | dict(preprocess=dict(rule='fit', colour='blue'))),
    ],
)
def test_a_description_that_is_of_another_version(facts):
    class Silent(ExportedModel):
        def run(self, image, size):
            return []

    assert Silent(json.dumps(FACTS), 'm.onnx').names == ('a',)
    with pytest.raises(ValueError, match=r'^my m.onnx does not say what it is as vitdense .* damaged \(\w+: .*\)$'):
        Silent(facts, 'my m.onnx')


@pytest.mark.slow
def test_weights_whose_description_is_of_another_version(home, tmp_path):
    model = vitdense.load(home / 'maps', device='cpu')
    to_weights(model, tmp_path / 'm.safetensors')
    frame = Frame(next(find(home / 'data/images')).read(), '')
    assert compare(model, vitdense.load(tmp_path / 'm.safetensors', device='cpu'), [frame]).is_small
    facts = facts_in(tmp_path / 'm.safetensors')
    newer = json.loads(json.dumps(facts))
    newer['config']['model']['neck']['warp'] = 9
    for changed, message in (
        ({}, r'does not say what it is as vitdense .* \(KeyError: .*config'),
        (facts | dict(config=3), r'does not say what it is as vitdense .* \(TypeError'),
        (facts | dict(config={}), r'does not say what it is as vitdense .* \(AttributeError: .*default_scope'),
        (newer, r"model\.neck \(FPN\): .*'warp'"),
    ):
        path = tmp_path / 'other.safetensors'
        save_file(load_file(tmp_path / 'm.safetensors'), path, dict(vitdense=json.dumps(changed)))
        with pytest.raises(ValueError, match=message):
            vitdense.load(path)
