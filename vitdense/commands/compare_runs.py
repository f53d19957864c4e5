"""``tools/compare_runs.py``: draw a metric of several runs in one picture."""

import argparse

from vitdense.engine.hooks.results import read_rows
from vitdense.visualization.curves import draw_comparison


def run(args: argparse.Namespace) -> None:
    """Draw the runs, and print where."""
    rows = {run.resolve().name: read_rows(run / 'results.csv') for run in args.runs}
    draw_comparison(rows, args.metric).savefig(args.out)
    print(f'written: {args.out.resolve()}')
