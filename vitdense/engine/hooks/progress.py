"""The console while a run goes on: a live bar on a terminal, plain lines elsewhere, and a row at each validation."""

import time
from numbers import Real
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from vitdense.console import CONSOLE, say
from vitdense.engine.log_processor import duration, position
from vitdense.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """Shows where a run is.

    Args:
        interval: training steps between two lines where stdout is no terminal; short epochs get one line.
        seconds: least time between two lines of a validation or test.
    """

    priority = 'BELOW_NORMAL'  # after mmengine's timer, whose times it shows

    def __init__(self, interval: int = 50, seconds: float = 20.0) -> None:
        self.interval = interval
        self.seconds = seconds
        self.bar: Progress | None = None

    def before_run(self, runner: Runner) -> None:
        self.started = self.shown = time.monotonic()

    def before_train(self, runner: Runner) -> None:
        if is_main_process() and CONSOLE.is_interactive and self.bar is None:
            self.bar = Progress(
                TextColumn('{task.description}'),
                BarColumn(24),
                MofNCompleteColumn(),
                TextColumn('{task.fields[text]}'),
                console=CONSOLE,
                transient=True,
            )
            self.bar.add_task('', text='')
            self.bar.start()

    before_test = before_train

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        by_epoch = runner.log_processor.by_epoch
        steps, done = (len(runner.train_dataloader), batch_idx + 1) if by_epoch else (runner.max_iters, runner.iter + 1)
        ends = done == steps
        if self.bar:
            if ends or self._is_due(0.5):
                head, _, text = self._train_line(runner, batch_idx).partition('  ')
                _move(self.bar, head, done, steps, text)
        elif done % self.interval == 0 or (ends and steps < self.interval):
            say(self._train_line(runner, batch_idx))

    @staticmethod
    def _train_line(runner: Runner, batch_idx: int) -> str:
        return runner.log_processor.get_log_after_iter(runner, batch_idx, 'train')[1]

    def before_val_epoch(self, runner: Runner) -> None:
        self.shown = time.monotonic()

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._evaluation_step('val', batch_idx + 1, len(runner.val_dataloader))

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._evaluation_step('test', batch_idx + 1, len(runner.test_dataloader))

    def _evaluation_step(self, name: str, done: int, steps: int) -> None:
        if self.bar and (done == steps or self._is_due(0.5)):
            _move(self.bar, name, done, steps, '')
        elif not self.bar and self._is_due(self.seconds):
            say(f'{name} {done}/{steps}')

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        scalars = {key.rpartition('/')[2]: value for key, value in (metrics or {}).items() if isinstance(value, Real)}
        row = '  '.join(f'{key} {value:.4g}' for key, value in scalars.items())
        where = f' {position(runner)}' if isinstance(runner._train_loop, BaseLoop) else ''
        say(f'val{where}  {duration(time.monotonic() - self.started)}  {row or "no metrics"}')

    def after_run(self, runner: Runner) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None

    def _is_due(self, seconds: float) -> bool:
        now = time.monotonic()
        if now - self.shown < seconds:
            return False
        self.shown = now
        return True


def _move(bar: Progress, name: str, done: int, steps: int, text: str) -> None:
    bar.update(bar.task_ids[0], description=name, completed=done, total=steps, text=text)
