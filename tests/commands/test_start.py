"""How the tools answer: before PyTorch is imported where that is possible, and how their errors end them."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from support import CONFIGS, ROOT
from support.processes import without_torch

from vitdense import commands
from vitdense.commands import early, errors
from vitdense.commands.arguments import COMMANDS, parser_of
from vitdense.config.cfg_options import RUNNER_KEYS
from vitdense.config.known_keys import Readers
from vitdense.config.load import MOST_FOLDERS, config_path
from vitdense.config.runtime import LOGS
from vitdense.config.swap.choices import BACKBONES
from vitdense.config.swap.names import NAMES
from vitdense.console import quiet_console
from vitdense.datasets.scan import SplitReport, raise_findings
from vitdense.findings import Finding, RunError
from vitdense.names import listed
from vitdense.registry import nearest_type_names

CONFIG = str(CONFIGS / 'quickstart/retinanet_pvtv2-b0_fpn_shapes.py')
RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
TOOLS = dict(flops='get_flops', convert='convert_checkpoint', compare='compare_runs')


def tool(home: Path, name: str, *args: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': '160'}
    command = [sys.executable, str(ROOT / f'tools/{name}.py'), *args]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize('command', COMMANDS)
def test_help_needs_no_torch(command, tmp_path):
    result = without_torch(tmp_path, command, '--help')
    assert (result.returncode, result.stderr) == (0, '')
    assert '--traceback' in result.stdout
    assert (ROOT / f'tools/{TOOLS.get(command, command)}.py').is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['train', 'nope.py'], r"no config 'nope\.py'"),
        (
            ['flops', 'mmdet::retinanet/retina.py'],
            r"no config 'mmdet::retinanet/retina\.py'; nearest in .*: retin",
        ),
        (['check', 'nodet::retina.py'], r"config 'nodet::retina\.py': the package 'nodet' is not installed"),
        (['train', CONFIG, '--bakcbone', 'x'], r"unknown option '--bakcbone': did you mean '--backbone'\?"),
        (['train', CONFIG, 'more'], "unexpected argument 'more'"),
        (['train', CONFIG, '--check', 'ful'], 'argument --check: invalid choice'),
        (['train', CONFIG, '--backbone', 'pvt_smal'], r"unknown --backbone 'pvt_smal': did you mean 'pvt_small'\?"),
        (['overfit', CONFIG, '--backbone', 'swin'], r"unknown --backbone 'swin': did you mean 'swin_"),
        (['train', CONFIG, '--resume', 'wrong.pth'], r"no checkpoint file 'wrong\.pth'; checkpoints in \.: right\.pth"),
        (['train', CONFIG, '--resume', '.'], r"no checkpoint file '\.'; checkpoints in \.: right\.pth"),
        (['test', CONFIG, 'wrong.pth'], r"no checkpoint file 'wrong\.pth'; checkpoints in \.: right\.pth"),
        (['convert', 'wrong.pth', 'b.pth'], r"no checkpoint file 'wrong\.pth'; checkpoints in \.: right\.pth"),
        (['compare', 'a', 'b'], r'a is not the work dir of a run: it has no results\.csv'),
        (['train', CONFIG, '--cfg-options', 'a'], "argument --cfg-options: expected KEY=VALUE, found 'a'"),
        (['train', 'broken.py'], r"config 'broken\.py': broken\.py, line 2: SyntaxError: .* was never closed"),
        (['train', 'heir.py'], r"config 'heir\.py': .*/broken\.py, line 2: SyntaxError: .* was never closed"),
        (['train', 'raises.py'], r"config 'raises\.py': .*/raises\.py, line 2: KeyError: x$"),
        (['train', 'lost.py'], r"config 'lost\.py': FileNotFoundError: .*nowhere\.py"),
        (
            ['train', RETINANET],
            r'train_dataloader\.dataset \(CocoDataset\) is not there: missing data/coco/annotations/',
        ),
        (
            ['check', RETINANET, '--cfg-options', 'train_dataloader.dataset.data_root=my data', 'model.train_cfg=None'],
            r'train_dataloader\.dataset \(CocoDataset\) is not there: missing my data/annotations/',
        ),
        (['test', RETINANET, 'right.pth'], r'test_dataloader\.dataset \(CocoDataset\) is not there: missing'),
    ],
)
def test_what_is_wrong_is_said_before_torch_is_imported(args, message, tmp_path):
    (tmp_path / 'right.pth').touch()
    (tmp_path / 'broken.py').write_text('a = 1\nb = (\n')
    (tmp_path / 'heir.py').write_text("_base_ = 'broken.py'\n")
    (tmp_path / 'raises.py').write_text('a = {}\nb = a["x"]\n')
    (tmp_path / 'lost.py').write_text("_base_ = 'nowhere.py'\n")
    result = without_torch(tmp_path, *args)
    assert result.returncode == 2
    assert re.match(f'error: {message}', result.stderr.splitlines()[0])
    assert 'Traceback' not in result.stderr


@pytest.mark.slow
def test_a_class_that_a_python_style_config_cannot_import(tmp_path):
    (tmp_path / 'python.py').write_text('from mmdet.models import RetinaNot\n\nmodel = dict(type=RetinaNot)\n')
    result = tool(tmp_path, 'train', 'python.py')
    assert result.returncode == 2
    assert re.fullmatch(r"error: config 'python\.py': .*RetinaNot.*line 1.*\n", result.stderr)


def test_the_name_of_a_config_is_not_looked_for_in_the_whole_data(tmp_path, monkeypatch):
    for number in range(MOST_FOLDERS + 10):
        (tmp_path / f'data/{number}').mkdir(parents=True)
    (tmp_path / 'mine.py').touch()
    visited = []
    walk = os.walk
    monkeypatch.setattr(os, 'walk', lambda root: (visited.append(found) or found for found in walk(root)))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no config 'mein\.py'; nearest in \.: mine\.py"):
        config_path('mein.py')
    assert len(visited) == MOST_FOLDERS


def test_names_that_are_known_without_torch_are_those_that_there_are():
    assert sorted(NAMES) == sorted(BACKBONES)
    [log] = [action for action in parser_of('train')._actions if action.dest == 'log']
    assert sorted(log.choices) == sorted(LOGS)
    readers = Readers({}, {})
    assert [name for name in RUNNER_KEYS if not readers.at_top(name)] == []


def test_a_package_that_an_option_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(early, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match='--log wandb: the package is missing, pip install wandb'):
        early.check_arguments(parser_of('train').parse_args([CONFIG, '--log', 'wandb']))


# --- errors ---


def raised_by_vitdense() -> None:
    raise_findings([SplitReport('train', 'X', findings=[Finding('leak', 'where', 'text')])])


def raised_for_a_registry() -> None:
    with nearest_type_names():
        MODELS.build(dict(type='RetinaNott'))


def refused_by_the_system() -> None:
    Path('/nowhere/at/all').read_text()


def refused_by_the_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def wrong_type_in_vitdense() -> None:
    listed(None, 3)


def missing_key_in_vitdense() -> None:
    content = asdict(SplitReport('train', 'X'))
    del content['findings']
    SplitReport.from_json(content)


def raised_elsewhere() -> None:
    raise ValueError('of a transform that someone wrote')


@pytest.mark.parametrize(
    ('call', 'kind'),
    [
        (raised_by_vitdense, RunError),
        (raised_for_a_registry, KeyError),
        (refused_by_the_system, FileNotFoundError),
        (refused_by_the_disk, OSError),
    ],
)
def test_errors_for_users_have_a_line_and_code_2(call, kind, monkeypatch, capsys):
    text = ends_with(call, 2, monkeypatch, capsys)
    with pytest.raises(kind) as error:
        call()
    assert text == f'error: {error.value.args[0] if kind is KeyError else error.value}\n'


@pytest.mark.parametrize(
    ('call', 'kind', 'message'),
    [
        (wrong_type_in_vitdense, TypeError, r'has no len\(\)'),
        (missing_key_in_vitdense, KeyError, 'findings'),
        (raised_elsewhere, ValueError, 'that someone wrote'),
    ],
)
def test_bugs_have_their_traceback(call, kind, message, monkeypatch):
    monkeypatch.setattr(commands, 'run', lambda *args: call())
    with pytest.raises(kind, match=message):
        commands.main('check', ['config'])


def test_traceback_shows_all(monkeypatch):
    monkeypatch.setattr(commands, 'run', lambda *args: raised_by_vitdense())
    with pytest.raises(RunError):
        commands.main('check', ['config', '--traceback'])


def test_the_log_file_has_the_traceback(tmp_path, monkeypatch, capsys):
    logger = MMLogger.get_instance('start', log_file=str(tmp_path / 'run.log'))
    quiet_console(logger)
    ends_with(raised_by_vitdense, 2, monkeypatch, capsys)
    text = (tmp_path / 'run.log').read_text()
    assert 'Traceback' in text
    assert 'raised_by_vitdense' in text


def test_the_processes_after_the_first_wait_before_they_say_the_same(monkeypatch, capsys):
    """Their launcher ends them meanwhile; where the first process goes on, theirs is the only message."""
    waits = []
    monkeypatch.setattr(errors.time, 'sleep', waits.append)
    for rank in '01':
        monkeypatch.setenv('RANK', rank)
        assert ends_with(raised_by_vitdense, 2, monkeypatch, capsys).startswith('error: ')
    assert waits == [errors.GRACE]


def test_a_process_whose_peer_is_gone_says_so_in_a_line(monkeypatch, capsys):
    """Messages as PyTorch's back ends have them; the same text of a run without others is a bug."""

    def lost() -> None:
        raise RuntimeError('[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.1.1]:3421')

    with pytest.raises(RuntimeError, match='Connection closed'):
        ends_with(lost, 1, monkeypatch, capsys)
    monkeypatch.setattr(errors, '_has_joined', lambda: True)
    monkeypatch.setenv('RANK', '3')
    text = ends_with(lost, 1, monkeypatch, capsys)
    assert text == 'error: process 3 ends: another process of this run has ended, see its message\n'

    def hangs() -> None:
        raise RuntimeError('[gloo/transport/tcp/unbound_buffer.cc:88] Timed out waiting 4000ms for recv operation')

    assert 'did not answer within env_cfg.dist_cfg.timeout' in ends_with(hangs, 1, monkeypatch, capsys)
    assert ends_with(raised_by_vitdense, 2, monkeypatch, capsys).startswith('error: ')


def ends_with(call, code: int, monkeypatch, capsys) -> str:
    """What a command prints to stderr before it exits with ``code``."""
    monkeypatch.setattr(commands, 'run', lambda *args: call())
    with pytest.raises(SystemExit) as exit_:
        commands.main('check', ['config'])
    assert exit_.value.code == code
    return capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_say_an_error_once(tmp_path):
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--master-port', '0']
    args = [str(ROOT / 'tools/train.py'), CONFIG, '--launcher', 'pytorch', '--backbone', 'pvt_smal']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    result = subprocess.run(command + args, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode != 0
    assert (result.stdout + result.stderr).count("unknown --backbone 'pvt_smal'") == 1


@pytest.mark.slow
def test_an_interrupted_start_has_no_traceback(tmp_path):
    """In the middle of the imports, which take longest."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1'}
    command = [sys.executable, str(ROOT / 'tools/check.py'), CONFIG, '--check', 'off']
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline().startswith('config ')
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate()
    assert (process.returncode, text) == (130, 'interrupted\n')
