"""Parameters and FLOPs of a config's model: ``python tools/get_flops.py CONFIG --shape 800 1280``."""

from vitdense.commands import main

if __name__ == '__main__':
    main('flops')
