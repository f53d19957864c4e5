"""Train a detector or a segmentor: ``python tools/train.py CONFIG``."""

from vitdense.engine.cli import train_parser
from vitdense.engine.launch import train

if __name__ == '__main__':
    train(train_parser().parse_args())
