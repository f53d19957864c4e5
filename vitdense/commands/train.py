"""``tools/train.py``: train a detector or a segmentor, and evaluate it."""

import argparse
import shutil
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from vitdense.commands.arguments import add_backbone, add_config, add_launcher, add_work_dir
from vitdense.commands.prepare import Preparation, build_runner, choose_backbone, describe_run
from vitdense.commands.summary import print_summary
from vitdense.config.runtime import LOGS, log_to, read_config
from vitdense.console import say
from vitdense.engine.processes import join, leave
from vitdense.models.wrappers import unwrap_model


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``tools/train.py``."""
    parser.description = 'Train a detector or a segmentor, and evaluate it.'
    add_config(parser)
    add_work_dir(parser, 'work_dirs/CONFIG')
    add_launcher(parser)
    add_backbone(parser)
    parser.add_argument(
        '--resume', nargs='?', const='auto', metavar='CHECKPOINT', help='go on from it, or from the last one'
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size of this run'
    )
    parser.add_argument('--seed', type=int, help='of weights, data order and augmentation')
    parser.add_argument('--deterministic', action='store_true', help='no operators whose result varies, where possible')
    parser.add_argument('--log', nargs='+', default=[], choices=sorted(LOGS), help='send the scalars there as well')


def run(args: argparse.Namespace) -> None:
    """Train as ``tools/train.py`` was told, see :func:`add_options`.

    Raises:
        FileNotFoundError, FileExistsError, ValueError, KeyError, ImportError: the config cannot be run as it is;
            raised before the first step.
    """
    cfg = read_config(args)
    changes = choose_backbone(cfg, args)
    set_options(cfg, args)
    join(cfg, args.launcher)
    run = describe_run(cfg, ('train', 'val'))
    name = '_'.join(filter(None, [Path(args.config).stem, args.backbone]))
    with Preparation(run, args, name) as ready:
        runner = build_runner(run)
        runner.data_reports = run.reports
        check_disk(runner)
        for change in changes + ready.changes:
            say(change)
        for remark in run.remarks:
            runner.logger.warning(remark)
        runner.train()
        print_summary(runner, 'val')
    leave()


def set_options(cfg: Config, args: argparse.Namespace) -> None:
    """Write the options of the command line into ``cfg``."""
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
            raise ValueError(
                '--auto-scale-lr: the config does not say for how many images a step its learning rate is: '
                '--cfg-options auto_scale_lr.base_batch_size=N'
            )
        cfg.auto_scale_lr.enable = True
    given = dict(seed=args.seed, deterministic=args.deterministic or None)
    given = {key: value for key, value in given.items() if value is not None}
    cfg.randomness = {'seed': None, **cfg.get('randomness', {}), **given}
    log_to(cfg, args.log)


def check_disk(runner: Runner) -> None:
    """Look whether the last and the best checkpoint, and one being written, fit on the disk.

    Raises:
        OSError: they do not.
    """
    sizes = [p.numel() * p.element_size() for p in unwrap_model(runner.model).parameters()]
    needed, free = 3 * 3 * sum(sizes), shutil.disk_usage(runner.work_dir).free  # weights and two moments of Adam
    if free < needed:
        raise OSError(
            f'work dir {runner.work_dir} is on a disk with {free / 2**20:.0f} MB free, the checkpoints of this run '
            f'need about {needed / 2**20:.0f} MB'
        )
