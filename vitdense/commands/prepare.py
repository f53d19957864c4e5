"""What has to be in order before a run: its data, its folder, its model."""

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from vitdense.checks import Run, check
from vitdense.commands.early import check_checkpoint
from vitdense.config.building import building
from vitdense.config.swap.backbone import swap_backbone
from vitdense.console import warn
from vitdense.datasets.named_errors import leave_out
from vitdense.datasets.scan import SplitReport, drop_findings, raise_findings, scan_data
from vitdense.engine.generations import candidates, newest, put_aside, whole
from vitdense.engine.processes import on_main_process
from vitdense.engine.recipe import differences, recipe_of, refusal
from vitdense.engine.run_folder import LOCK, RunFolder, about, is_run_of
from vitdense.findings import Finding, stop
from vitdense.models.wrappers import unwrap_model


def describe_run(cfg: Config, splits: tuple[str, ...]) -> Run:
    """The description of a run of these ``splits``, whose config has all parts; the first of them has to be there.

    Raises:
        RunError: a part is missing.
    """
    run = Run(cfg, splits)
    run.remarks += stop(check(run, 'parts'))
    run.names = tuple(split for split in splits if cfg.get(f'{split}_dataloader'))
    return run


def check_config(run: Run) -> None:
    """Ask what the config alone shows, once all options are in it and the processes have joined.

    Raises:
        RunError: it has a fault.
    """
    run.processes = get_world_size()
    run.remarks += stop(check(run, 'config'))


class Preparation:
    """Data without faults, and a folder that the run has for itself while this context lasts.

    Attributes:
        run: the run, whose reports tell what the scan of the data found.
        changes: what was changed about the data, a line each.
    """

    def __init__(self, run: Run, args: argparse.Namespace, name: str) -> None:
        self.run, self.args, self.name = run, args, name
        self.folder: RunFolder | None = None

    def __enter__(self) -> 'Preparation':
        run = self.run
        try:
            run.reports, run.remarks, self.changes, settings = on_main_process(self._prepare)
        except BaseException:
            if self.folder:
                self.folder.leave(failed=True)
            raise
        run.cfg._cfg_dict.update(settings)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self.folder:
            self.folder.leave(failed=error is not None)

    def _prepare(self) -> tuple[Sequence[SplitReport], list[Finding], list[str], dict]:
        run, args = self.run, self.args
        scan(run, args)
        self.folder = take_folder(run.cfg, args, self.name)
        run.cfg.work_dir = str(self.folder.path)
        changes = drop_findings(run.cfg, run.reports, self.folder.path / 'clean') if args.lenient else []
        if run.cfg.get('resume') and '://' not in run.cfg.load_from:
            check_resumed(run.cfg, args.accept_changes, Path(args.config).stem)
        return run.reports, run.remarks, changes, run.cfg._cfg_dict


def scan(run: Run, args: argparse.Namespace) -> None:
    """Scan the data as ``--check`` and ``--lenient`` say; the reports are in ``run`` afterwards.

    Raises:
        RunError: something is wrong with the data, and it is not to be left out.
    """
    cfg = run.cfg
    run.reports = scan_data(cfg, run.names, args.check)
    if args.lenient and args.check == 'sample' and any(report.fatal for report in run.reports):
        run.reports = scan_data(cfg, run.names, 'full')  # what is wrong in the sample is wrong elsewhere as well
    found = check(run, 'data')
    raise_findings([] if args.lenient else run.reports, found)
    run.remarks += found


def tell_remarks(run: Run, runner: Runner) -> None:
    """Say what the rules found and the run does not stop for."""
    for remark in run.remarks:
        runner.logger.warning(remark)


def take_folder(cfg: Config, args: argparse.Namespace, name: str) -> RunFolder:
    """The folder of this run, and in ``cfg`` the checkpoint that it goes on from.

    ``resume=True`` of the config is ``--resume``, with ``load_from`` as its checkpoint; only where there is no run yet,
    it begins one, as mmengine does.

    Raises:
        FileNotFoundError: no run, or no checkpoint, to go on from.
        FileExistsError: ``--overwrite`` of a folder that holds no run.
        BlockingIOError: another run uses the folder.
        ValueError: no checkpoint that is whole.
    """
    wanted = args.work_dir or cfg.get('work_dir') or os.path.join('work_dirs', name)
    config = Path(getattr(args, 'config', name)).stem
    overwrite = getattr(args, 'overwrite', False)
    resume = getattr(args, 'resume', None)
    from_config = not resume and 'resume' in args and cfg.get('resume')
    if from_config:
        resume = cfg.resume if isinstance(cfg.resume, str) else cfg.get('load_from') or 'auto'
    if not resume:
        return RunFolder.fresh(wanted, overwrite, config)
    cfg.resume = True
    if resume == 'auto':
        try:
            folder = RunFolder.latest(wanted, config, name)
        except FileNotFoundError:
            if not from_config:
                raise
            cfg.resume = False
            warn(f'resume=True: there is no run in {wanted!r} to go on with, so one begins')
            return RunFolder.fresh(wanted, overwrite, config)
        with leaving(folder):
            cfg.load_from = str(newest_whole(folder))
        return folder
    if from_config:
        check_checkpoint(resume)
    cfg.load_from = resume
    home = Path(resume).expanduser().parent
    if not (home / LOCK).is_file() or (args.work_dir and not is_run_of(home, args.work_dir)):
        return RunFolder.fresh(wanted, overwrite, config)
    return RunFolder(home)


def newest_whole(folder: RunFolder) -> Path:
    """The newest checkpoint of a run that is whole; says so where it is not ``last.pth``, which is put aside.

    Raises:
        ValueError: there is none.
    """
    found = newest(folder.path, folder.about.get('run'))
    if found.passed:
        warn(
            f'--resume: {"; ".join(found.passed)}. The run goes on from {found.path.name} '
            f'(epoch {found.meta["epoch"]}, iter {found.iteration}), the newest checkpoint that is whole'
        )
        put_aside(folder.path, found.path)
    return found.path


def check_resumed(cfg: Config, accept: bool, config: str) -> None:
    """Look whether the checkpoint that ``cfg`` goes on from is whole, and of a run with its settings.

    Raises:
        OSError, ValueError: it is not; the message has the differences.
    """
    path = Path(cfg.load_from).expanduser()
    try:
        checkpoint = whole(path)
    except ValueError as error:
        others = [other for other in candidates(path.parent) if not path.exists() or not other.samefile(path)]
        hint = f'; beside it there is {others[0].name}' if others and (path.parent / LOCK).is_file() else ''
        raise ValueError(f'--resume: {error}{hint}') from None
    changes = differences(checkpoint.meta.get('recipe') or {}, recipe_of(cfg, get_world_size()))
    before = about(path.parent).get('config')
    if before and before != config:
        changes = {'config': [f'{before} -> {config}'], **changes}
    if changes and not accept:
        raise ValueError(refusal(path, changes))


@contextmanager
def leaving(folder: RunFolder) -> Iterator[None]:
    """Give a folder free if something goes wrong."""
    try:
        yield
    except BaseException:
        folder.leave(failed=True)
        raise


def beside_the_training(cfg: Config, purpose: str) -> None:
    """Where a config names a folder, as the copy of it that a training leaves does, use one beside it."""
    if cfg.get('work_dir'):
        cfg.work_dir = f'{cfg.work_dir.rstrip("/")}_{purpose}'


def choose_backbone(cfg: Config, args: argparse.Namespace) -> list[str]:
    """Do what ``--backbone`` and ``--no-pretrained`` say, and tell what changed.

    Raises:
        ValueError: the model cannot have this backbone.
    """
    if args.backbone:
        return swap_backbone(cfg, args.backbone, args.pretrained)
    if args.pretrained:
        return []
    dropped = (cfg.model.get('backbone') or {}).pop('init_cfg', None) or cfg.model.get('pretrained')
    if 'pretrained' in cfg.model:
        cfg.model.pretrained = None
    return [f'model.backbone: {dropped} -> random weights']


def build_runner(run: Run, lenient: bool = False) -> Runner:
    """Build the runner, the model and the loaders.

    Args:
        run: the run.
        lenient: go on without images that can no longer be read.

    Raises:
        RunError: the model does not fit the data, or its parts do not fit each other.
        BuildError, KeyError: see :func:`~vitdense.config.building.building`.
    """
    with building(run.cfg):
        runner = RUNNERS.build(run.cfg)
    run.model = unwrap_model(runner.model)
    with building(run.cfg):
        loaders = {name: getattr(runner, f'{name}_dataloader') for name in run.names}
    for loader in loaders.values() if lenient else ():
        leave_out(loader)
    run.steps = {name: len(loader) for name, loader in loaders.items() if hasattr(loader.dataset, '__len__')}
    run.samples = {name: _first(loaders[name].dataset) for name in run.names if name != 'train'}
    run.remarks += stop(check(run, 'model'))
    return runner


def _first(dataset: Any) -> Any:
    """The first data sample of a data set, ``None`` where it has none."""
    packed = dataset[0] if len(dataset) and hasattr(dataset, '__getitem__') else None
    return packed.get('data_samples') if isinstance(packed, dict) else None
