"""An end of the training that somebody asks for, and checkpoints by the clock."""

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import torch
from mmengine.dist import all_reduce, barrier, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner

from vitdense.console import say
from vitdense.engine.workers import shield_workers
from vitdense.registry import HOOKS
from vitdense.signals import ASKING, Signals, Stopped, name_of, write

from .checkpoint import LAST, CheckpointHook

SECOND = 1.0
"""Several processes ask each other once in this time whether one of them was asked to stop, not at every step."""


@HOOKS.register_module()
class StopHook(Hook):
    """Ends the training after its step when SIGTERM, Ctrl-C or SIGUSR1 asks for it, and saves ``last.pth`` before.

    Of several processes it is enough that one is asked: they agree on the step. With accumulated gradients it is one
    that updates the weights. A validation is left at once, because ``last.pth`` is written before it.
    A second signal ends the process at once. Exit codes are those of shells: 143 after SIGTERM, 130 after Ctrl-C.

    Args:
        save_every: minutes after which ``last.pth`` is written again, so that what kills the process costs no more; 0
            leaves that to :class:`CheckpointHook`.

    Raises:
        Stopped: when it ends the training.
    """

    priority = 'LOWEST'  # when all that belongs to a step is done

    def __init__(self, save_every: float = 15) -> None:
        self.save_every = save_every
        self._signals: Signals | None = None
        self._checkpoints: CheckpointHook | None = None

    def before_train(self, runner: Runner) -> None:
        self._checkpoints = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                shield_workers(loop.dataloader)
        self._saved, self._point = time.monotonic(), self._checkpoints and self._checkpoints.saved
        self._asked, self._asked_at, self._next = time.monotonic(), runner.iter, 0
        self._signals = Signals(_acknowledge, ASKING)
        self._signals.__enter__()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        by_iterations = isinstance(runner.train_loop, IterBasedTrainLoop)
        if not by_iterations and batch_idx + 1 == len(runner.train_dataloader):
            return  # the epoch ends
        if _updates(runner):
            self._look(runner, runner.epoch, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            self._look(runner, runner.epoch + 1, runner.iter, now=True)

    def before_val(self, runner: Runner) -> None:
        if self._signals is None:
            return  # a validation alone
        if self._checkpoints:  # averaged weights are not yet in the place of the others
            self._checkpoints.save_now(runner, runner.epoch, runner.iter)
        self._look(runner, runner.epoch, runner.iter, now=True)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self._signals and self._signals.number is not None:
            self._leave(runner, self._signals.number, agreed=False)

    def after_train(self, runner: Runner) -> None:
        self.release()

    def release(self) -> None:
        """Leave the signals to what handled them before the training."""
        if self._signals:
            self._signals.release()
            self._signals = None

    def _look(self, runner: Runner, epoch: int, iteration: int, now: bool = False) -> None:
        """Stop or save, if it is time to; ``now`` asks the other processes in any case."""
        number, due = self._agree(iteration, now)
        if not number and not due:
            return
        if self._checkpoints:
            self._checkpoints.save_now(runner, epoch, iteration)
            self._saved, self._point = time.monotonic(), self._checkpoints.saved
        if number:
            self._leave(runner, number)

    def _agree(self, iteration: int, now: bool) -> tuple[int, bool]:
        """What all processes are to do after this iteration: the signal to stop for, or 0, and whether to save."""
        number = self._signals.number or 0 if self._signals else 0
        if get_world_size() == 1:
            return number, self._is_due()
        if not now and iteration < self._next:
            return 0, False
        seconds = max(time.monotonic() - self._asked, 1e-6)
        steps = max(1, int((iteration - self._asked_at) * SECOND / seconds))
        message = torch.tensor([number, is_main_process() and self._is_due(), steps])
        all_reduce(message, 'max')
        number, due, steps = message.tolist()
        self._asked, self._asked_at, self._next = time.monotonic(), iteration, iteration + steps
        return number, bool(due)

    def _is_due(self) -> bool:
        if not self._checkpoints or not self.save_every:
            return False
        if self._point != self._checkpoints.saved:
            self._point, self._saved = self._checkpoints.saved, time.monotonic()
        return time.monotonic() - self._saved >= 60 * self.save_every

    def _leave(self, runner: Runner, number: int, agreed: bool = True) -> NoReturn:
        if self._checkpoints and self._checkpoints.saved:
            where = f'iter {self._checkpoints.saved[1]}/{runner.max_iters}'
            what = f'go on with: {command_to_resume(Path(runner.work_dir, LAST))}'
        else:
            where, what = (
                f'iter {runner.iter}/{runner.max_iters}',
                'nothing is saved, there is no vitdense.CheckpointHook',
            )
        say(f'stopped by {name_of(number)} at {where}; {what}')
        self.release()
        if agreed:
            barrier()  # a launcher ends the others when one of them has ended
        raise Stopped(number)


def command_to_resume(checkpoint: Path) -> str:
    """The command that started this process, such that it goes on from ``checkpoint``."""
    program, *given = sys.orig_argv
    start = [program]
    if given and Path(given[0]).name == 'vitdense':
        start, given = ['vitdense'], given[1:]
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        here = os.environ['LOCAL_WORLD_SIZE']
        alone = here == os.environ['WORLD_SIZE']
        start = ['torchrun', *(['--standalone', f'--nproc-per-node={here}'] if alone else ['...'])]
        given = given[given[:1] == ['-u'] :]
    given = [word for word in given if word not in ('--overwrite', '--accept-changes')]
    if '--resume' in given:
        place = given.index('--resume')
        value = place + 1 < len(given) and not given[place + 1].startswith('-')
        del given[place : place + 1 + value]
    name = os.path.relpath(checkpoint)
    return shlex.join([*start, *given, '--resume', str(checkpoint) if name.startswith('..') else name])


def _updates(runner: Runner) -> bool:
    """Whether the step has updated the weights, instead of having its gradients added to those of the next."""
    wrapper = runner.optim_wrapper
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return all(one.should_update() for one in wrappers)


def _acknowledge(number: int) -> None:
    if is_main_process():
        write(f'{name_of(number)}: the training stops after its step; once more ends it at once')
