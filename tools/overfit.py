"""Learn a few training images by heart, the first check of a detector: ``python tools/overfit.py CONFIG``."""

import sys

from vitdense.engine.cli import overfit_parser
from vitdense.engine.overfit import overfit

if __name__ == '__main__':
    sys.exit(0 if overfit(overfit_parser().parse_args()) else 1)
