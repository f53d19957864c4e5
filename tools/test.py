"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT``."""

from vitdense.commands import main

if __name__ == '__main__':
    main('test')
