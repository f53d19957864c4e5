"""Draw a metric of several runs in one picture: ``python tools/compare_runs.py work_dirs/a work_dirs/b``."""

from vitdense.commands import main

if __name__ == '__main__':
    main('compare')
