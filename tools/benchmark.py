"""What a model costs: ``python tools/benchmark.py WORK_DIR --vs OTHER``."""

from vitdense.commands import main

if __name__ == '__main__':
    main('benchmark')
