"""Which folder a run takes, and what it goes on from: by ``--resume`` and by ``resume`` in a config."""

import argparse
import json
import os
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from vitdense.commands.prepare import check_resumed, take_folder
from vitdense.engine.recipe import recipe_of
from vitdense.engine.run_folder import ABOUT, RunFolder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(**given) -> argparse.Namespace:
    return argparse.Namespace(**dict(config='exp.py', work_dir=None, overwrite=False, resume=None) | given)


def taken(cfg: Config, **given) -> str:
    folder = take_folder(cfg, options(**given), 'exp')
    folder.lock.release()
    return folder.path.as_posix()


def earlier(name: str, config: str = 'exp', **meta) -> Path:
    """A run that has written a checkpoint."""
    folder = Path('work_dirs', name)
    RunFolder.fresh(str(folder), config=config).lock.release()
    known = json.loads((folder / ABOUT).read_text())
    (folder / ABOUT).write_text(json.dumps(known | dict(folder=re.sub(r'_run\d+$', '', name))))
    save(folder / 'last.pth', **meta)
    return folder


def save(path: Path, iteration: int = 8, **meta) -> None:
    state = dict(state_dict=dict(w=torch.ones(3)), optimizer={}, message_hub={})
    torch.save(dict(state, meta=dict(epoch=1, iter=iteration, time=f'2026_{iteration:04}', **meta)), path)


BY_OPTION, BY_CONFIG = (dict(), dict(resume='auto')), (dict(resume=True), dict())


@pytest.mark.parametrize(('cfg', 'given'), [BY_OPTION, BY_CONFIG])
def test_the_last_run_is_gone_on_with_in_its_folder(cfg, given):
    earlier('exp'), earlier('exp_run2')
    Path('work_dirs/exp_run3').mkdir()
    config = Config(cfg)
    assert taken(config, **given) == 'work_dirs/exp_run2'
    assert (config.resume, config.load_from) == (True, 'work_dirs/exp_run2/last.pth')


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
    assert taken(cfg) == 'work_dirs/exp_run2'
    assert cfg.load_from == 'work_dirs/exp/last.pth'


def test_commands_without_the_option_do_not_resume():
    """A test and an overfitting run begin anew, whatever the config says."""
    earlier('exp')
    args = argparse.Namespace(work_dir=None, overwrite=False)
    folder = take_folder(Config(dict(resume=True)), args, 'exp')
    folder.lock.release()
    assert folder.path.name == 'exp_run2'


@pytest.mark.parametrize('given', [dict(), dict(work_dir='work_dirs/exp'), dict(overwrite=True)])
def test_a_checkpoint_of_the_folder_that_is_named_is_gone_on_from_in_it(given):
    last = (earlier('exp_run2') / 'last.pth').as_posix()
    cfg = Config()
    assert taken(cfg, resume=last, **given) == 'work_dirs/exp_run2'
    assert Path(last).is_file()
    assert taken(Config(), resume=last, work_dir='work_dirs/other') == 'work_dirs/other'


def test_a_damaged_last_checkpoint_is_put_aside(capsys):
    folder = earlier('exp')
    save(folder / 'previous.pth', 4)
    os.truncate(folder / 'last.pth', 300)
    cfg = Config()
    assert taken(cfg, resume='auto') == 'work_dirs/exp'
    assert cfg.load_from == 'work_dirs/exp/previous.pth'
    said = capsys.readouterr().out
    assert '--resume: last.pth is truncated' in said
    assert 'The run goes on from previous.pth (epoch 1, iter 4), the newest checkpoint that is whole' in said
    assert {path.name for path in folder.glob('*.pth')} == {'previous.pth', 'unused.pth'}


def test_no_whole_checkpoint_gives_the_folder_free():
    folder = earlier('exp')
    os.truncate(folder / 'last.pth', 300)
    with pytest.raises(ValueError, match=r'no whole checkpoint in work_dirs/exp: last\.pth is truncated'):
        taken(Config(), resume='auto')
    RunFolder(folder).lock.release()


MODEL = Config(dict(model=dict(type='A', depth=3), optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1))))


def test_other_settings_are_told_before_anything_is_written():
    folder = earlier('exp', recipe=recipe_of(MODEL, 1))
    cfg = Config(dict(MODEL, load_from=str(folder / 'last.pth')))
    check_resumed(cfg, False, 'exp')
    cfg.optim_wrapper.optimizer.lr = 0.2
    with pytest.raises(
        ValueError, match=r'learning rate +optim_wrapper\.optimizer\.lr: 0\.1 -> 0\.2\n--accept-changes'
    ):
        check_resumed(cfg, False, 'exp')
    check_resumed(cfg, True, 'exp')


def test_the_folder_of_another_config_is_told():
    folder = earlier('exp', 'exp')
    cfg = Config(dict(MODEL, load_from=str(folder / 'last.pth')))
    with pytest.raises(ValueError, match=r'config +exp -> other'):
        check_resumed(cfg, False, 'other')


def test_a_damaged_checkpoint_that_was_named_is_refused_with_another_one():
    folder = earlier('exp')
    save(folder / 'previous.pth', 4)
    os.truncate(folder / 'last.pth', 300)
    cfg = Config(dict(MODEL, load_from=str(folder / 'last.pth')))
    with pytest.raises(
        ValueError, match=r'--resume: checkpoint .*last\.pth is truncated.*beside it there is previous\.pth'
    ):
        check_resumed(cfg, False, 'exp')
