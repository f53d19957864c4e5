"""One training step of a model of mmdet or mmseg on generated images: does it run, and does all of it learn?"""

from collections.abc import Callable
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData
from torch import nn

from vitdense.config.swap.measure import without_weights


def detection_batch(cfg: Config, side: int) -> dict:
    """Two images with boxes, masks and maps, as mmdet's pipelines give them."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    shrink = 8 if 'SegRescale' in str(cfg._cfg_dict) else 1
    inputs, samples = [], []
    for index in range(2):
        boxes = torch.tensor([[8.0, 8, 60, 100], [40, 20, 120, 90], [70, 70, 110, 124]])
        masks = torch.zeros(3, side, side, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        sample = DetDataSample(
            metainfo=dict(
                img_id=index,
                img_shape=(side, side),
                ori_shape=(side, side),
                scale_factor=(1.0, 1.0),
                flip=False,
                flip_direction=None,
                border=[1, 1, 1, 1],
            )
        )
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(3, dtype=torch.long))
        if "'with_mask': True" in str(cfg._cfg_dict):
            sample.gt_instances.masks = BitmapMasks(masks.numpy(), side, side)
        sample.ignored_instances = InstanceData(bboxes=boxes[:0])
        sample.proposals = InstanceData(bboxes=boxes + 4, scores=torch.ones(3), labels=torch.zeros(3, dtype=torch.long))
        maps = masks.amax(0, keepdim=True)[:, ::shrink, ::shrink].long()
        sample.gt_sem_seg = PixelData(sem_seg=maps)
        inputs.append(torch.randint(256, (3, side, side), dtype=torch.uint8))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def segmentation_batch(cfg: Config, side: int) -> dict:
    """Two images with label maps, as mmseg's pipelines give them."""
    from mmseg.structures import SegDataSample

    inputs, samples = [], []
    for _ in range(2):
        sample = SegDataSample(metainfo=dict(img_shape=(side, side), ori_shape=(side, side)))
        sample.gt_sem_seg = PixelData(data=torch.randint(2, (1, side, side)))
        sample.gt_edge_map = PixelData(data=torch.randint(2, (1, side, side)))
        sample.gt_depth_map = PixelData(data=torch.rand(1, side, side) + 1)
        inputs.append(torch.randint(256, (3, side, side), dtype=torch.uint8))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


BATCHES: dict[str, Callable[[Config, int], dict]] = {'mmdet': detection_batch, 'mmseg': segmentation_batch}
"""What makes the images, by the package of the model."""

SMALL = dict(nms_pre=100, max_per_img=20, num_queries=50, num_proposals=50, num_points=64, num=16)
"""Settings that cost time and do not concern the backbone, wherever a model has a larger one."""


def shrink(node: Any) -> Any:
    """A copy of a model config with settings no larger than those of ``SMALL``."""
    if isinstance(node, list | tuple):
        return type(node)(map(shrink, node))
    if not isinstance(node, dict):
        return node
    small = {key: shrink(value) for key, value in node.items() if key != 'batch_augments'}
    for key, value in SMALL.items():
        if isinstance(small.get(key), int) and small[key] > value:
            small[key] = value
    return small


def train_step(cfg: Config, side: int = 128) -> None:
    """One forward and backward pass of the config's model, without the weights that it would load.

    Args:
        cfg: a config of mmdet or mmseg.
        side: pixels of the images a side, at least 128.

    Raises:
        ArithmeticError: the loss is not finite.
        LookupError: parameters of the backbone or the neck have no gradient.
    """
    torch.manual_seed(0)
    node = ConfigDict(shrink(without_weights(cfg.model)))
    if node.get('data_preprocessor', {}).get('size'):
        node.data_preprocessor.size = (side, side)
    model = revert_sync_batchnorm(MODELS.build(node))
    model.train()
    MessageHub.get_current_instance().update_info_dict(dict(iter=1, epoch=0, max_iters=10, max_epochs=1))
    data = model.data_preprocessor(BATCHES[cfg.default_scope](cfg, side), training=True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    if not loss.isfinite():
        raise ArithmeticError(f'the loss is {loss.item()}')
    loss.backward()
    parameters = [one for part in ('backbone', 'neck') for one in _parameters(model, part)]
    idle = [name for name, parameter in parameters if parameter.requires_grad and parameter.grad is None]
    if idle and not cfg.get('find_unused_parameters'):
        raise LookupError(f'{len(idle)} parameters without a gradient, e.g. {", ".join(idle[:3])}')


def _parameters(model: nn.Module, part: str) -> list[tuple[str, nn.Parameter]]:
    module = getattr(model, part, None)
    return list(module.named_parameters(prefix=part)) if module else []
