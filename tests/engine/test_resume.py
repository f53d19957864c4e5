"""A run that is killed anywhere and goes on ends as if it had never been killed: its files are compared bit by bit."""

import os
import signal
import time
from functools import partial
from multiprocessing import Process, get_context
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim.optimizer import amp_optimizer_wrapper
from support.resumed import IMAGES, Kill, KilledError, largest_difference, make_cfg, rows_of, states_of, train
from support.small import make_data

from vitdense.checkpoint.read import read
from vitdense.commands import main
from vitdense.config.runtime import use_runtime
from vitdense.engine.hooks.results import ResultsHook

ITERATIONS = dict(by_epoch=False, max_iters=10, val_interval=4)
EACH_5 = dict(interval=5, by_epoch=False)
EACH_3 = dict(interval=3, by_epoch=False)
BF16 = dict(type='AmpOptimWrapper', dtype='bfloat16')
SCALED = BF16 | dict(loss_scale=dict(init_scale=1024.0, growth_interval=2))


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('resume') / 'data'
    make_data(folder, IMAGES)
    return folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch) -> None:
    """Formatting the config and drawing curves take longer than the training."""
    monkeypatch.setattr(Config, 'pretty_text', '')
    monkeypatch.setattr(ResultsHook, '_draw', lambda hook, runner: None)


@pytest.fixture(autouse=True)
def _amp_on_cpus(monkeypatch) -> None:
    """mmengine's wrapper asks for a GPU; PyTorch does not."""
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', partial(torch.amp.GradScaler, 'cpu'))


@pytest.fixture(scope='module')
def uninterrupted(data, tmp_path_factory):
    """Folder of a run that was not killed, and that has no workers: who loads the images changes nothing."""
    folders = {}

    def run(**settings) -> Path:
        of_loading = ('workers', 'persistent', 'checkpoint')
        settings = {key: value for key, value in settings.items() if key not in of_loading}
        key = repr(settings)
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp('whole')
            train(make_cfg(data, **settings), folders[key])
        return folders[key]

    return run


def killed(cfg: Config, folder: Path, kill: Kill, resume: str) -> None:
    """Train, be killed, and go on."""
    with pytest.raises(KilledError):
        train(cfg, folder, kill)
    train(cfg, folder, resume=resume)


def equal(whole: Path, resumed: Path) -> None:
    expected, found = states_of(whole / 'last.pth'), states_of(resumed / 'last.pth')
    assert expected['state_dict']
    assert expected['optimizer']['state']
    assert largest_difference(expected, found)[0] == 0, largest_difference(expected, found)[1]
    assert rows_of(whole) == rows_of(resumed)


CELLS = {
    'detector, saved at the end of an epoch, no EMA': (dict(ema=False), Kill(7), 'epoch_1.pth'),
    'detector, saved in mid-epoch': (dict(checkpoint=EACH_5, workers=2), Kill(7), 'iter_5.pth'),
    'detector, saved at the last step of an epoch': (
        dict(checkpoint=dict(interval=4, by_epoch=False), workers=1), Kill(6), 'iter_4.pth',
    ),
    'detector, persistent workers': (dict(workers=2, persistent=True), Kill(6), 'epoch_1.pth'),
    'detector, persistent workers, mid-epoch': (
        dict(checkpoint=EACH_3, workers=1, persistent=True), Kill(7), 'iter_6.pth',
    ),
    'detector, accumulation over the end of an epoch': (
        dict(wrapper=dict(accumulative_counts=3), workers=1), Kill(6), 'epoch_1.pth',
    ),
    'detector, iterations': (dict(loop=ITERATIONS, checkpoint=EACH_3, workers=2), Kill(5), 'iter_3.pth'),
    'detector, iterations, a sampler that ends': (
        dict(loop=ITERATIONS, checkpoint=EACH_3, workers=1, sampler=dict(type='DefaultSampler', shuffle=True)),
        Kill(7), 'iter_6.pth',
    ),
    'segmentor, saved at the end of an epoch': (dict(seg=True, workers=1), Kill(7), 'epoch_1.pth'),
    'segmentor, mid-epoch, bf16': (dict(seg=True, checkpoint=EACH_5, wrapper=BF16), Kill(7), 'iter_5.pth'),
    'segmentor, mid-epoch, accumulation': (
        dict(seg=True, checkpoint=EACH_5, wrapper=dict(accumulative_counts=2), workers=2), Kill(8), 'iter_5.pth',
    ),
    'segmentor, iterations': (
        dict(seg=True, loop=ITERATIONS, checkpoint=EACH_3, workers=2, persistent=True), Kill(8), 'iter_6.pth',
    ),
    'segmentor, iterations, bf16 with a scale of the loss, accumulation': (
        dict(seg=True, loop=ITERATIONS, checkpoint=EACH_5, wrapper=SCALED | dict(accumulative_counts=2)),
        Kill(6), 'iter_5.pth',
    ),
}  # fmt: skip
"""Name -> what the run has, where it is killed, the checkpoint that it goes on from."""


@pytest.mark.slow
@pytest.mark.parametrize('cell', CELLS)
def test_a_killed_run_ends_as_one_that_was_not(cell, data, uninterrupted, tmp_path):
    settings, kill, resume = CELLS[cell]
    killed(make_cfg(data, **settings), tmp_path, kill, resume)
    equal(uninterrupted(**settings), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('stage', 'seg'),
    [
        ('after_train_epoch', False),
        ('before_val', True),
        ('after_val_iter', False),
        ('after_val', False),
        ('after_val', True),
    ],
)
def test_killed_around_a_validation(stage, seg, data, uninterrupted, tmp_path):
    """Between the checkpoint of an epoch and its validation, in it, after it; the validation is in the table once."""
    killed(make_cfg(data, seg=seg, workers=1), tmp_path, Kill(4, stage), 'last.pth' if seg else 'epoch_1.pth')
    equal(uninterrupted(seg=seg), tmp_path)
    assert [row['iter'] for row in rows_of(tmp_path)] == [4, 8]


def work(rank: int, home: Path, data: Path) -> None:
    """One of two processes: train, be killed, go on."""
    os.environ['LOCAL_RANK'] = str(rank)
    torch.distributed.init_process_group('gloo', f'file://{home}/store', rank=rank, world_size=2)
    cfg = make_cfg(
        data, seg=True, workers=1, checkpoint=EACH_5, wrapper=dict(accumulative_counts=3), launcher='pytorch',
        model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None),
    )  # fmt: skip
    cfg.train_dataloader.batch_size = 1
    train(cfg, home / 'whole')
    killed(cfg, home / 'killed', Kill(7), 'iter_5.pth')
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes(data, tmp_path):
    """Each has gradients of its own that wait for a step, and statistics of batch norms of its own."""
    torch.multiprocessing.start_processes(work, (tmp_path, data), nprocs=2, start_method='fork')
    equal(tmp_path / 'whole', tmp_path / 'killed')
    one, other = read(tmp_path / 'killed/iter_5.pth')['rank_states']
    for kind in ('gradients', 'buffers'):
        assert largest_difference(one[kind], other[kind])[0] > 0


def early(data: Path, patience: int) -> Config:
    stop = dict(type='EarlyStoppingHook', monitor='mDice', min_delta=1000.0, patience=patience)
    cfg = make_cfg(data, seg=True, loop=dict(by_epoch=True, max_epochs=5))
    cfg.custom_hooks = [stop]
    use_runtime(cfg)
    return cfg


@pytest.mark.slow
def test_an_early_stop_comes_where_it_would_have_come(data, tmp_path, capsys):
    train(early(data, 2), tmp_path / 'whole')
    killed(early(data, 2), tmp_path / 'killed', Kill(10), 'epoch_2.pth')
    equal(tmp_path / 'whole', tmp_path / 'killed')
    assert [row['epoch'] for row in rows_of(tmp_path / 'killed')] == [1, 2, 3]
    capsys.readouterr()
    assert train(early(data, 2), tmp_path / 'killed', resume='last.pth').epoch == 3, 'it had stopped'
    assert 'mDice has not risen by 1000 from its best' in capsys.readouterr().out
    assert train(early(data, 3), tmp_path / 'killed', resume='last.pth').epoch == 4, 'a greater patience'


@pytest.mark.slow
def test_a_real_kill_of_the_tool_without_a_seed(data, tmp_path, monkeypatch):
    """The seed is drawn; a kill -9 comes at any moment after a checkpoint; --resume finds checkpoint and seed."""
    monkeypatch.chdir(tmp_path)
    loop = dict(by_epoch=True, max_epochs=4)
    make_cfg(data, seed=None, workers=1, loop=loop, checkpoint=dict(interval=2, by_epoch=False)).dump('tiny.json')

    def tool(folder: str, *options: str) -> Process:
        process = get_context('fork').Process(
            target=main, args=('train', ['tiny.json', '--work-dir', folder, '--check', 'off', *options])
        )
        process.start()
        return process

    process = tool('killed')
    while not (tmp_path / 'killed/last.pth').exists():
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    last = read(tmp_path / 'killed/last.pth')['meta']
    assert last['iter'] < 16
    for process in (tool('killed', '--resume'), tool('whole', '--seed', str(last['seed']))):
        process.join()
        assert process.exitcode == 0
    equal(tmp_path / 'whole', tmp_path / 'killed')
