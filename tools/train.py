"""Train a detector or a segmentor: ``python tools/train.py CONFIG``."""

from vitdense.commands import main

if __name__ == '__main__':
    main('train')
