"""``tools/test.py``: evaluate a checkpoint."""

import argparse
from itertools import chain
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.registry import METRICS

from vitdense.commands.prepare import (
    Preparation,
    beside_the_training,
    build_runner,
    check_config,
    describe_run,
    tell_remarks,
)
from vitdense.commands.summary import print_summary
from vitdense.config.test_time import package_of, use_tta
from vitdense.console import say
from vitdense.engine.hooks.start_report import data_lines, versions
from vitdense.engine.processes import join, leave
from vitdense.files import check_folder


def run(args: argparse.Namespace, cfg: Config) -> None:
    """Evaluate a checkpoint of ``cfg`` as ``tools/test.py`` was told.

    Raises:
        FileNotFoundError, FileExistsError, ValueError, KeyError: the config cannot be run as it is; raised before the
            first image.
    """
    run = describe_run(cfg, args.splits)
    cfg.load_from, cfg.resume = args.checkpoint, False
    (cfg.model.get('backbone') or {}).pop('init_cfg', None)
    package = package_of(cfg)
    if args.show_dir:
        draw_to(cfg, args.show_dir)
    if args.tta:
        use_tta(cfg)
    beside_the_training(cfg, 'test')
    join(cfg, args.launcher)
    check_config(run)
    with Preparation(run, args, f'{Path(args.config).stem}_test') as ready:
        runner = build_runner(run, args.lenient)
        if args.out:
            dump = 'mmdet.DumpDetResults' if package == 'mmdet' else 'DumpResults'
            runner.test_evaluator.metrics.append(METRICS.build(dict(type=dump, out_file_path=args.out)))
        for line in (versions(), *chain.from_iterable(map(data_lines, run.reports)), *ready.changes):
            say(line)
        tell_remarks(run, runner)
        runner.test()
        print_summary(runner, 'test')
    leave()


def draw_to(cfg: Config, folder: str) -> None:
    """Save the drawn predictions of the test images under ``folder``, which is made with the first of them.

    Raises:
        NotADirectoryError, PermissionError: see :func:`~vitdense.files.check_folder`.
    """
    check_folder('--show-dir', folder)
    cfg.default_hooks.show = ConfigDict(type='vitdense.ShowHook', folder=str(Path(folder).absolute()))
