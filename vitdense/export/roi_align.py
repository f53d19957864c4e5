"""RoIAlign over a pyramid as one operator, in PyTorch and in ONNX."""

from typing import Any

import torch
from torch import Tensor
from torchvision import ops


@torch.library.custom_op('vitdense::pyramid_roi_align', mutates_args=())
def pyramid_roi_align(
    maps: list[Tensor], regions: Tensor, levels: Tensor, scales: list[float], size: list[int], ratio: int
) -> Tensor:
    """Each region pooled from the map of its level.

    Args:
        maps: (B, C, H, W) of each level.
        regions: (N, 5), image and xyxy in pixels.
        levels: of each region (N,).
        scales: of the maps against the picture.
        size: rows and columns of what is pooled.
        ratio: samples in a bin each way, 0 for as many as there are pixels.

    Returns:
        (N, C, rows, columns); bins are aligned to the centres of pixels.
    """
    pooled = maps[0].new_zeros(len(regions), maps[0].shape[1], *size)
    for level, (one, scale) in enumerate(zip(maps, scales, strict=True)):
        chosen = (levels == level).nonzero()[:, 0]
        pooled[chosen] = ops.roi_align(one, regions[chosen], size, scale, ratio, aligned=True)
    return pooled


@pyramid_roi_align.register_fake
def _(maps: list[Tensor], regions: Tensor, levels: Tensor, scales: list[float], size: list[int], ratio: int) -> Tensor:
    return maps[0].new_empty(regions.shape[0], maps[0].shape[1], *size)


def translated(maps: Any, regions: Any, levels: Any, scales: Any, size: Any, ratio: int) -> Any:
    """The operator in ONNX, for ``torch.onnx.export(custom_translation_table=...)``."""
    from onnxscript import opset18

    op: Any = opset18
    images = op.Cast(op.Squeeze(op.Slice(regions, *_range(op, 0, 1)), op.Constant(value_ints=[1])), to=7)
    boxes = op.Slice(regions, *_range(op, 1, 5))
    number = op.Shape(regions, start=0, end=1)
    channels = op.Shape(maps[0], start=1, end=2)
    shape = op.Concat(number, channels, op.Constant(value_ints=list(size)), axis=0)
    pooled = op.Expand(op.Constant(value_float=0.0), shape)
    for level, (one, scale) in enumerate(zip(maps, scales, strict=True)):
        chosen = op.Transpose(op.NonZero(op.Equal(levels, op.Constant(value_int=level))), perm=[1, 0])  # (n, 1)
        places = op.Squeeze(chosen, op.Constant(value_ints=[1]))
        found = op.RoiAlign(
            one,
            op.Gather(boxes, places, axis=0),
            op.Gather(images, places, axis=0),
            coordinate_transformation_mode='half_pixel',
            mode='avg',
            output_height=size[0],
            output_width=size[1],
            sampling_ratio=ratio,
            spatial_scale=scale,
        )
        pooled = op.ScatterND(pooled, chosen, found)
    return pooled


def _range(op: Any, first: int, last: int) -> tuple[Any, Any, Any]:
    """Arguments of ``Slice`` for columns ``first`` to ``last``."""
    return op.Constant(value_ints=[first]), op.Constant(value_ints=[last]), op.Constant(value_ints=[1])
