"""Small data sets with known faults, and configs for them."""

import json
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset

from vitdense.datasets.scan import SplitReport, scan_data
from vitdense.findings import Finding
from vitdense.registry import DATASETS

CLASSES = ('circle', 'square', 'triangle')
LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
WH = (80, 60)


def picture(seed: int, wh: tuple[int, int] = WH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (wh[1], wh[0], 3), np.uint8)


def write_picture(path: Path, seed: int, wh: tuple[int, int] = WH) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture(seed, wh))


def coco_content(images: int = 6) -> dict:
    """Images 1 to n with one annotation of each class: image i has annotations 3 i - 2, 3 i - 1 and 3 i."""
    content = dict(info=dict(description='test'), images=[], annotations=[])
    for i in range(1, images + 1):
        content['images'].append(dict(id=i, file_name=f'{i}.jpg', width=WH[0], height=WH[1]))
        for k in range(3):
            box = [5 + 20 * k, 10 + i, 18, 30]
            annotation = dict(id=3 * i - 2 + k, image_id=i, category_id=k + 1, bbox=box, area=540, iscrowd=0)
            content['annotations'].append(annotation)
    content['categories'] = [dict(id=k, name=name) for k, name in enumerate(CLASSES, 1)]
    return content


class CocoFolder:
    """A COCO data set of two splits on disk whose files can be spoiled."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.content = {'train': coco_content(), 'val': coco_content(2)}
        for number, (split, content) in enumerate(self.content.items()):
            for image in content['images']:
                write_picture(root / split / image['file_name'], 100 * number + image['id'])
        self.write()

    def write(self) -> None:
        for split, content in self.content.items():
            (self.root / f'{split}.json').write_text(json.dumps(content))

    def config(self, kind: str = 'vitdense.CocoDataset', pipeline: list = LOAD, **changes) -> Config:
        splits = {}
        for split in ('train', 'val'):
            dataset = dict(
                type=kind,
                data_root=str(self.root),
                ann_file=f'{split}.json',
                data_prefix=dict(img=split),
                metainfo=dict(classes=CLASSES),
                pipeline=pipeline,
                test_mode=split == 'val',
            )
            dataset.update(deepcopy(changes))
            splits[f'{split}_dataloader'] = dict(dataset=dataset)
            splits[f'{split}_evaluator'] = dict(type='CocoMetric', ann_file=f'{self.root}/{split}.json')
        return Config(dict(default_scope='mmdet', **splits))

    def scan(self, check: str = 'full', **changes) -> SplitReport:
        """The report of the training split."""
        return scan_data(self.config(**changes), ('train',), check)[0]

    def snapshot(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(self.root.rglob('*')) if path.is_file()}


def kinds(report: SplitReport) -> dict[str, int]:
    found: dict[str, int] = {}
    for finding in report.findings:
        found[finding.kind] = found.get(finding.kind, 0) + 1
    return found


def only(report: SplitReport) -> Finding:
    """The one finding that there is."""
    assert len(report.findings) == 1, report.findings
    return report.findings[0]


def load(node: dict) -> BaseDataset:
    """The data set of a config node, without a pipeline."""
    return DATASETS.build(dict(node, pipeline=[]))


def instances(dataset: BaseDataset) -> list[tuple]:
    """(image id, label, x1, y1, x2, y2) of all instances."""
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    return [(info['img_id'], one['bbox_label'], *one['bbox']) for info in infos for one in info['instances']]


def build_mmdet(cfg: Config, split: str) -> BaseDataset:
    """The data set of a split, with mmdet's own class."""
    return DATASETS.build(dict(cfg[f'{split}_dataloader'].dataset, type='mmdet.CocoDataset', pipeline=[]))
