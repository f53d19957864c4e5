"""Images and labels as a data set's pipeline loads them."""

import re

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import TRANSFORMS
from torch import Tensor

from .drawing import rgb_image
from .labels import Labels, loaded_labels


def load(dataset: BaseDataset, index: int, bgr: bool) -> tuple[Tensor, Labels]:
    """Image ``index`` of a data set, (3, H, W) uint8 RGB, and its labels, as its pipeline loads them, before all else.

    A pipeline without a transform that loads labels gets the one of mmdet or mmseg.
    """
    while not hasattr(dataset, 'pipeline'):
        inner = dataset._get_ori_dataset_idx(index)
        dataset, index = (
            (dataset.datasets[inner[0]], inner[1]) if isinstance(inner, tuple) else (dataset.dataset, inner)
        )
    results = dataset.get_data_info(index)
    loaders = [t for t in dataset.pipeline.transforms if re.match('Load.*(Image|Annotations)', type(t).__name__)]
    if not any('Annotations' in type(t).__name__ for t in loaders):
        if 'instances' in results:
            loaders.append(TRANSFORMS.build(dict(type='mmdet.LoadAnnotations', with_bbox=True)))
        elif 'seg_map_path' in results:
            loaders.append(TRANSFORMS.build(dict(type='mmseg.LoadAnnotations')))
    for transform in loaders:
        results = transform(results)
    return rgb_image(results['img'], bgr), loaded_labels(results)


def is_bgr(cfg: Config) -> bool:
    """Whether images are blue first before the data preprocessor: always, but where that is told to make them so."""
    node = cfg.get('model') or {}
    while node := node.get('data_preprocessor'):
        if node.get('rgb_to_bgr'):
            return False
    return True
