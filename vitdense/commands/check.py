"""``tools/check.py``: the scan of the data, and one step."""

import argparse
import math
import tempfile
import time

import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.runner import Runner

from vitdense.commands.prepare import build_runner, check_config, describe_run, scan
from vitdense.config.building import building
from vitdense.console import CONSOLE
from vitdense.datasets.scan import drop_findings
from vitdense.engine.hooks.start_report import class_table, data_lines, device, model_line, optimizer_lines, versions
from vitdense.engine.log_processor import peak_memory
from vitdense.names import counted


def run(args: argparse.Namespace, cfg: Config) -> None:
    """Scan the data, build the model, take one training step and evaluate one batch. Nothing of it is kept.

    Raises:
        FileNotFoundError, ValueError, KeyError: what is wrong.
    """
    run = describe_run(cfg, args.splits)
    check_config(run)
    CONSOLE.print(versions())
    CONSOLE.print(f'device     {device()}')
    scan(run, args)
    for one in run.reports:
        for line in data_lines(one):
            CONSOLE.print(line)
    for line in class_table(run.reports, most=200):
        CONSOLE.print(line)
    with tempfile.TemporaryDirectory() as folder, building(cfg):
        cfg.work_dir = folder
        for line in drop_findings(cfg, run.reports, f'{folder}/clean') if args.lenient else []:
            CONSOLE.print(line.partition(f', in {folder}')[0])  # these copies are for this check alone
        runner = build_runner(run)
        for remark in run.remarks:
            CONSOLE.print(f'remark     {remark}')
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        if runner.param_schedulers:
            runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
        CONSOLE.print(f'model      {model_line(runner)}')
        for line in optimizer_lines(runner.optim_wrapper):
            CONSOLE.print(f'optimizer  {line}')
        CONSOLE.print(f'step       {train_step(runner)}')
        if cfg.get('val_dataloader'):
            CONSOLE.print(f'evaluation {val_step(runner)}')
    CONSOLE.print(f'no fault was found, {counted(len(run.remarks), "remark")}')


def train_step(runner: Runner) -> str:
    """One step on the first batch, from random weights.

    Raises:
        ValueError: a loss is not finite.
    """
    loop = runner.train_loop
    start = time.perf_counter()
    batch = next(iter(loop.dataloader))
    loaded = time.perf_counter()
    begin(runner, batch)
    runner.model.train()
    losses = runner.model.train_step(batch, runner.optim_wrapper)
    values = {key: value.item() for key, value in losses.items()}
    if not all(map(math.isfinite, values.values())):
        raise ValueError(f'the losses of the first step are not finite: {values}')
    terms = ', '.join(f'{key} {value:.4g}' for key, value in values.items())
    return (
        f'{terms}; loading {loaded - start:.1f} s, step {time.perf_counter() - loaded:.1f} s, '
        f'{peak_memory() / 1024:.1f} GB'
    )


def begin(runner: Runner, batch: dict) -> None:
    """Do what hooks do before the first step; some models ask for its epoch and iteration, or are told them.

    Our own hooks only report and write.
    """
    for stage, arguments in (
        ('before_run', {}),
        ('before_train', {}),
        ('before_train_epoch', {}),
        ('before_train_iter', dict(batch_idx=0, data_batch=batch)),
    ):
        for hook in runner.hooks:
            if not type(hook).__module__.startswith('vitdense.') and not isinstance(hook, LoggerHook | CheckpointHook):
                getattr(hook, stage)(runner, **arguments)


def val_step(runner: Runner) -> str:
    """Prediction of the first validation batch."""
    batch = next(iter(runner.val_dataloader))
    runner.model.eval()
    start = time.perf_counter()
    with torch.no_grad():
        outputs = runner.model.val_step(batch)
    return f'{counted(len(outputs), "image")} in {time.perf_counter() - start:.1f} s'
