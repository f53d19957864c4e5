"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT``."""

from vitdense.engine.cli import test_parser
from vitdense.engine.launch import test

if __name__ == '__main__':
    test(test_parser().parse_args())
