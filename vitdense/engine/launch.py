"""Training and testing of detection and segmentation configs alike."""

import argparse
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.registry import METRICS, RUNNERS
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table

from vitdense.datasets.checks import check_data
from vitdense.engine.config import load_config
from vitdense.engine.swap_backbone import swap_backbone
from vitdense.engine.wiring import check_channels
from vitdense.models.backbones import Backbone
from vitdense.registry import nearest_type_names


def train(args: argparse.Namespace) -> None:
    """Train as ``tools/train.py`` was told, see :func:`train_parser`.

    Raises:
        FileNotFoundError, ValueError, KeyError: the config cannot be run as it is; raised before the first step.
    """
    cfg = load_config(args.config, args.cfg_options)
    changes = swap_backbone(cfg, args.backbone, args.pretrained) if args.backbone else []
    if not args.backbone and not args.pretrained:
        changes = [drop_pretrained(cfg)]
    check_data(cfg)
    set_up_run(cfg, args, '_'.join(filter(None, [Path(args.config).stem, args.backbone])))
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError('--auto-scale-lr: the config does not say auto_scale_lr.base_batch_size')
        cfg.auto_scale_lr.enable = True
    cfg.resume = bool(args.resume)
    if args.resume:
        cfg.load_from = None if args.resume == 'auto' else existing(args.resume, '--resume')
    runner = build_runner(cfg)
    for change in changes:
        print_log(change, logger='current')
    runner.train()
    report(runner, 'val')


def test(args: argparse.Namespace) -> None:
    """Evaluate a checkpoint as ``tools/test.py`` was told, see :func:`test_parser`.

    Raises:
        FileNotFoundError, ValueError, KeyError: the config cannot be run as it is; raised before the first image.
    """
    cfg = load_config(args.config, args.cfg_options)
    check_data(cfg, splits=('test',))
    set_up_run(cfg, args, Path(args.config).stem)
    cfg.load_from = existing(args.checkpoint, 'checkpoint')
    cfg.model.get('backbone', {}).pop('init_cfg', None)
    if args.show_dir:
        draw_to(cfg, args.show_dir)
    if args.tta:
        use_tta(cfg)
    runner = build_runner(cfg)
    if args.out:
        dump = 'mmdet.DumpDetResults' if cfg.get('default_scope') == 'mmdet' else 'DumpResults'
        runner.test_evaluator.metrics.append(METRICS.build(dict(type=dump, out_file_path=args.out)))
    runner.test()
    report(runner, 'test')


def set_up_run(cfg: Config, args: argparse.Namespace, name: str) -> None:
    """Launcher and work dir: the option, else the config's, else ``work_dirs/name``."""
    cfg.launcher = args.launcher
    if args.work_dir or not cfg.get('work_dir'):
        cfg.work_dir = args.work_dir or os.path.join('work_dirs', name)


def existing(path: str, option: str) -> str:
    """``path``, which has to be a file unless it is a URL."""
    if '://' not in path and not Path(path).is_file():
        raise FileNotFoundError(f'{option}: no file {path!r}')
    return path


def drop_pretrained(cfg: Config) -> str:
    """Train the backbone of ``cfg`` from random weights."""
    dropped = cfg.model.backbone.pop('init_cfg', None) or cfg.model.get('pretrained')
    if 'pretrained' in cfg.model:
        cfg.model.pretrained = None
    return f'model.backbone: {dropped} -> random weights'


def build_runner(cfg: Config) -> Runner:
    """Build the runner and the model, and check that neck or heads fit the backbone."""
    with nearest_type_names():
        runner = RUNNERS.build(cfg) if cfg.get('runner_type') else Runner.from_cfg(cfg)
    model = getattr(runner.model, 'module', runner.model)
    backbone = getattr(model, 'backbone', None)
    if isinstance(backbone, Backbone):
        check_channels(cfg.model, backbone.out_channels)
    return runner


def draw_to(cfg: Config, folder: str) -> None:
    """Save the drawn predictions of the test images under ``folder``."""
    hook = cfg.default_hooks.get('visualization')
    if hook is None:
        raise ValueError('--show-dir: the config has no default_hooks.visualization')
    hook.update(draw=True, test_out_dir=folder)


def use_tta(cfg: Config) -> None:
    """Test-time augmentation with the config's ``tta_model`` and ``tta_pipeline``."""
    missing = [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]
    if missing:
        raise ValueError(f'--tta: the config has no {" and no ".join(missing)}')
    cfg.tta_model.module = cfg.model
    cfg.model = cfg.tta_model
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def report(runner: Runner, split: str) -> None:
    """Print the metrics of the last evaluation as a table, and the work dir."""
    if not is_main_process():
        return
    console = Console(soft_wrap=True)
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
        console.print(table)
    console.print(f'work dir: {os.path.abspath(runner.work_dir)}')
