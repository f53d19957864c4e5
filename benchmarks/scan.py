"""What the checks of a COCO file cost beside pycocotools' loading of it: ``python benchmarks/scan.py --scale 0.2``.

A file of the size of COCO's training set (118 000 images, 860 000 objects with polygons) is generated, with empty files
as images, which are looked for but not opened. Each measurement has a process of its own, and they take turns. Printed
are seconds, the least of all rounds, and their ratios to ``pycocotools.coco.COCO(file)``: of the checks for the first
time, with and without a pipeline that loads masks, and from the cache.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np
from rich.table import Table

IMAGES, OBJECTS = 118_000, 860_000
WH = 640, 480


def generate(folder: Path, scale: float) -> None:
    """Write ``instances.json`` and the images."""
    rng = np.random.default_rng(0)
    images, objects = round(IMAGES * scale), round(OBJECTS * scale)
    (folder / 'images').mkdir()
    content = dict(info={}, images=[], annotations=[])
    for i in range(images):
        name = f'{i:012}.jpg'
        (folder / 'images' / name).touch()
        content['images'].append(dict(id=i, file_name=name, width=WH[0], height=WH[1], license=1, date_captured=''))
    owners = rng.integers(0, images, objects).tolist()
    for number, owner in enumerate(owners):
        points = rng.integers(3, 40)
        angles = np.sort(rng.uniform(0, 2 * np.pi, points))
        centre, radii = rng.uniform(100, 380, 2), rng.uniform(3, 90, 2)
        xy = (centre + radii * np.stack([np.cos(angles), np.sin(angles)], 1)).round(2)
        low, high = xy.min(0), xy.max(0).clip(xy.min(0) + 2)
        crowd = number % 100 == 0
        mask = dict(size=[WH[1], WH[0]], counts=[1000, 100, WH[0] * WH[1] - 1100]) if crowd else [xy.ravel().tolist()]
        box = [2, 40, 1, 100] if crowd else [*low.tolist(), *(high - low).round(2).tolist()]
        content['annotations'].append(
            dict(
                segmentation=mask,
                area=box[2] * box[3] / 2,
                iscrowd=int(crowd),
                image_id=owner,
                bbox=box,
                category_id=number % 80 + 1,
                id=number,
            )
        )
    content['categories'] = [dict(id=k, name=f'class {k}', supercategory='none') for k in range(1, 81)]
    (folder / 'instances.json').write_text(json.dumps(content))


def load(folder: Path) -> float:
    """Seconds of pycocotools."""
    from pycocotools.coco import COCO

    start = time.perf_counter()
    COCO(str(folder / 'instances.json'))
    return time.perf_counter() - start


def check(folder: Path, masks: bool, keep: bool) -> float:
    """Seconds of the checks, from the cache where a process before this one has filled it."""
    from mmengine.config import Config

    import vitdense.datasets.scan.scan as scan
    from vitdense.datasets.scan import scan_data

    import_module('vitdense.datasets.coco')  # mmdet, before the clock starts
    scan.MOST_OPENED = 0
    dataset = dict(
        type='vitdense.CocoDataset',
        data_root=str(folder),
        ann_file='instances.json',
        data_prefix=dict(img='images'),
        metainfo=dict(classes=[f'class {k}' for k in range(1, 81)]),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=masks)],
    )
    cfg = Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset)))
    if not keep:
        os.environ['VITDENSE_CACHE'] = str(folder / f'cache{os.getpid()}')
    start = time.perf_counter()
    [report] = scan_data(cfg, ('train',))
    seconds = time.perf_counter() - start
    if report.fatal or report.opened:
        raise RuntimeError(f'the generated file has faults: {report.fatal[:3]}, or images were opened')
    return seconds


MEASUREMENTS = {
    'pycocotools': load,
    'checks, boxes': lambda folder: check(folder, False, False),
    'checks, boxes and masks': lambda folder: check(folder, True, False),
    'checks from the cache': lambda folder: check(folder, True, True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--scale', type=float, default=1.0, help='share of the size of COCO, 1 by default')
    parser.add_argument('--repeat', type=int, default=3, help='rounds')
    parser.add_argument('--only', nargs=2, metavar=('MEASUREMENT', 'FOLDER'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(f'seconds {MEASUREMENTS[args.only[0]](Path(args.only[1])):.4f}')
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), args.scale)
        size = Path(folder, 'instances.json').stat().st_size / 2**20
        environment = os.environ | {'VITDENSE_CACHE': f'{folder}/cache'}
        seconds = {name: [] for name in MEASUREMENTS}
        for turn in range(args.repeat + 1):  # the first fills the cache and warms the disk
            for name, found in seconds.items():
                command = [sys.executable, __file__, '--only', name, folder]
                output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
                if turn:
                    found.append(float(output.split()[-1]))
    least = {name: min(found) for name, found in seconds.items()}
    table = Table(title=f'COCO file of {size:.0f} MB, {args.scale:g} of COCO')
    for column in ('', 'seconds', 'of pycocotools'):
        table.add_column(column, justify='right' if column else 'left')
    for name, value in least.items():
        table.add_row(name, f'{value:.2f}', f'{value / least["pycocotools"]:.2f}')
    from vitdense.console import CONSOLE

    CONSOLE.print(table)


if __name__ == '__main__':
    main()
