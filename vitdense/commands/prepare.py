"""What has to be in order before a run: its data, its folder, its model."""

import argparse
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from vitdense.config.channels import check_channels
from vitdense.config.class_counts import check_class_counts
from vitdense.config.swap.backbone import swap_backbone
from vitdense.datasets.scan import SplitReport, drop_findings, raise_findings, scan_data
from vitdense.engine.processes import on_main_process
from vitdense.engine.run_folder import LOCK, RunFolder
from vitdense.models.backbones import Backbone
from vitdense.models.wrappers import unwrap_model
from vitdense.registry import nearest_type_names


class Preparation:
    """Data without faults, and a folder that the run has for itself while this context lasts.

    Attributes:
        reports: what the scan of the data found.
        changes: what was changed about the data, a line each.
    """

    def __init__(self, cfg: Config, args: argparse.Namespace, name: str) -> None:
        self.cfg, self.args, self.name = cfg, args, name
        self.folder: RunFolder | None = None

    def __enter__(self) -> 'Preparation':
        self.reports, self.changes, settings = on_main_process(self._prepare)
        self.cfg._cfg_dict.update(settings)
        return self

    def __exit__(self, *_: object) -> None:
        if self.folder:
            self.folder.lock.release()

    def _prepare(self) -> tuple[list[SplitReport], list[str], dict]:
        cfg, args = self.cfg, self.args
        reports = scan(cfg, args)
        self.folder = take_folder(cfg, args, self.name)
        cfg.work_dir = str(self.folder.path)
        changes = drop_findings(cfg, reports, self.folder.path / 'clean') if args.lenient else []
        return reports, changes, cfg._cfg_dict


def scan(cfg: Config, args: argparse.Namespace) -> list[SplitReport]:
    """Scan the data of ``args.splits`` as ``--check`` and ``--lenient`` say.

    Raises:
        DataError: something is wrong with the data, and it is not to be left out.
    """
    reports = scan_data(cfg, args.splits, args.check)
    if not args.lenient:
        raise_findings(reports)
    elif args.check == 'sample' and any(report.fatal for report in reports):
        reports = scan_data(cfg, args.splits, 'full')  # what is wrong in the sample is wrong elsewhere as well
    return reports


def take_folder(cfg: Config, args: argparse.Namespace, name: str) -> RunFolder:
    """The folder of this run, and in ``cfg`` the checkpoint that it goes on from."""
    wanted = args.work_dir or cfg.get('work_dir') or os.path.join('work_dirs', name)
    resume = getattr(args, 'resume', None)
    if not resume:
        return RunFolder.fresh(wanted, getattr(args, 'overwrite', False))
    cfg.resume = True
    if resume == 'auto':
        folder = RunFolder.latest(wanted)
        cfg.load_from = str(folder.path / 'last.pth')
        return folder
    cfg.load_from = resume
    home = Path(resume).parent
    if args.work_dir or not (home / LOCK).is_file():
        return RunFolder.fresh(wanted, args.overwrite)
    return RunFolder(home)


def choose_backbone(cfg: Config, args: argparse.Namespace) -> list[str]:
    """Do what ``--backbone`` and ``--no-pretrained`` say, and tell what changed."""
    if args.backbone:
        return swap_backbone(cfg, args.backbone, args.pretrained)
    if args.pretrained:
        return []
    dropped = cfg.model.backbone.pop('init_cfg', None) or cfg.model.get('pretrained')
    if 'pretrained' in cfg.model:
        cfg.model.pretrained = None
    return [f'model.backbone: {dropped} -> random weights']


def build_runner(cfg: Config) -> Runner:
    """Build the runner and the model, and check that neck or heads fit the backbone."""
    with nearest_type_names():
        runner = RUNNERS.build(cfg)
    backbone = getattr(unwrap_model(runner.model), 'backbone', None)
    if isinstance(backbone, Backbone):
        check_channels(cfg.model, backbone.out_channels)
    return runner


def check_heads(runner: Runner, reports: list[SplitReport]) -> None:
    """Compare the classes of every head with those of the data."""
    for one in reports:
        if one.classes:
            check_class_counts(unwrap_model(runner.model), one.classes, one.key, runner.cfg.model)
