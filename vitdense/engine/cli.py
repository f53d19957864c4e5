"""Command lines of the tools."""

import argparse

from mmengine.config import DictAction

from vitdense.engine.runtime import LOGS


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file, or one of an installed package: mmdet::retinanet/...')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='override settings of the config'
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
    return parser


def _run_parser(description: str, work_dir: str) -> argparse.ArgumentParser:
    parser = _parser(description)
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help=f'folder of logs and results, default {work_dir}; DIR2, DIR3, ... if it is taken',
    )
    parser.add_argument('--overwrite', action='store_true', help='remove the earlier run in the work dir')
    return parser


def _add_launcher(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')


def _add_backbone(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--backbone', metavar='NAME', help='swap the backbone of the config, e.g. pvt_v2_b2, swin_tiny')
    parser.add_argument(
        '--no-pretrained', dest='pretrained', action='store_false', help='train the backbone from random weights'
    )


def train_parser() -> argparse.ArgumentParser:
    """Options of ``tools/train.py``."""
    parser = _run_parser('Train a detector or a segmentor, and evaluate it.', 'work_dirs/CONFIG')
    _add_launcher(parser)
    _add_backbone(parser)
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
    return parser


def test_parser() -> argparse.ArgumentParser:
    """Options of ``tools/test.py``."""
    parser = _run_parser('Evaluate a checkpoint.', 'work_dirs/CONFIG_test')
    _add_launcher(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', metavar='FILE.pkl', help='save the predictions')
    parser.add_argument('--show-dir', metavar='DIR', help='save the images with their predictions')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation, as the config describes it')
    return parser


def check_parser() -> argparse.ArgumentParser:
    """Options of ``tools/check.py``."""
    return _parser('Scan the data of a config, build its model and take one training step; nothing is written.')


def overfit_parser() -> argparse.ArgumentParser:
    """Options of ``tools/overfit.py``."""
    parser = _run_parser(
        'Train a detector on a few of its training images until it knows them by heart: the first thing to try when '
        'the mAP stays at 0. Exits with 0 if it does, with 1 and what to look at if it does not.',
        'work_dirs/CONFIG_overfit',
    )
    _add_backbone(parser)
    parser.add_argument('--images', type=int, default=8, metavar='N', help='training images with objects (default 8)')
    parser.add_argument('--steps', type=int, default=2000, metavar='N', help='steps at most (default 2000)')
    parser.add_argument('--minutes', type=float, default=60, metavar='N', help='minutes at most (default 60)')
    parser.add_argument('--target', type=float, default=0.95, metavar='MAP', help='COCO mAP to reach (default 0.95)')
    parser.add_argument('--lr', type=float, help='learning rate, default see vitdense/engine/overfit.py')
    parser.add_argument('--seed', type=int, default=0, help='of the choice of images and of the weights (default 0)')
    return parser
