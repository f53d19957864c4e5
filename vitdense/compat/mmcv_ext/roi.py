"""RoIAlign and RoIPool. Images (B, C, H, W); ``rois`` (N, 5): image number, then a box xyxy in image pixels."""

from typing import Any

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from vitdense.compat.mmcv_ext.precision import widen
from vitdense.compat.mmcv_ext.unavailable import OpNotAvailableError, message

__all__ = ['roi_align_backward', 'roi_align_forward', 'roi_pool_backward', 'roi_pool_forward']

AVERAGE = 1


def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, **settings: Any
) -> None:
    """Write the pooled regions into ``output`` (N, C, aligned_height, aligned_width)."""
    output.copy_(torch.ops.torchvision.roi_align(*widen(input, rois), **_bins_of('roi_align_forward', **settings)))


def roi_align_backward(
    grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor, **settings: Any
) -> None:
    """Write the gradient of the images into ``grad_input`` (B, C, H, W)."""
    bins = _bins_of('roi_align_backward', **settings)
    bins |= zip(('batch_size', 'channels', 'height', 'width'), grad_input.shape, strict=True)
    grad_input.copy_(torch.ops.torchvision._roi_align_backward(*widen(grad_output, rois), **bins))


def _bins_of(op: str, aligned_height: int, aligned_width: int, pool_mode: int, **others: Any) -> dict[str, Any]:
    """mmcv's settings under torchvision's names."""
    if pool_mode != AVERAGE:
        raise OpNotAvailableError(message(f"{op} with pool_mode='max'"))
    return dict(others, pooled_height=aligned_height, pooled_width=aligned_width)


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write the maximum of each bin into ``output`` (N, C, pooled_height, pooled_width), its place into ``argmax``.

    A region runs from ``x1 * scale`` to ``(x2 + 1) * scale`` and is not rounded, unlike torchvision's, which therefore
    cannot be used. An empty bin gives 0 and the place -1.
    """
    wide, boxes = widen(input, rois)
    width = input.shape[3]
    images = rois[:, 0].long().tolist()
    starts, ends = boxes[:, 1:3] * spatial_scale, (boxes[:, 3:5] + 1) * spatial_scale
    in_column = _bins(starts[:, 0], ends[:, 0], pooled_width, width)  # (N, pooled_width, W)
    in_row = _bins(starts[:, 1], ends[:, 1], pooled_height, input.shape[2])  # (N, pooled_height, H)
    for n, image in enumerate(images):
        row_best, row_place = _masked_max(wide[image], in_column[n])  # (C, H, pooled_width)
        best, place = _masked_max(row_best.transpose(1, 2), in_row[n])  # (C, pooled_width, pooled_height)
        best, y = best.transpose(1, 2), place.transpose(1, 2)  # (C, pooled_height, pooled_width)
        empty = best == -torch.inf
        argmax[n] = (y * width + row_place.gather(1, y)).masked_fill(empty, -1)
        output[n] = best.masked_fill(empty, 0)


def _bins(start: Tensor, end: Tensor, count: int, size: int) -> Tensor:
    """Which of ``size`` positions lie in which bin: (N, count, size), bool. Start and end (N,) in positions."""
    edges = torch.arange(count + 1, device=start.device) * ((end - start) / count)[:, None] + start[:, None]
    low, high = edges[:, :-1, None].floor(), edges[:, 1:, None].ceil()
    place = torch.arange(size, device=start.device)
    return (place >= low) & (place < high) & (end > start)[:, None, None]


def _masked_max(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum and its first place over the last axis: values (C, X, S), mask (bins, S) -> (C, X, bins) each."""
    return values[:, :, None].masked_fill(~mask, -torch.inf).max(dim=-1)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write the gradient of the images into ``grad_input`` (B, C, H, W): each bin's goes to its maximum."""
    (grad,) = widen(grad_output)
    channels, area = grad_input.shape[1], grad_input.shape[2] * grad_input.shape[3]
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)  # (N, C)
    place = plane[:, :, None, None] * area + argmax.clamp(min=0)
    flat = grad.new_zeros(grad_input.numel())
    flat.index_add_(0, place.flatten(), grad.masked_fill(argmax < 0, 0).flatten())
    grad_input.copy_(flat.view_as(grad_input))
