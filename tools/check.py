"""Look for mistakes in a config and its data: ``python tools/check.py CONFIG``."""

from vitdense.commands import main

if __name__ == '__main__':
    main('check')
