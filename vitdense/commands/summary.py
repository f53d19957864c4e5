"""What a run ends with on the console."""

import os
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.runner import Runner
from rich.table import Table

from vitdense.console import CONSOLE
from vitdense.engine.hooks.evaluation_files import per_class_table, reports_of
from vitdense.registry import bare_type


def print_summary(runner: Runner, split: str) -> None:
    """Print the metrics of the last evaluation, overall and by class, and where the files are."""
    if not is_main_process():
        return
    metrics = {
        key.removeprefix(f'{split}/'): log.current()
        for key, log in runner.message_hub.log_scalars.items()
        if key.startswith(f'{split}/') and not key.endswith('time')
    }
    if metrics:
        table = Table(title=f'{bare_type(runner.cfg.model)} on the {split} set', show_lines=False)
        table.add_column('metric')
        table.add_column('value', justify='right')
        for key, value in metrics.items():
            table.add_row(key, '-' if value == -1 else f'{value:.3f}')  # as COCO says 'undefined'
        CONSOLE.print(table)
        evaluator = runner.val_evaluator if split == 'val' else runner.test_evaluator
        for report, suffix in reports_of(evaluator):
            CONSOLE.print(per_class_table(report, suffix))
    names = sorted(
        path.name for path in Path(runner.work_dir).iterdir() if path.suffix in ('.csv', '.png', '.jpg', '.pth')
    )
    CONSOLE.print('files: ' + ', '.join(names))
    CONSOLE.print(f'work dir: {os.path.abspath(runner.work_dir)}')
