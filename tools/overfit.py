"""Learn a few training images by heart, the first check of a detector: ``python tools/overfit.py CONFIG``."""

from vitdense.commands import main

if __name__ == '__main__':
    main('overfit')
