"""What the checks and the hooks of vitdense cost: ``python benchmarks/overhead.py CONFIG --cfg-options ...``.

The config is trained as it is (``train_cfg.max_epochs`` shortens it) in a temporary folder. Printed are the seconds of
the scan without and with its cache, and for each hook its seconds and their share of the whole training, with the
steps alone, the validations and what is drawn at the start and the end in columns of their own.
"""

import os
import tempfile
import time
from collections import defaultdict

from mmengine.hooks import Hook
from rich.table import Table

from vitdense.commands import parser_of
from vitdense.commands.prepare import build_runner
from vitdense.config.runtime import read_config
from vitdense.console import CONSOLE
from vitdense.datasets.scan import scan_data

STEPS = ('before_train_iter', 'after_train_iter')
EVALUATIONS = ('before_val', 'before_val_epoch', 'before_val_iter', 'after_val_iter', 'after_val_epoch', 'after_val')


def time_hooks(hooks: list[Hook]) -> dict[str, dict[str, float]]:
    """Make the hooks of vitdense count their seconds; hook -> stage -> seconds, filled while they run."""
    seconds = defaultdict(lambda: defaultdict(float))
    for hook in hooks:
        if type(hook).__module__.startswith('vitdense.'):
            for stage in Hook.stages:
                setattr(hook, stage, timed(getattr(hook, stage), seconds[type(hook).__name__], stage))
    return seconds


def timed(method, seconds: dict[str, float], stage: str):
    def call(*args, **kwargs):
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            seconds[stage] += time.perf_counter() - start

    return call


def main() -> None:
    args = parser_of('check').parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ['VITDENSE_CACHE'] = folder
        cfg = read_config(args)
        cfg.work_dir = f'{folder}/run'
        scans = []
        for _ in range(2):
            start = time.perf_counter()
            reports = scan_data(cfg, ('train', 'val'), args.check)
            scans.append(time.perf_counter() - start)
        opened = sum(report.opened for report in reports)
        CONSOLE.print(f'scan of {opened} images: {scans[0]:.2f} s, again from the cache {scans[1]:.2f} s')
        runner = build_runner(cfg)
        runner.data_reports = reports
        seconds = time_hooks(runner.hooks)
        start = time.perf_counter()
        runner.train()
        total = time.perf_counter() - start
    table = Table(title=f'{runner.max_iters} steps in {total:.1f} s')
    for column in ('hook', 'steps, s', 'validations, s', 'start, end, checkpoints, s', 'share of the training'):
        table.add_column(column, justify='left' if column == 'hook' else 'right')
    for name, stages in [*seconds.items(), ('all', merge(seconds))]:
        steps, evaluations = (sum(stages[stage] for stage in group) for group in (STEPS, EVALUATIONS))
        whole = sum(stages.values())
        cells = (f'{steps:.3f}', f'{evaluations:.2f}', f'{whole - steps - evaluations:.2f}', f'{whole / total:.2%}')
        table.add_row(name, *cells)
    CONSOLE.print(table)


def merge(seconds: dict[str, dict[str, float]]) -> dict[str, float]:
    """Seconds of all hooks by stage."""
    merged = defaultdict(float)
    for stages in seconds.values():
        for stage, value in stages.items():
            merged[stage] += value
    return merged


if __name__ == '__main__':
    main()
