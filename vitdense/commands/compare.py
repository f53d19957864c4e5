"""``vitdense compare``: draw a metric of several runs in one picture."""

import argparse

from vitdense.engine.hooks.results import read_rows
from vitdense.evaluation.main_metric import main_metric
from vitdense.names import listed
from vitdense.visualization.curves import draw_comparison


def run(args: argparse.Namespace) -> None:
    """Draw the runs, and print where.

    Raises:
        ValueError: a run has no such metric, or it is not known which is the main one.
    """
    rows = {run.resolve().name: read_rows(run / 'results.csv') for run in args.runs}
    metrics = {
        key: value for run in rows.values() for row in run for key, value in row.items() if key.startswith('val/')
    }
    metric = args.metric or main_metric(metrics)
    if metric is None:
        raise ValueError(f'--metric: which of {listed(list(metrics), 12)} is the main one is not known')
    draw_comparison(rows, metric).savefig(args.out)
    print(f'written: {args.out.resolve()}')
