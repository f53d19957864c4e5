"""Draw a metric of several runs in one picture: ``python tools/compare_runs.py work_dirs/a work_dirs/b``."""

import argparse
from pathlib import Path

from vitdense.engine.hooks.results import read_rows
from vitdense.visualization.curves import draw_comparison

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Draw a metric of several runs against epoch and time.')
    parser.add_argument('runs', nargs='+', type=Path, help='work dirs; their names are those of the curves')
    parser.add_argument('--metric', default='val/coco/bbox_mAP', help='column of results.csv (default %(default)s)')
    parser.add_argument('--out', type=Path, default='comparison.png', help='picture (default %(default)s)')
    args = parser.parse_args()
    draw_comparison({run.resolve().name: read_rows(run / 'results.csv') for run in args.runs}, args.metric).savefig(
        args.out
    )
    print(f'written: {args.out.resolve()}')
