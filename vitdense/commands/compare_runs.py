"""``tools/compare_runs.py``: draw a metric of several runs in one picture."""

import argparse
from pathlib import Path

from vitdense.engine.hooks.results import read_rows
from vitdense.visualization.curves import draw_comparison


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``tools/compare_runs.py``."""
    parser.description = 'Draw a metric of several runs against epoch and time.'
    parser.add_argument('runs', nargs='+', type=Path, help='work dirs; their names are those of the curves')
    parser.add_argument('--metric', default='val/coco/bbox_mAP', help='column of results.csv (default %(default)s)')
    parser.add_argument('--out', type=Path, default='comparison.png', help='picture (default %(default)s)')


def run(args: argparse.Namespace) -> None:
    """Draw the runs, and print where."""
    rows = {run.resolve().name: read_rows(run / 'results.csv') for run in args.runs}
    draw_comparison(rows, args.metric).savefig(args.out)
    print(f'written: {args.out.resolve()}')
