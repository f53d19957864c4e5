"""What can be wrong with arguments, config file and data files, answered before PyTorch is imported."""

import argparse
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config

from vitdense import findings
from vitdense.config.load import config_path
from vitdense.config.missing_files import check_files
from vitdense.config.own_data import describe as describe_data
from vitdense.config.own_data import task_of, use_data
from vitdense.config.runtime import read_config
from vitdense.config.swap.names import check_name
from vitdense.console import CONSOLE, is_first_process, note, warn
from vitdense.datasets.formats import FRACTION, read_data
from vitdense.files import REMOTE, checkpoints_in
from vitdense.names import counted
from vitdense.predict.load import find_model


def check_arguments(args: argparse.Namespace) -> None:
    """Look for the files, folders, packages and the backbone that are named on the command line.

    Raises:
        FileNotFoundError: no such file, see also :func:`vitdense.config.load.config_path`.
        ValueError: no backbone of this name.
        ImportError: a package that an option needs is missing.
    """
    given = vars(args)
    if not given.get('data') and (given.get('format') or given.get('val_fraction', FRACTION) != FRACTION):
        raise ValueError('--format and --val-fraction are of --data, which is not given')
    if 'config' in args:
        config_path(args.config)
    for model, checkpoint in (('model', 'checkpoint'), ('vs', 'vs_checkpoint')):
        if given.get(model):
            config_path(find_model(given[model], given[checkpoint])[0])
    for name in (given.get('checkpoint'), given.get('vs_checkpoint')):
        if name and ('model' not in args or Path(name).suffix):  # else the name of a release
            check_checkpoint(name)
    if given.get('resume') not in (None, 'auto'):
        check_checkpoint(args.resume)
    if 'source' in args and Path(args.source).suffix:  # without, it is the name of a release
        check_checkpoint(args.source)
    for folder in given.get('runs', []):
        if not (folder / 'results.csv').is_file():
            raise FileNotFoundError(f'{folder} is not the work dir of a run: it has no results.csv')
    if given.get('backbone'):
        check_name(args.backbone)
    for name in given.get('log', []):
        if find_spec(name) is None:
            raise ImportError(f'--log {name}: the package is missing, pip install {name}')


def check_checkpoint(name: str) -> None:
    """Look whether a checkpoint is there, unless it is a URL or a file of the hub.

    Raises:
        FileNotFoundError: it is not; the message lists the checkpoints beside it, nearest first.
    """
    path = Path(name).expanduser()
    if not REMOTE.match(name) and not path.is_file():
        there = checkpoints_in(*((path, 'last.pth') if path.is_dir() else (path.parent, path.name)))
        raise FileNotFoundError(f'no checkpoint file {name!r}{there}')


def read_early(args: argparse.Namespace) -> Config:
    """The config of a command that loads data, whose files are there.

    Raises:
        FileNotFoundError: files of the data are missing.
        ValueError: the config cannot be read, or an option does not fit to it.
    """
    if is_first_process():
        CONSOLE.print(f'config     {args.config}')
    cfg = read_config(args)
    if args.data:
        use_own_data(cfg, args)
    check_files(cfg, args.splits)
    return cfg


def use_own_data(cfg: Config, args: argparse.Namespace) -> None:
    """Put ``--data`` into ``cfg``, and tell what changed.

    Raises:
        FileNotFoundError: there is nothing.
        RunError: files, lines or objects have faults, and there is no ``--lenient``.
        ValueError: the data cannot be read, or ``cfg`` cannot take them.
    """
    data = read_data(args.data, task_of(cfg), args.format, args.val_fraction)
    if data.findings and not args.lenient:
        lines = [f'{counted(len(data.findings), "fault")} in --data {args.data} ({data.format}):']
        lines += [*findings.describe(data.findings), '--lenient leaves them out; no file of yours is changed']
        raise findings.RunError('\n'.join(lines))
    if args.val_fraction != FRACTION and not any('--val-fraction' in remark for remark in data.remarks):
        data.remarks.append(f'--val-fraction {args.val_fraction:g} is not used: the data have a validation')
    for line in describe_data(data):
        note(f'data       {line}')
    if data.findings:
        warn('\n  '.join(['left out of --data:', *findings.describe(data.findings)]))
    for line in use_data(cfg, data, args.splits, _classes_of(vars(args).get('checkpoint'))):
        note(f'config     {line}')


def _classes_of(checkpoint: str | None) -> tuple[str, ...]:
    """Classes that a local checkpoint says its labels to be; nothing if it does not, or cannot be read."""
    if checkpoint is None or not Path(checkpoint).is_file():
        return ()
    from vitdense.checkpoint.read import read  # imports PyTorch

    try:
        known = (read(Path(checkpoint)).get('meta') or {}).get('dataset_meta') or {}
        return tuple(map(str, known.get('classes') or ()))
    except Exception:  # whatever it is, loading it will say so
        return ()
