"""A small Open Images data set, in the CSV files of its release."""

import csv
import json
import pickle
from pathlib import Path

from mmengine.config import Config

from support.scan import LOAD, WH, write_picture

NAMES = {'/m/c': 'Circle', '/m/s': 'Square', '/m/x': 'Shape'}
META_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances', 'image_level_labels')


class OpenImages:
    """Images 1 to 3 with a circle each, the second with a square as well; both are shapes.

    Attributes:
        rows: image, class and box (x1, x2, y1, y2 from 0 to 1) of each object.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows = [(str(i), '/m/c', (0.1, 0.5, 0.1, 0.5)) for i in (1, 2, 3)]
        self.rows.insert(2, ('2', '/m/s', (0.5, 0.9, 0.5, 0.9)))
        for i in (1, 2, 3):
            write_picture(root / f'train/{i}.jpg', i)

    def write_csv(self, name: str, rows: list) -> None:
        """Write a file of the data set."""
        with open(self.root / name, 'w', newline='') as file:
            csv.writer(file).writerows(rows)

    def config(self, split: str = 'train', pipeline: list = LOAD, **changes) -> Config:
        flags = ('IsOccluded', 'IsTruncated', 'IsGroupOf', 'IsDepiction', 'IsInside')
        first = ('ImageID', 'Source', 'LabelName', 'Confidence', 'XMin', 'XMax', 'YMin', 'YMax', *flags)
        self.write_csv('boxes.csv', [first, *((i, 'x', name, 1, *box, 0, 0, 0, 0, 0) for i, name, box in self.rows)])
        self.write_csv('classes.csv', list(NAMES.items()))
        below = [dict(LabelName=name) for name in ('/m/c', '/m/s')]
        tree = dict(LabelName='/m/0', Subcategory=[dict(LabelName='/m/x', Subcategory=below)])
        (self.root / 'tree.json').write_text(json.dumps(tree))
        metas = [dict(filename=f'{i}.jpg', ori_shape=(WH[1], WH[0], 3)) for i in (1, 2, 3)]
        (self.root / 'metas.pkl').write_bytes(pickle.dumps(metas))
        dataset = dict(
            type='OpenImagesDataset',
            data_root=str(self.root),
            ann_file='boxes.csv',
            label_file='classes.csv',
            hierarchy_file='tree.json',
            meta_file='metas.pkl',
            data_prefix=dict(img='train'),
            pipeline=pipeline,
        )
        return Config(dict(default_scope='mmdet', **{f'{split}_dataloader': dict(dataset=dataset | changes)}))
