"""Options that several commands have."""

import argparse
import re
from typing import Any

from mmengine.config import DictAction


class Settings(DictAction):
    """mmengine's ``KEY=VALUE``; what it cannot read, or takes for a text, is an error of one line."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Add the settings one by one to those of ``namespace``."""
        for setting in values:
            key, _, text = setting.partition('=')
            try:
                if re.match(r'[\[(\s]*(\{|dict\()', text):
                    raise ValueError
                super().__call__(parser, namespace, [setting], option_string)
            except (ValueError, AssertionError) as error:
                hint = f'KEY=VALUE, and the keys of a dict one by one ({key}.a=1 {key}.b=2)'
                raise argparse.ArgumentError(self, f'expected {hint}, found {setting!r}') from error


def add_config(parser: argparse.ArgumentParser) -> None:
    """The config and what is changed in it, and how its data are checked."""
    parser.add_argument('config', help='config file, or one of an installed package: mmdet::retinanet/...')
    parser.add_argument(
        '--cfg-options', nargs='+', action=Settings, metavar='KEY=VALUE', help='override settings of the config'
    )
    data = parser.add_argument_group('data')
    data.add_argument(
        '--check',
        choices=['full', 'sample', 'off'],
        default='sample',
        help='open all images, some hundreds (the default), or none; annotation files are always read whole',
    )
    data.add_argument(
        '--lenient',
        action='store_true',
        help='leave out what is wrong with the data, and count it, instead of stopping',
    )


def add_work_dir(parser: argparse.ArgumentParser, default: str) -> None:
    """The folder of a run, by ``default`` one of this name."""
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help=f'folder of logs and results, default {default}; DIR2, DIR3, ... if it is taken',
    )
    parser.add_argument('--overwrite', action='store_true', help='remove the earlier run in the work dir')


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """How several processes are started."""
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')


def add_backbone(parser: argparse.ArgumentParser) -> None:
    """Another backbone, and whether its weights are loaded."""
    parser.add_argument('--backbone', metavar='NAME', help='swap the backbone of the config, e.g. pvt_v2_b2, swin_tiny')
    parser.add_argument(
        '--no-pretrained', dest='pretrained', action='store_false', help='train the backbone from random weights'
    )
