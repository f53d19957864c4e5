"""``tools/train.py``: train a detector or a segmentor, and evaluate it."""

import argparse
import shutil
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils._pytree import tree_leaves

from vitdense.commands.prepare import (
    Preparation,
    build_runner,
    check_config,
    choose_backbone,
    describe_run,
    tell_remarks,
)
from vitdense.commands.summary import print_summary
from vitdense.config.building import building
from vitdense.config.runtime import log_to
from vitdense.console import say
from vitdense.engine.processes import join, leave
from vitdense.models.wrappers import unwrap_model
from vitdense.registry import bare_type
from vitdense.signals import Stopped

SHARED = Path('/dev/shm')
"""Where processes share tensors."""


def run(args: argparse.Namespace, cfg: Config) -> None:
    """Train ``cfg`` as ``tools/train.py`` was told.

    Raises:
        FileNotFoundError, FileExistsError, ValueError, KeyError, ImportError: the config cannot be run as it is;
            raised before the first step.
    """
    run = describe_run(cfg, args.splits)
    changes = choose_backbone(cfg, args)
    set_options(cfg, args)
    join(cfg, args.launcher)
    check_config(run)
    name = '_'.join(filter(None, [Path(args.config).stem, args.backbone]))
    with Preparation(run, args, name) as ready:
        runner = build_runner(run, args.lenient)
        runner.data_reports, runner.accept_changes = run.reports, args.accept_changes
        check_disk(runner)
        check_shared_memory(runner)
        for change in changes + ready.changes:
            say(change)
        tell_remarks(run, runner)
        try:
            with building(cfg):  # optimizer, schedules, and what hooks build
                runner.train()
        except Stopped:
            leave()
            raise
        print_summary(runner, 'val')
    leave()


def set_options(cfg: Config, args: argparse.Namespace) -> None:
    """Write the options of the command line into ``cfg``.

    Raises:
        ValueError: ``--amp`` and another wrapper of the optimizer, or ``--auto-scale-lr`` of a rate that is for no
            batch size.
        ImportError: the package of ``--log`` is missing.
    """
    if getattr(args, 'resume', None):
        cfg.resume, cfg.load_from = True, None  # which run it goes on from, and so its weights, is found out later
    if args.amp and bare_type(cfg.optim_wrapper) != 'AmpOptimWrapper':
        raise ValueError(
            f'--amp: optim_wrapper.type={bare_type(cfg.optim_wrapper)} of --cfg-options is another wrapper'
        )
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
    if args.save_every is not None and cfg.default_hooks.get('stop'):
        cfg.default_hooks.stop.save_every = args.save_every


def check_shared_memory(runner: Runner) -> None:
    """Look whether a batch of each process that loads data fits into the memory that they share with this one.

    Raises:
        OSError: it does not, and they would wait for each other for ever.
    """
    loader = runner.train_dataloader
    if not loader.num_workers or not SHARED.is_dir():
        return
    tensors = [one for one in tree_leaves(loader.dataset[0]) if isinstance(one, torch.Tensor)]
    size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', 1)  # a batch sampler of its own has it
    needed = loader.num_workers * size * sum(one.numel() * one.element_size() for one in tensors)
    free = shutil.disk_usage(SHARED).free
    if free < needed:
        raise OSError(
            f'{SHARED} has {free / 2**20:.1f} MB free, and {loader.num_workers} processes with batches of {size} images'
            f' need about {needed / 2**20:.1f} MB: docker run --shm-size=8g (or --ipc=host), or --cfg-options '
            'train_dataloader.num_workers=0'
        )


def check_disk(runner: Runner) -> None:
    """Look whether the last two and the best checkpoint, and one being written, fit on the disk.

    Raises:
        OSError: they do not.
    """
    sizes = [p.numel() * p.element_size() for p in unwrap_model(runner.model).parameters()]
    # three with weights and two moments of Adam, and two with weights
    needed, free = (3 * 3 + 2) * sum(sizes), shutil.disk_usage(runner.work_dir).free
    if free < needed:
        raise OSError(
            f'work dir {runner.work_dir} is on a disk with {free / 2**20:.0f} MB free, the checkpoints of this run '
            f'need about {needed / 2**20:.0f} MB'
        )
