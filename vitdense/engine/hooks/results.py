"""The course of a training as a table and as a picture."""

import csv
import os
import re
import time
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from vitdense.evaluation.main_metric import number
from vitdense.files import replacing
from vitdense.registry import HOOKS
from vitdense.visualization.curves import draw_curves

from .output import Harmless, Occasional

Row = dict[str, float]

FIRST = ('epoch', 'iter', 'seconds')

RESULTS = 'results'
"""In the message hub, which checkpoints hold: the rows so far, and the losses since the last one."""


@HOOKS.register_module()
class ResultsHook(Hook):
    """Writes ``results.csv`` and draws it as ``results.png``, in the work dir.

    A row has the epoch (empty where training goes by iterations), the iterations done, the seconds of training and
    validation so far, the learning rate of the last iteration, the mean of each loss term since the row before, and the
    metrics of the validation. There is one for each epoch and each validation, and one at the end. A resumed run goes
    on with the table that it finds and, where rows are missing there, with that of its checkpoint; rows after the
    iteration that it resumes from are dropped. With another batch size than before, iterations of the rows before are
    counted in the present one. A run from the start moves a table that is there to ``results_1.csv``
    and so on. Losses come from the first process.
    """

    priority = 'LOW'  # after the metrics of a validation are complete, before the checkpoint

    def __init__(self) -> None:
        self._rows: list[Row] | None = None
        self._sums: dict[str, list[float]] = {}  # of each loss term since the last row, and of how many iterations
        self._start = self._seconds = 0.0
        self._occasional = Occasional()
        self._harmless = Harmless()

    def before_train(self, runner: Runner) -> None:
        if not is_main_process():
            return
        self._start = time.perf_counter()
        with self._harmless(runner, 'Reading results.csv'):
            resumed = runner.iter and getattr(runner, 'resumed_iter', runner.iter)
            self._rows = resumed_rows(Path(runner.work_dir, 'results.csv'), resumed)
            if resumed and (saved := runner.message_hub.get_info(RESULTS)):
                rows = {row['iter']: row for row in saved['rows']}
                rows |= {row['iter']: {**rows.get(row['iter'], {}), **row} for row in self._rows}
                self._rows, self._sums = [rows[key] for key in sorted(rows)], saved['sums']
            if resumed != runner.iter:
                _recount(self._rows, len(runner.train_dataloader))
            self._seconds = self._rows[-1].get('seconds', 0.0) if self._rows else 0.0
        if self._rows is not None:
            runner.message_hub.update_info(RESULTS, dict(rows=self._rows, sums=self._sums))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        """Add the losses, which mmengine has fetched from the device for the log; those of a skipped step count 0."""
        if self._rows is None:
            return
        history = runner.message_hub.log_scalars
        for key in outputs or {}:
            if 'loss' in key and (log := history.get(f'train/{key}')) is not None:
                total = self._sums.setdefault(f'train/{key}', [0.0, 0])
                values, counts = log.data
                total[0] += float(values[-1])
                total[1] += int(counts[-1])

    def after_train_epoch(self, runner: Runner) -> None:
        if _by_epoch(runner):
            self._add(runner, runner.epoch + 1, {})

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._add(runner, runner.epoch, metrics or {})

    def after_train(self, runner: Runner) -> None:
        self._add(runner, runner.epoch, {})
        self._draw(runner)

    def _add(self, runner: Runner, epoch: int, metrics: dict) -> None:
        """Add a row, or the metrics to the row of this iteration."""
        if self._rows is None:
            return
        last = self._rows[-1]['iter'] if self._rows else -1
        if last < runner.iter:
            row: Row = {'epoch': epoch} if _by_epoch(runner) else {}
            row |= {'iter': runner.iter, **_rates(runner), **self._means()}
            self._rows.append(row)
        elif not metrics:
            return
        row = self._rows[-1]
        row['seconds'] = self._seconds + time.perf_counter() - self._start
        row |= {f'val/{key}': found for key, value in metrics.items() if (found := number(value)) is not None}
        with self._harmless(runner, 'Writing results.csv'):
            write_rows(Path(runner.work_dir, 'results.csv'), self._rows)
        if self._occasional.due():
            self._draw(runner)

    def _draw(self, runner: Runner) -> None:
        if self._rows:
            path = Path(runner.work_dir, 'results.png')
            with self._harmless(runner, 'Drawing results.png'), self._occasional.timed(), replacing(path) as part:
                draw_curves(self._rows, runner.experiment_name).savefig(part)

    def _means(self) -> Row:
        """Mean of each loss term since the last call."""
        means = {key: total / count for key, (total, count) in self._sums.items() if count}
        self._sums.clear()
        return means


def resumed_rows(path: Path, iteration: int) -> list[Row]:
    """Rows of the table at ``path`` up to ``iteration``, where training goes on.

    A table that cannot be gone on with, because training starts anew or it is no such table, is moved to the next free
    ``NAME_1.csv``.
    """
    if not path.exists():
        return []
    try:
        rows = read_rows(path)
    except ValueError:
        rows = []
    rows = [row for row in rows if iteration and row['iter'] <= iteration]
    if not rows:
        number = 1
        while (moved := path.with_name(f'{path.stem}_{number}{path.suffix}')).exists():
            number += 1
        os.replace(path, moved)
    return rows


def _recount(rows: list[Row], steps: int) -> None:
    """Count iterations in epochs of ``steps``, where those before were of another batch."""
    last = 0
    for row in rows:
        row['iter'] = last = max(int(row.get('epoch', 0)) * steps, last + 1)


def read_rows(path: Path) -> list[Row]:
    """Rows of a ``results.csv``; what is empty there is missing here.

    Raises:
        ValueError: no such table.
    """
    with open(path, newline='', encoding='utf-8') as file:
        table = csv.DictReader(file)
        if 'iter' not in (table.fieldnames or ()):
            raise ValueError(f'{path}: expected a table with a column "iter", found the columns {table.fieldnames}')
        try:
            return [{key: float(value) for key, value in row.items() if value} for row in table if row['iter']]
        except (TypeError, ValueError) as error:
            raise ValueError(f'{path}, line {table.line_num}: expected numbers, found {error}') from error


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write the table, whole or not at all, with a column for each key that any row has."""
    columns = {key: None for row in rows for key in row}
    order = sorted(columns, key=lambda key: (key not in FIRST, key.startswith('val/'), key.startswith('train/')))
    with replacing(path) as part, open(part, 'w', newline='', encoding='utf-8') as file:
        table = csv.DictWriter(file, order)
        table.writeheader()
        table.writerows({key: _text(key, value) for key, value in row.items()} for row in rows)


def _text(key: str, value: float) -> str:
    return f'{value:.0f}' if key in ('epoch', 'iter') else f'{value:.1f}' if key == 'seconds' else f'{value:.6g}'


def _by_epoch(runner: Runner) -> bool:
    return not isinstance(runner.train_loop, IterBasedTrainLoop)


def _rates(runner: Runner) -> Row:
    """Learning rate of the last iteration, for each optimizer; of several groups that to which their factors apply."""
    rates = {}
    for key, log in runner.message_hub.log_scalars.items():
        if match := re.fullmatch(r'train/(.+\.)?(base_)?lr', key):
            name = f'{match[1] or ""}lr'
            if match[2] or name not in rates:
                rates[name] = float(log.current())
    return rates
