"""Command lines of the tools."""

import argparse

from mmengine.config import DictAction


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file, or one of an installed package: mmdet::retinanet/...')
    parser.add_argument('--work-dir', help='folder of logs and checkpoints, default work_dirs/CONFIG')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='override settings of the config'
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    return parser


def train_parser() -> argparse.ArgumentParser:
    """Options of ``tools/train.py``."""
    parser = _parser('Train a detector or a segmentor, and evaluate it.')
    parser.add_argument('--backbone', metavar='NAME', help='swap the backbone of the config, e.g. pvt_small, pvt_v2_b2')
    parser.add_argument(
        '--no-pretrained', dest='pretrained', action='store_false', help='train the backbone from random weights'
    )
    parser.add_argument(
        '--resume', nargs='?', const='auto', metavar='CHECKPOINT', help='go on from it, or from the last one'
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size of this run'
    )
    return parser


def test_parser() -> argparse.ArgumentParser:
    """Options of ``tools/test.py``."""
    parser = _parser('Evaluate a checkpoint.')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', metavar='FILE.pkl', help='save the predictions')
    parser.add_argument('--show-dir', metavar='DIR', help='save the images with their predictions')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation, as the config describes it')
    return parser
