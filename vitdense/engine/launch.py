"""Training and testing of detection and segmentation configs alike."""

import argparse
import os
import shutil
from itertools import chain
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.model import is_model_wrapper
from mmengine.registry import METRICS, RUNNERS
from mmengine.runner import Runner
from rich.table import Table

from vitdense.console import CONSOLE, say
from vitdense.datasets.scan import SplitReport
from vitdense.engine.advice import advice
from vitdense.engine.heads import check_class_counts
from vitdense.engine.hooks.evaluation_files import per_class_table
from vitdense.engine.hooks.start_report import data_lines, versions
from vitdense.engine.prepare import Preparation, existing
from vitdense.engine.processes import join, leave
from vitdense.engine.runtime import log_to, read_config
from vitdense.engine.swap_backbone import swap_backbone
from vitdense.engine.wiring import check_channels
from vitdense.models.backbones import Backbone
from vitdense.registry import nearest_type_names


def train(args: argparse.Namespace) -> None:
    """Train as ``tools/train.py`` was told, see :func:`train_parser`.

    Raises:
        FileNotFoundError, FileExistsError, ValueError, KeyError, ImportError: the config cannot be run as it is;
            raised before the first step.
    """
    cfg = read_config(args)
    changes = choose_backbone(cfg, args)
    set_options(cfg, args)
    join(cfg, args.launcher)
    splits = ('train', 'val') if cfg.get('val_dataloader') else ('train',)
    name = '_'.join(filter(None, [Path(args.config).stem, args.backbone]))
    with Preparation(cfg, args, splits, name) as ready:
        runner = build_runner(cfg)
        runner.data_reports = ready.reports
        check_heads(runner, ready.reports)
        check_disk(runner)
        for change in changes + ready.changes:
            say(change)
        for warning in advice(cfg, ready.reports, get_world_size()):
            runner.logger.warning(warning)
        runner.train()
        report(runner, 'val')
    leave()


def test(args: argparse.Namespace) -> None:
    """Evaluate a checkpoint as ``tools/test.py`` was told, see :func:`test_parser`.

    Raises:
        FileNotFoundError, FileExistsError, ValueError, KeyError: the config cannot be run as it is; raised before the
            first image.
    """
    cfg = read_config(args)
    cfg.load_from, cfg.resume = existing(args.checkpoint, 'checkpoint'), False
    cfg.model.get('backbone', {}).pop('init_cfg', None)
    if args.show_dir:
        draw_to(cfg, args.show_dir)
    if args.tta:
        use_tta(cfg)
    join(cfg, args.launcher)
    with Preparation(cfg, args, ('test',), f'{Path(args.config).stem}_test') as ready:
        runner = build_runner(cfg)
        check_heads(runner, ready.reports)
        if args.out:
            dump = 'mmdet.DumpDetResults' if cfg.get('default_scope') == 'mmdet' else 'DumpResults'
            runner.test_evaluator.metrics.append(METRICS.build(dict(type=dump, out_file_path=args.out)))
        for line in (versions(), *chain.from_iterable(map(data_lines, ready.reports)), *ready.changes):
            say(line)
        runner.test()
        report(runner, 'test')
    leave()


def set_options(cfg: Config, args: argparse.Namespace) -> None:
    """Write the options of the command line into ``cfg``."""
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError('--auto-scale-lr: the config does not say auto_scale_lr.base_batch_size')
        cfg.auto_scale_lr.enable = True
    given = dict(seed=args.seed, deterministic=args.deterministic or None)
    given = {key: value for key, value in given.items() if value is not None}
    cfg.randomness = {'seed': None, **cfg.get('randomness', {}), **given}
    log_to(cfg, args.log)


def choose_backbone(cfg: Config, args: argparse.Namespace) -> list[str]:
    """Do what ``--backbone`` and ``--no-pretrained`` say, and tell what changed."""
    if args.backbone:
        return swap_backbone(cfg, args.backbone, args.pretrained)
    return [] if args.pretrained else [drop_pretrained(cfg)]


def drop_pretrained(cfg: Config) -> str:
    """Train the backbone of ``cfg`` from random weights."""
    dropped = cfg.model.backbone.pop('init_cfg', None) or cfg.model.get('pretrained')
    if 'pretrained' in cfg.model:
        cfg.model.pretrained = None
    return f'model.backbone: {dropped} -> random weights'


def build_runner(cfg: Config) -> Runner:
    """Build the runner and the model, and check that neck or heads fit the backbone."""
    with nearest_type_names():
        runner = RUNNERS.build(cfg)
    backbone = getattr(unwrapped(runner), 'backbone', None)
    if isinstance(backbone, Backbone):
        check_channels(cfg.model, backbone.out_channels)
    return runner


def unwrapped(runner: Runner):
    """The model itself, also where it runs on several processes."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def check_heads(runner: Runner, reports: list[SplitReport]) -> None:
    """Compare the classes of every head with those of the data."""
    for one in reports:
        if one.classes:
            check_class_counts(unwrapped(runner), one.classes, one.key, runner.cfg.model)


def check_disk(runner: Runner) -> None:
    """Look whether the last and the best checkpoint, and one being written, fit on the disk.

    Raises:
        OSError: they do not.
    """
    sizes = [p.numel() * p.element_size() for p in unwrapped(runner).parameters()]
    needed, free = 3 * 3 * sum(sizes), shutil.disk_usage(runner.work_dir).free  # weights and two moments of Adam
    if free < needed:
        raise OSError(
            f'work dir {runner.work_dir} is on a disk with {free / 2**20:.0f} MB free, the checkpoints of this run '
            f'need about {needed / 2**20:.0f} MB'
        )


def draw_to(cfg: Config, folder: str) -> None:
    """Save the drawn predictions of the test images under ``folder``."""
    hook = cfg.default_hooks.get('visualization')
    if hook is None:
        raise ValueError('--show-dir: the config has no default_hooks.visualization')
    hook.update(draw=True, test_out_dir=os.path.abspath(folder))


def use_tta(cfg: Config) -> None:
    """Test-time augmentation with the config's ``tta_model`` and ``tta_pipeline``."""
    missing = [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]
    if missing:
        raise ValueError(f'--tta: the config has no {" and no ".join(missing)}')
    cfg.tta_model.module = cfg.model
    cfg.model = cfg.tta_model
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def report(runner: Runner, split: str) -> None:
    """Print the metrics of the last evaluation, those of the classes, and where the files are."""
    if not is_main_process():
        return
    metrics = {
        key.removeprefix(f'{split}/'): log.current()
        for key, log in runner.message_hub.log_scalars.items()
        if key.startswith(f'{split}/') and not key.endswith('time')
    }
    if metrics:
        table = Table(title=f'{runner.cfg.model.type} on the {split} set', show_lines=False)
        table.add_column('metric')
        table.add_column('value', justify='right')
        for key, value in metrics.items():
            table.add_row(key, f'{value:.3f}')
        CONSOLE.print(table)
        evaluator = runner.val_evaluator if split == 'val' else runner.test_evaluator
        for metric in evaluator.metrics:
            if getattr(metric, 'report', None):
                CONSOLE.print(per_class_table(metric.report))
    names = sorted(
        path.name for path in Path(runner.work_dir).iterdir() if path.suffix in ('.csv', '.png', '.jpg', '.pth')
    )
    CONSOLE.print('files: ' + ', '.join(names))
    CONSOLE.print(f'work dir: {os.path.abspath(runner.work_dir)}')
