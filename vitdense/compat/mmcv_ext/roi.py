"""RoIAlign and RoIPool. Images (B, C, H, W); ``rois`` (N, 5): image number, then a box xyxy in image pixels."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from vitdense.compat.mmcv_ext.precision import widen

__all__ = ['roi_align_backward', 'roi_align_forward', 'roi_pool_backward', 'roi_pool_forward']

MAXIMUM, AVERAGE = range(2)
MOST_SAMPLES = 2**24
"""Of a region that is pooled to means."""


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    pool_mode: int,
    **settings: Any,
) -> None:
    """Write the pooled regions into ``output`` (N, C, aligned_height, aligned_width).

    A bin gives the mean of its samples, or with ``pool_mode`` 0 their maximum, whose row and column among the samples
    go into ``argmax_y`` and ``argmax_x``, both of the size of ``output``. A bin without samples gives 0, a region with
    NaN or infinity NaN.
    """
    input, rois = widen(input, rois)
    if pool_mode == AVERAGE:
        output.copy_(torch.where(rois.isfinite().all(dim=1), 0.0, torch.nan).view(-1, 1, 1, 1).expand_as(output))
        for regions, bins in _feasible(rois, **settings):
            output[regions] = torch.ops.torchvision.roi_align(input, rois[regions], **_renamed(**bins)).to(output)
        return
    output.zero_()
    for regions, grid in _grids(rois, **settings):
        samples = torch.ops.torchvision.roi_align(input, rois[regions], **_renamed(grid, **settings))
        best, place = _by_bin(samples, grid).flatten(4).max(dim=4)
        output[regions] = best.to(output)
        argmax_y[regions], argmax_x[regions] = (place // grid[1]).to(argmax_y), (place % grid[1]).to(argmax_x)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    pool_mode: int,
    **settings: Any,
) -> None:
    """Write the gradient of the images into ``grad_input`` (B, C, H, W)."""
    grad, rois = widen(grad_output, rois)
    size = dict(zip(('batch_size', 'channels', 'height', 'width'), grad_input.shape, strict=True))
    backward = torch.ops.torchvision._roi_align_backward
    total = grad.new_zeros(grad_input.shape)
    if pool_mode == AVERAGE:
        for regions, bins in _feasible(rois, **settings):
            total += backward(grad[regions], rois[regions], **_renamed(**bins), **size)
        grad_input.copy_(total)
        return
    for regions, grid in _grids(rois, **settings):
        bins = _renamed(grid, **settings)
        samples = grad.new_zeros(len(regions), grad.shape[1], bins['pooled_height'], bins['pooled_width'])
        place = argmax_y[regions, ..., None, None].long(), argmax_x[regions, ..., None, None].long()
        rows, columns = (torch.arange(count, device=grad.device) for count in grid)
        chosen = (rows[:, None] == place[0]) & (columns == place[1])
        _by_bin(samples, grid).copy_(torch.where(chosen, grad[regions, ..., None, None], 0))
        total += backward(samples, rois[regions], **bins, **size)
    grad_input.copy_(total)


def _feasible(rois: Tensor, **settings: Any) -> Iterator[tuple[Tensor | slice, dict]]:
    """Regions, and the settings that they are pooled with: as given, but not more samples than fit into memory.

    Where ``sampling_ratio`` leaves the number of samples to the size of a region, one of billions of pixels, as an
    untrained head predicts it, has that many: torchvision's kernel for CPUs keeps a weight for each. It fails with
    regions whose sides are swapped, which have no sample; these are left out, as those with NaN or infinity.
    """
    if rois.device.type != 'cpu':
        yield slice(None), settings
        return
    sides = (rois[:, 3:5] - rois[:, 1:3]) * settings['spatial_scale']
    sampled = rois.isfinite().all(dim=1)
    if settings['sampling_ratio'] > 0:
        samples = torch.zeros_like(sides[:, 0])
    else:
        samples = sides.clamp(min=1).prod(dim=1)
        sampled &= (sides >= 0).all(dim=1) | (not settings['aligned'])
    fits = sampled & (samples <= MOST_SAMPLES)
    if bool(fits.all()):
        yield slice(None), settings
        return
    ratio = int((MOST_SAMPLES / (settings['aligned_height'] * settings['aligned_width'])) ** 0.5)
    yield fits.nonzero()[:, 0], settings
    yield (sampled & ~fits).nonzero()[:, 0], dict(settings, sampling_ratio=max(1, ratio))


def _renamed(grid: Sequence[int] | None = None, *, aligned_height: int, aligned_width: int, **others: Any) -> dict:
    """mmcv's settings under torchvision's names; with a grid each of its samples is a bin of one sample."""
    if grid is None:
        return dict(others, pooled_height=aligned_height, pooled_width=aligned_width)
    return dict(others, pooled_height=aligned_height * grid[0], pooled_width=aligned_width * grid[1], sampling_ratio=1)


def _grids(
    rois: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Iterator[tuple[Tensor, list[int]]]:
    """Rows and columns of the samples in a bin, with the numbers of the regions that have so many."""
    if sampling_ratio > 0:
        yield torch.arange(len(rois), device=rois.device), [sampling_ratio] * 2
        return
    shift = 0.5 if aligned else 0
    sides = (rois[:, 3:5] * spatial_scale - shift) - (rois[:, 1:3] * spatial_scale - shift)
    if not aligned:
        sides = sides.clamp(min=1)
    grids = (sides.flip(1) / sides.new_tensor([aligned_height, aligned_width])).ceil().long()
    for grid in grids.unique(dim=0).tolist():
        if min(grid) > 0:
            yield (grids == grids.new_tensor(grid)).all(dim=1).nonzero()[:, 0], grid


def _by_bin(samples: Tensor, grid: Sequence[int]) -> Tensor:
    """A view of samples (N, C, bins * rows, bins * columns) as (N, C, bins, bins, rows, columns)."""
    return samples.unflatten(3, (-1, grid[1])).unflatten(2, (-1, grid[0])).transpose(3, 4)


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
