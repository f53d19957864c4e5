"""A small data set of semantic maps whose files can be spoiled."""

from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope
from PIL import Image

from support.scan import picture
from vitdense.datasets.scan import SplitReport, scan_data
from vitdense.registry import DATASETS

CLASSES = ['road', 'car', 'sky']
LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]


class SegFolder:
    """Images 0 to 4 and maps with the values 0, 1, 2 and 255, in the folders of ADE20K."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for kind in ('images', 'maps'):
            (root / kind).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(picture(i)).save(self.image(i))
            self.save_map(i, np.tile(np.array([0, 1, 2, 255], np.uint8), (60, 20)))

    def image(self, i: int) -> Path:
        return self.root / f'images/{i}.jpg'

    def map(self, i: int) -> Path:
        return self.root / f'maps/{i}.png'

    def save_map(self, i: int, values: np.ndarray) -> None:
        Image.fromarray(values).save(self.map(i))

    def config(self, pipeline: list = LOAD, split: str = 'train', **changes) -> Config:
        dataset = dict(
            type='BaseSegDataset',
            data_root=str(self.root),
            data_prefix=dict(img_path='images', seg_map_path='maps'),
            metainfo=dict(classes=CLASSES),
            pipeline=pipeline,
        )
        return Config(dict(default_scope='mmseg', **{f'{split}_dataloader': dict(dataset=dict(dataset, **changes))}))

    def scan(self, check: str = 'full', split: str = 'train', **changes) -> SplitReport:
        return scan_data(self.config(split=split, **changes), (split,), check)[0]


def build(node: dict) -> BaseDataset:
    with DefaultScope.overwrite_default_scope('mmseg'):
        return DATASETS.build(node)


def names(node: dict) -> list[str]:
    dataset = build(dict(node, pipeline=[]))
    return [Path(dataset.get_data_info(i)['img_path']).stem for i in range(len(dataset))]
