"""Signals while a training goes on: its step is finished, ``last.pth`` is written, and nothing goes on after that."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from support import ROOT
from support.line import Toy, make, validation
from support.stopping import Kill
from torch.utils.data import DataLoader

from vitdense import signals, streams
from vitdense.engine.hooks import CheckpointHook, ProgressHook, StopHook, stop
from vitdense.engine.runner import Runner
from vitdense.engine.workers import shield_workers
from vitdense.signals import Stopped


def stopped(folder: Path, kill: Kill, hook: StopHook | None = None, checkpoint: dict | None = None, **overrides) -> int:
    """The exit code of a run of three epochs of three steps that is stopped."""
    hooks = dict(checkpoint=CheckpointHook(**(checkpoint or {})), stop=hook or StopHook())
    others = overrides.pop('custom_hooks', [])
    torch.manual_seed(0)
    runner = make(Runner, folder, Toy(), hooks, custom_hooks=[*others, kill], **overrides)
    before = [signal.getsignal(number) for number in signals.ASKING]
    with pytest.raises(Stopped) as raised:
        runner.train()
    assert [signal.getsignal(number) for number in signals.ASKING] == before
    return raised.value.code


def point(path: Path) -> tuple[int, int]:
    """Epochs and iterations of a checkpoint."""
    content = torch.load(path, weights_only=True)
    assert 'optimizer' in content
    return content['meta']['epoch'], content['meta']['iter']


@pytest.fixture(autouse=True)
def _a_terminal():
    """Where the tests run under nohup, SIGHUP is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ('number', 'code'),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138), (signal.SIGHUP, 129)],
)
def test_in_the_middle_of_an_epoch(number, code, tmp_path, capfd):
    assert stopped(tmp_path, Kill(4, number)) == code
    assert point(tmp_path / 'last.pth') == (1, 4)
    assert {path.name for path in tmp_path.glob('*.pth')} == {'last.pth'}
    out, err = capfd.readouterr()
    line = out.splitlines()[-1]
    assert line.startswith(f'stopped by {"Ctrl-C" if code == 130 else signal.Signals(number).name} at iter 4/9; go on')
    assert line.endswith(f'--resume {tmp_path}/last.pth')
    assert 'the training stops after its step; once more ends it at once' in err


def test_the_weights_are_those_of_the_step(tmp_path):
    stopped(tmp_path / 'stopped', Kill(5, where='before_train_iter'))
    torch.manual_seed(0)
    whole = make(Runner, tmp_path / 'whole', Toy(), dict(checkpoint=CheckpointHook(by_epoch=False, interval=5)))
    whole.train()
    one, other = (torch.load(tmp_path / name, weights_only=True) for name in ('stopped/last.pth', 'whole/iter_5.pth'))
    assert one['state_dict'].keys() == other['state_dict'].keys()
    assert all(torch.equal(value, other['state_dict'][key]) for key, value in one['state_dict'].items())


@pytest.mark.parametrize(
    ('at', 'where', 'expected'),
    [
        (1, 'before_train_epoch', (0, 1)),  # the workers are started, the first step is not yet done
        (3, 'after_train_iter', (1, 3)),  # of the last step of an epoch, with which the epoch ends
        (1, 'after_train_epoch', (1, 3)),
        (1, 'before_save_checkpoint', (1, 3)),  # while a checkpoint is written
        (1, 'before_val_epoch', (1, 3)),
        (2, 'after_val_iter', (1, 3)),
        (1, 'after_val_epoch', (1, 4)),
    ],
)
def test_wherever_it_comes(at, where, expected, tmp_path):
    assert stopped(tmp_path, Kill(at, where=where), checkpoint=dict(interval=1), **validation()) == 143
    assert point(tmp_path / 'last.pth') == expected


def test_in_a_validation_the_weights_of_training_are_saved(tmp_path):
    """They are out of the place of their average, also where no checkpoint of the epoch was due."""
    runs = {}
    for name, kill in (('val', Kill(1, where='after_val_iter')), ('train', Kill(1, where='after_train_epoch'))):
        ema = EMAHook(momentum=0.5)
        stopped(tmp_path / name, kill, checkpoint=dict(interval=-1), custom_hooks=[ema], **validation())
        runs[name] = torch.load(tmp_path / name / 'last.pth', weights_only=True)
        assert point(tmp_path / name / 'last.pth') == (1, 3)
    for part in ('state_dict', 'ema_state_dict'):
        one, other = runs['val'][part], runs['train'][part]
        assert all(torch.equal(value, other[key]) for key, value in one.items())
    average, weights = (runs['val'][part] for part in ('state_dict', 'ema_state_dict'))
    assert not torch.equal(average['line.bias'], weights['module.line.bias'])


def test_iterations(tmp_path):
    loop = dict(by_epoch=False, max_iters=9)
    checkpoint = dict(by_epoch=False, interval=4, max_keep_ckpts=1)
    assert stopped(tmp_path, Kill(5), checkpoint=checkpoint, train_cfg=loop) == 143
    assert point(tmp_path / 'last.pth') == (0, 5)
    assert point(tmp_path / 'previous.pth') == (0, 4)
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'last.pth')


def test_accumulated_gradients_are_not_lost(tmp_path):
    wrapper = dict(optimizer=dict(type='SGD', lr=0.01), accumulative_counts=3)
    loop = dict(by_epoch=False, max_iters=9)
    stopped(tmp_path, Kill(4), optim_wrapper=wrapper, train_cfg=loop, checkpoint=dict(by_epoch=False))
    assert point(tmp_path / 'last.pth') == (0, 6)


def test_without_a_checkpoint_hook_nothing_is_saved(tmp_path, capsys):
    hooks = dict(checkpoint=None, stop=StopHook())
    with pytest.raises(Stopped):
        make(Runner, tmp_path, Toy(), hooks, custom_hooks=[Kill(3)]).train()
    assert 'nothing is saved' in capsys.readouterr().out
    assert not list(tmp_path.glob('*.pth'))


def test_a_run_that_ends_by_itself_leaves_the_signals_as_they_were(tmp_path):
    before = signal.getsignal(signal.SIGUSR1)
    make(Runner, tmp_path, Toy(), dict(checkpoint=None, stop=StopHook())).train()
    assert signal.getsignal(signal.SIGUSR1) is before


class Look(Hook):
    """Keeps what ``last.pth`` is after each step, and moves the clock by a minute."""

    def __init__(self, folder: Path, clock: list[float]) -> None:
        self.file, self.clock, self.seen = folder / 'last.pth', clock, []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.seen.append(point(self.file) if self.file.exists() else None)
        self.clock[0] += 60


@pytest.mark.parametrize(
    ('minutes', 'seen'),
    [(2, [None, None, (0, 2), (0, 2), (0, 4), (0, 4)]), (0, [None] * 6), (1.5, [None, None, (0, 2), (0, 2), (0, 4)])],
)
def test_by_the_clock(minutes, seen, tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(stop.time, 'monotonic', lambda: clock[0])
    look = Look(tmp_path, clock)
    hooks = dict(checkpoint=CheckpointHook(by_epoch=False), stop=StopHook(save_every=minutes))
    make(
        Runner, tmp_path, Toy(), hooks, custom_hooks=[look], train_cfg=dict(by_epoch=False, max_iters=len(seen))
    ).train()
    assert look.seen == seen


SECOND_SIGNAL = """
import os, signal, sys, time
from vitdense.signals import Signals, interrupt
with Signals(lambda number: None):
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # a launcher hands on what came to all
    print('goes on', flush=True)
    time.sleep(0.4)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
"""


def test_the_second_signal_ends_it_at_once():
    command = [sys.executable, '-c', SECOND_SIGNAL]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=50)
    assert (result.returncode, result.stdout, result.stderr) == (130, 'goes on\n', 'interrupted\n')


def test_the_end_of_the_terminal_comes_several_times_and_asks_once(monkeypatch):
    """The shell hands it on, then the terminal sends it; SIGTERM at the end of the session is the first of its kind."""
    clock, got = [0.0], []
    monkeypatch.setattr(signals.time, 'monotonic', lambda: clock[0])
    monkeypatch.setattr(signals, 'end', lambda number: got.append(('end', number)))
    received = signals.Signals(got.append, signals.ASKING)
    received.__enter__()
    try:
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            clock[0] += 1
            os.kill(os.getpid(), number)
        assert (received.number, got) == (signal.SIGHUP, [signal.SIGHUP])
        clock[0] += 1
        os.kill(os.getpid(), signal.SIGTERM)
        assert got == [signal.SIGHUP, ('end', signal.SIGTERM)]
    finally:
        received.release()


class Ready(Hook):
    """Shows at a step that it is there, and waits for the end of the terminal."""

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == 3:
            print('ready', flush=True)
            while not signals.RECEIVED:
                time.sleep(0.01)


def train_in_a_terminal(folder: Path) -> int:
    sys.stdout = sys.__stdout__ = os.fdopen(1, 'w', closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, 'w', closefd=False)
    streams.outlast()
    signals.RECEIVED.clear()
    kept = dict(checkpoint=CheckpointHook(), stop=StopHook(), progress=ProgressHook())
    try:
        make(Runner, folder, Toy(), kept, custom_hooks=[Ready()]).train()
    except Stopped as stopped:
        print('nobody reads this')
        sys.stdout.flush()
        return stopped.code
    return 0


def test_a_training_whose_terminal_is_closed(tmp_path):
    child, terminal = pty.fork()
    if child == 0:
        code = 1
        try:
            code = train_in_a_terminal(tmp_path)
        finally:
            os._exit(code)
    shown = b''
    while b'ready' not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 129
    assert point(tmp_path / 'last.pth') == (1, 4)
    [log] = tmp_path.glob('*/*.log')
    assert 'stopped by SIGHUP at iter 4/9; go on with' in log.read_text()


def test_the_end_of_the_terminal_is_ignored_after_nohup():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with signals.Signals(signals.interrupt, signals.ASKING):
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_child_that_was_forked_ends_by_itself():
    ready, begin = os.pipe()
    with signals.Signals(lambda number: None) as received:
        child = os.fork()
        if child == 0:
            try:
                os.write(begin, b'x')
                while True:
                    signal.pause()
            finally:
                os._exit(1)
        os.read(ready, 1)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 143
    assert received.number is None


@pytest.mark.slow
def test_workers_are_ended_by_their_process_alone():
    """A terminal, a scheduler and torchrun signal all processes of a run."""
    loader = DataLoader(list(range(8)), num_workers=1)
    shield_workers(loader)
    batches = iter(loader)
    assert next(batches) == 0
    [worker] = batches._workers
    for name in ('-TERM', '-INT', '-USR1'):
        subprocess.run(['kill', name, str(worker.pid)], check=True)
    assert [int(batch) for batch in batches] == list(range(1, 8))
    batches = iter(loader)
    next(batches)
    [worker] = batches._workers
    os.kill(worker.pid, signal.SIGTERM)
    worker.join(10)
    assert worker.exitcode == 0


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ('python tools/train.py a.py', 'python tools/train.py a.py --resume work/last.pth'),
        ('python -m vitdense train a.py', 'python -m vitdense train a.py --resume work/last.pth'),
        ('/venv/bin/python /venv/bin/vitdense train a.py', 'vitdense train a.py --resume work/last.pth'),
        ('python train.py a.py --overwrite --seed 1', 'python train.py a.py --seed 1 --resume work/last.pth'),
        ('python train.py --resume x.pth a.py', 'python train.py a.py --resume work/last.pth'),
        ('python train.py a.py --resume --amp', 'python train.py a.py --amp --resume work/last.pth'),
    ],
)
def test_the_command_that_goes_on(given, expected, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'orig_argv', given.split(' '))
    assert stop.command_to_resume(tmp_path / 'work/last.pth') == expected


def test_the_command_of_several_processes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'orig_argv', ['python', '-u', 'train.py', 'my config.py'])
    for name, value in dict(TORCHELASTIC_RUN_ID='x', LOCAL_WORLD_SIZE='2', WORLD_SIZE='2').items():
        monkeypatch.setenv(name, value)
    command = stop.command_to_resume(Path('/runs/last.pth'))
    assert command == "torchrun --standalone --nproc-per-node=2 train.py 'my config.py' --resume /runs/last.pth"
