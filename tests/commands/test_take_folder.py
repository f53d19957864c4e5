"""Which folder a run takes, and what it goes on from: by ``--resume`` and by ``resume`` in a config."""

import argparse
from pathlib import Path

import pytest
from mmengine.config import Config

from vitdense.commands.prepare import take_folder
from vitdense.engine.run_folder import LOCK


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(**given) -> argparse.Namespace:
    return argparse.Namespace(**dict(work_dir=None, overwrite=False, resume=None) | given)


def taken(cfg: Config, **given) -> str:
    folder = take_folder(cfg, options(**given), 'exp')
    folder.lock.release()
    return folder.path.as_posix()


def earlier(name: str) -> Path:
    """A run that has written a checkpoint."""
    folder = Path('work_dirs', name)
    folder.mkdir(parents=True)
    (folder / LOCK).touch()
    (folder / 'last.pth').touch()
    return folder


BY_OPTION, BY_CONFIG = (dict(), dict(resume='auto')), (dict(resume=True), dict())


@pytest.mark.parametrize(('cfg', 'given'), [BY_OPTION, BY_CONFIG])
def test_the_last_run_is_gone_on_with_in_its_folder(cfg, given):
    earlier('exp'), earlier('exp2')
    Path('work_dirs/exp3').mkdir()
    config = Config(cfg)
    assert taken(config, **given) == 'work_dirs/exp2'
    assert (config.resume, config.load_from) == (True, 'work_dirs/exp2/last.pth')


@pytest.mark.parametrize('where', [dict(work_dir='work_dirs/mine'), {}])
def test_a_work_dir_of_the_config_or_the_option_is_looked_in(where):
    earlier('exp'), earlier('mine')
    config = Config(dict(resume=True, work_dir='work_dirs/mine'))
    assert taken(config, **where) == 'work_dirs/mine'


@pytest.mark.parametrize('resume', ['path', True])
def test_a_checkpoint_is_gone_on_from_in_its_folder_if_that_is_of_a_run(resume):
    last = (earlier('old') / 'last.pth').as_posix()
    by_config = dict(resume=last) if resume == 'path' else dict(resume=True, load_from=last)
    for cfg, given in ((Config(by_config), {}), (Config(), dict(resume=last))):
        assert taken(cfg, **given) == 'work_dirs/old'
        assert (cfg.resume, cfg.load_from) == (True, last)
    Path('alone.pth').touch()
    cfg = Config(dict(resume=True, load_from='alone.pth'))
    assert taken(cfg) == 'work_dirs/exp'
    assert (cfg.resume, cfg.load_from) == (True, 'alone.pth')


def test_the_option_counts_before_the_config():
    last = (earlier('old') / 'last.pth').as_posix()
    earlier('exp')
    cfg = Config(dict(resume=True, load_from='elsewhere.pth'))
    assert taken(cfg, resume=last) == 'work_dirs/old'
    assert cfg.load_from == last


def test_where_nothing_is_to_go_on_with_the_option_is_an_error_and_the_config_begins(capsys):
    """mmengine documents that for the config, so that it can stand there from the first run on."""
    with pytest.raises(FileNotFoundError, match='no run to go on with'):
        taken(Config(), resume='auto')
    cfg = Config(dict(resume=True))
    assert taken(cfg) == 'work_dirs/exp'
    assert cfg.resume is False
    assert "resume=True: there is no run in 'work_dirs/exp' to go on with, so one begins" in capsys.readouterr().out


@pytest.mark.parametrize('cfg', [dict(resume=True, load_from='gone.pth'), dict(resume='gone.pth')])
def test_a_checkpoint_that_is_not_there_is_an_error_and_leaves_no_folder(cfg):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint file 'gone\.pth'"):
        taken(Config(cfg))
    assert not Path('work_dirs').exists()


def test_weights_alone_begin_a_run():
    earlier('exp')
    cfg = Config(dict(load_from='work_dirs/exp/last.pth', resume=False))
    assert taken(cfg) == 'work_dirs/exp2'
    assert cfg.load_from == 'work_dirs/exp/last.pth'


def test_commands_without_the_option_do_not_resume():
    """A test and an overfitting run begin anew, whatever the config says."""
    earlier('exp')
    args = argparse.Namespace(work_dir=None, overwrite=False)
    folder = take_folder(Config(dict(resume=True)), args, 'exp')
    folder.lock.release()
    assert folder.path.name == 'exp2'
