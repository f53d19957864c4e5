"""Each option of each tool with a detector, an instance segmentor and a semantic segmentor."""

import pickle
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.small import KINDS, make_data, write_config
from support.sweep import but_for_the_sweep

from vitdense import commands
from vitdense.commands import parser_of

MAIN = {'detector': 'coco/bbox_mAP', 'instances': 'coco/segm_mAP', 'maps': 'mDice'}
IMAGES = ['a/0.jpg', 'a/1.jpg', 'b/0.jpg', 'b/1.jpg']

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('options')
    make_data(folder / 'data')
    for kind in KINDS:
        write_config(kind, folder / f'{kind}.py', folder / 'data')
    return folder


@pytest.fixture
def run(home, monkeypatch, capsys):
    """Runs a command in the folder of the configs; its output."""
    monkeypatch.chdir(home)

    def run(command: str, *args: object) -> str:
        code = commands.run(command, parser_of(command).parse_args(list(map(str, args))))
        torch.use_deterministic_algorithms(False)
        assert code in ((0, 1) if command == 'overfit' else (None, 0))
        return capsys.readouterr().out

    return run


@pytest.fixture(params=but_for_the_sweep(KINDS, ['detector', 'maps']))
def trained(request, run, home) -> tuple[str, Path]:
    """A kind of model, and the folder of its training."""
    kind = request.param
    folder = home / 'work_dirs' / kind
    if not folder.exists():
        run('train', f'{kind}.py', '--seed', 1, '--deterministic', '--check', 'full', '--lenient')
    return kind, folder


def test_train(trained):
    kind, folder = trained
    assert (folder / f'best_{MAIN[kind].replace("/", "_")}_epoch_1.pth').is_file()
    masks = kind == 'instances'
    assert {path.name for path in folder.glob('per_class*.csv')} == {'per_class.csv', *['per_class_segm.csv'] * masks}
    assert (folder / 'confusion_matrix_segm.png').is_file() == masks


@pytest.mark.parametrize(
    'options',
    [
        ['--resume', '--accept-changes', '--save-every', '1', '--cfg-options', 'train_cfg.max_epochs=2'],
        ['--auto-scale-lr', '--launcher', 'none', '--check', 'off', '--work-dir', 'other', '--overwrite'],
        ['--backbone', 'pvt_v2_b0', '--no-pretrained'],
    ],
    ids=lambda options: options[0],
)
def test_options_of_train(options, trained, run):
    kind, _ = trained
    assert 'work dir: ' in run('train', f'{kind}.py', *options)


def test_a_saved_config_is_tested_beside_its_run(trained, run):
    kind, folder = trained
    out = run('test', folder / f'{kind}.py', folder / 'last.pth')
    assert f'work dir: {folder}_test' in out
    assert re.search(rf'{MAIN[kind]} +│ +-?\d', out)
    assert not folder.with_name(f'{kind}2').exists()


@pytest.mark.parametrize('options', [['--tta'], ['--check', 'off', '--overwrite', '--work-dir', 'tested']])
def test_options_of_test(options, trained, run, home, tmp_path):
    kind, folder = trained
    out = run(
        'test', f'{kind}.py', folder / 'last.pth', '--out', tmp_path / 'out.pkl', '--show-dir', tmp_path, *options
    )
    assert len(pickle.loads((tmp_path / 'out.pkl').read_bytes())) == 4
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob('*.jpg')) == IMAGES
    assert all(Image.open(tmp_path / name).size == (80, 60) for name in IMAGES)
    assert re.search(rf'{MAIN[kind]} +│ +-?\d', out)


def test_check(trained, run):
    kind, _ = trained
    out = run('check', f'{kind}.py', '--check', 'full', '--lenient', '--cfg-options', 'train_dataloader.batch_size=1')
    assert re.search(r'\nno fault was found, \d+ remarks?$', out.rstrip())


def test_overfit(trained, run):
    kind, _ = trained
    limits = ['--steps', 2, '--images', 2, '--minutes', 1, '--target', 0.5, '--lr', 1e-4, '--seed', 1]
    if kind == 'maps':
        with pytest.raises(ValueError, match=r'overfit\.py is for detection'):
            run('overfit', f'{kind}.py', *limits)
    else:
        options = ['--backbone', 'pvt_v2_b0', '--no-pretrained', '--work-dir', 'overfit', '--overwrite']
        assert 'was not reached in 2 steps' in run('overfit', f'{kind}.py', *limits, *options)


def test_flops(trained, run):
    kind, _ = trained
    assert re.search(r'FLOPs +\d', run('flops', f'{kind}.py', '--shape', 64, 96))


def test_convert_checkpoint(trained, run, tmp_path):
    _, folder = trained
    for _ in range(2):
        run('convert', folder / 'last.pth', tmp_path / 'new.safetensors', '--to', 'vitdense', '--overwrite')
    assert (tmp_path / 'new.safetensors').is_file()


@pytest.mark.parametrize('chosen', [True, False])
def test_compare_runs(chosen, trained, run, tmp_path):
    kind, folder = trained
    options = ['--metric', f'val/{MAIN[kind]}'] if chosen else []
    assert str(tmp_path) in run('compare', folder, '--out', tmp_path / 'runs.png', *options)
    assert (tmp_path / 'runs.png').is_file()
