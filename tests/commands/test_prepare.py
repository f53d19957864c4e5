"""The folder of a run that fails before it has done anything."""

import argparse

import pytest
from mmengine.config import Config

from vitdense.checks import Run
from vitdense.commands import prepare
from vitdense.commands.prepare import Preparation, beside_the_training


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a run whose data are fine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prepare, 'scan', lambda run, args: None)

    def start(lenient=False) -> Preparation:
        args = argparse.Namespace(work_dir=None, overwrite=False, lenient=lenient, config='exp.py')
        return Preparation(Run(Config(dict(model=dict(type='X')))), args, 'exp')

    return start


def leave_files(start: Preparation, name: str, error: type[BaseException]) -> None:
    with start as ready:
        (ready.folder.path / name).touch()
        raise error


def test_an_error_before_the_first_step_leaves_no_folder(start, tmp_path):
    for error in (KeyError, KeyboardInterrupt):
        with pytest.raises(error):
            leave_files(start(), 'exp.py', error)
        assert list(tmp_path.iterdir()) == []


def test_an_error_of_what_is_left_out_leaves_no_folder(start, tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError('hopeless')

    monkeypatch.setattr(prepare, 'drop_findings', fail)
    with pytest.raises(ValueError, match='hopeless'):
        start(lenient=True).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_a_run_keeps_its_folder(start, tmp_path):
    with pytest.raises(MemoryError):
        leave_files(start(), 'train_batch_0.jpg', MemoryError)
    with start():
        pass
    assert sorted(path.name for path in (tmp_path / 'work_dirs').iterdir()) == ['exp', 'exp_run2']


def test_the_folder_of_a_test_is_beside_that_of_the_training():
    cfg = Config(dict(work_dir='work_dirs/exp2/'))
    beside_the_training(cfg, 'test')
    assert cfg.work_dir == 'work_dirs/exp2_test'
    cfg = Config(dict())
    beside_the_training(cfg, 'test')
    assert 'work_dir' not in cfg
