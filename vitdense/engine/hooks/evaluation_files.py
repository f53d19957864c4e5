"""What an evaluation found, class by class, as files and as a table for the console."""

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich import box
from rich.table import Table

from vitdense.evaluation import EvaluationReport
from vitdense.files import replacing
from vitdense.registry import HOOKS
from vitdense.untrusted.text import cell, visible
from vitdense.visualization.plots import draw_confusion_matrix, draw_per_class, draw_pr_curves

from .output import Harmless, Occasional

TASKS = {'bbox': 'boxes', 'segm': 'masks'}


@HOOKS.register_module()
class EvaluationFilesHook(Hook):
    """Writes the metrics' reports of the last validation or test into the work dir.

    After each: ``per_class.csv``. After the last, and before it as often as that takes under 0.3 % of the time:
    ``per_class.png``, ``confusion_matrix.png`` and for detection ``pr_curves.png``. A metric of boxes and masks has a
    second report, which is in ``per_class_segm.csv`` and so on. A second metric with a report gets
    ``per_class_2.csv``; metrics without one are left alone.
    """

    priority = 'LOW'  # after the metrics of a validation are complete, before the checkpoint

    def __init__(self) -> None:
        self._reports: list[tuple[EvaluationReport, str]] = []
        self._drawn = True
        self._occasional = Occasional()
        self._harmless = Harmless()

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._write(runner, runner.val_evaluator)
        if self._occasional.due():
            self._draw(runner)

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._write(runner, runner.test_evaluator)
        self._draw(runner)

    def after_train(self, runner: Runner) -> None:
        self._draw(runner)

    def _write(self, runner: Runner, evaluator: Evaluator) -> None:
        if not is_main_process():
            return
        self._reports = reports_of(evaluator)
        self._drawn = False
        for report, suffix in self._reports:
            with self._harmless(runner, 'Writing per_class.csv'):
                write_per_class(Path(runner.work_dir, f'per_class{suffix}.csv'), report)

    def _draw(self, runner: Runner) -> None:
        if self._drawn:
            return
        self._drawn = True
        with self._occasional.timed():
            for report, suffix in self._reports:
                for name, draw in pictures_of(report).items():
                    path = Path(runner.work_dir, f'{name}{suffix}.png')
                    with self._harmless(runner, f'Drawing {name}.png'), replacing(path) as part:
                        draw(report).savefig(part)


def reports_of(evaluator: Evaluator) -> list[tuple[EvaluationReport, str]]:
    """Reports of the last evaluation, from the metrics that make some, and the end of the names of their files."""
    found = (getattr(metric, 'reports', [getattr(metric, 'report', None)]) for metric in evaluator.metrics)
    kept = ([report for report in reports if isinstance(report, EvaluationReport)] for reports in found)
    return [
        (report, (f'_{number}' if number > 1 else '') + (f'_{report.task}' if i else ''))
        for number, reports in enumerate(filter(None, kept), 1)
        for i, report in enumerate(reports)
    ]


def pictures_of(report: EvaluationReport) -> dict[str, Callable[[EvaluationReport], Figure]]:
    """File names without suffix, and what draws them."""
    curves = {'pr_curves': draw_pr_curves} if report.curves else {}
    return {'per_class': draw_per_class, 'confusion_matrix': draw_confusion_matrix, **curves}


def write_per_class(path: Path, report: EvaluationReport) -> None:
    """Write a table with a row a class; what the data set cannot tell is empty."""
    with replacing(path) as part, open(part, 'w', newline='', encoding='utf-8') as file:
        table = csv.writer(file)
        table.writerow(['class', *report.columns])
        for name, row in report.per_class.items():
            table.writerow([visible(cell(name)), *(_number(value, '.6g') for value in row.values())])


def per_class_table(report: EvaluationReport, suffix: str = '', most: int = 20) -> Table:
    """The classes and their values for the console.

    Args:
        report: of the last evaluation.
        suffix: of its files.
        most: of more classes, only the best and the worst are shown, ``most`` in all; those without objects are not.
    """
    classes = list(report.per_class)
    values = report.column(report.columns[0])
    of_what = f', {TASKS[report.task]}' if report.task in TASKS else ''
    table = Table(title=f'{len(classes)} classes{of_what}', box=box.SIMPLE_HEAD)
    table.add_column('class')
    for column in report.columns:
        table.add_column(column, justify='right')
    shown = list(range(len(classes)))
    best = len(shown)
    if len(classes) > most:
        ranked = [int(k) for k in np.argsort(-values, kind='stable') if not math.isnan(values[k])]
        best = min(most - most // 2, len(ranked))
        shown = ranked[:best] + ranked[max(best, len(ranked) - most // 2) :]
        table.title = (
            f'{best} best and {len(shown) - best} worst of {len(classes)} classes{of_what}; '
            f'all in per_class{suffix}.csv'
        )
    digits = '.2f' if report.task == 'semantic' else '.3f'
    for place, k in enumerate(shown, 1):
        row = report.per_class[classes[k]]
        cells = (_number(value, digits) or '-' for value in row.values())
        table.add_row(classes[k], *cells, end_section=place == best and best < len(shown))
    return table


def _number(value: float, digits: str) -> str:
    """Counts whole, NaN as nothing."""
    if isinstance(value, int):
        return str(value)
    return '' if math.isnan(value) else f'{value:{digits}}'
