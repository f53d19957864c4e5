"""Look for mistakes in a config and its data: ``python tools/check.py CONFIG``."""

from vitdense.engine.cli import check_parser
from vitdense.engine.dry_run import check

if __name__ == '__main__':
    check(check_parser().parse_args())
