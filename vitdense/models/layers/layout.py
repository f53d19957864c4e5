"""The only place that converts between the two layouts: tokens (B, N, C) with ``hw``, and maps (B, C, H, W)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vitdense.ops.ms_deform_attn.module import sizes_tensor

from .sizes import ceil_div, is_known, is_same


def to_tokens(x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Map (B, C, H, W) to tokens (B, N, C), N = H * W in row order, and ``hw``. A view for channels-last maps."""
    hw = (x.shape[2], x.shape[3])
    return x.flatten(2).transpose(1, 2), hw


def to_map(tokens: Tensor, hw: tuple[int, int]) -> Tensor:
    """Tokens (B, N, C) to the map (B, C, H, W), a channels-last view."""
    return tokens.unflatten(1, hw).permute(0, 3, 1, 2)


def pad_to_minimum(image: Tensor, size: int) -> Tensor:
    """Zero-pad an image (B, C, H, W) at the right and the bottom until both sides have at least ``size`` pixels.

    A model that is recorded with a larger image is one for images of at least ``size`` pixels.
    """
    height, width = image.shape[2:]
    if height >= size and width >= size:
        return image
    return F.pad(image, (0, max(size - width, 0), 0, max(size - height, 0)))


def pad_to_multiple(image: Tensor, size: int) -> Tensor:
    """Zero-pad an image (B, C, H, W) at the right and the bottom until both sides are multiples of ``size``."""
    below, right = (ceil_div(side, size) * size - side for side in image.shape[2:])
    if is_known(below == 0) and is_known(right == 0):
        return image
    return F.pad(image, (0, right, 0, below))


def to_windows(tokens: Tensor, hw: tuple[int, int], window: int, fill: Tensor | None = None) -> Tensor:
    """Tokens (B, N, C) of a map ``hw`` to tokens of its windows (B * windows, window ** 2, C).

    A map that the windows do not divide is padded at the right and the bottom with ``fill`` (C,), default zeros.
    """
    x = tokens.unflatten(1, hw)
    for dim in (1, 2):
        missing = ceil_div(x.shape[dim], window) * window - x.shape[dim]
        if not is_known(missing == 0):
            shape = [*x.shape[:dim], missing, *x.shape[dim + 1 :]]
            x = torch.cat([x, x.new_zeros(shape) if fill is None else fill.to(x.dtype).expand(shape)], dim)
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))  # (B, rows, window, columns, window, C)
    return x.transpose(2, 3).reshape(-1, window**2, x.shape[-1])


def from_windows(windows: Tensor, hw: tuple[int, int], window: int) -> Tensor:
    """Tokens of windows (B * windows, window ** 2, C) to tokens of the map ``hw`` (B, N, C), without the padding."""
    rows, columns = (ceil_div(side, window) for side in hw)
    x = windows.view(-1, rows, columns, window, window, windows.shape[-1]).transpose(2, 3)
    x = x.reshape(-1, rows * window, columns * window, x.shape[-1])
    return x[:, : hw[0], : hw[1]].flatten(1, 2)


def valid_sizes(
    image_hws: Sequence[tuple[int, int]], batch_hw: tuple[int, int], hw: tuple[int, int]
) -> list[tuple[int, int]]:
    """Rows and columns of a map ``hw`` that show each image of ``image_hws``, which a batch pads to ``batch_hw``.

    As in DETR, a place of the map belongs to the image if the pixel does at which nearest interpolation puts it.
    """
    return [
        hw
        if is_same(image_hw, batch_hw)
        else (ceil_div(image_hw[0] * hw[0], batch_hw[0]), ceil_div(image_hw[1] * hw[1], batch_hw[1]))
        for image_hw in image_hws
    ]


def padding_mask(valid_hws: Sequence[tuple[int, int]], hw: tuple[int, int], device: torch.device) -> Tensor | None:
    """Mask (B, N) of a map ``hw``, True outside the first rows and columns ``valid_hws``; None without any padding."""
    if all(is_same(valid, hw) for valid in valid_hws):
        return None
    valid = torch.tensor(valid_hws, device=device)
    rows, columns = (torch.arange(side, device=device) >= valid[:, [i]] for i, side in enumerate(hw))  # (B, H), (B, W)
    return (rows[:, :, None] | columns[:, None]).flatten(1)


class TokenPyramid(NamedTuple):
    """Several maps of the same images as one sequence of S tokens, level by level.

    Attributes:
        tokens: (B, S, C).
        pos: their position encodings (B, S, C).
        padding_mask: True at padding (B, S); None without any.
        centres: of the tokens, xy (B, S, 2), in [0, 1] of the image without padding; beyond 1 in the padding.
        valid_ratios: share of each level that shows the image, xy (B, L, 2).
        shapes: (H, W) of each level.
    """

    tokens: Tensor
    pos: Tensor
    padding_mask: Tensor | None
    centres: Tensor
    valid_ratios: Tensor
    shapes: tuple[tuple[int, int], ...]


def pyramid_mask(
    valid_hws: Sequence[Sequence[tuple[int, int]]], shapes: Sequence[tuple[int, int]], device: torch.device
) -> Tensor | None:
    """:func:`padding_mask` (B, S) of all levels one after the other, from their ``valid_hws`` and ``shapes``."""
    masks = [padding_mask(valid, hw, device) for valid, hw in zip(valid_hws, shapes, strict=True)]
    if all(mask is None for mask in masks):
        return None
    size = len(valid_hws[0])
    blanks = [torch.zeros(size, height * width, dtype=torch.bool, device=device) for height, width in shapes]
    return torch.cat([blank if mask is None else mask for mask, blank in zip(masks, blanks, strict=True)], dim=1)


def cell_centres(valid_hws: Sequence[tuple[int, int]], hw: tuple[int, int], device: torch.device) -> Tensor:
    """Centres xy (B, N, 2) of the cells of a map ``hw``, relative to the rows and columns that show the image."""
    valid = sizes_tensor(valid_hws, torch.float32, device)
    rows, columns = (
        (torch.arange(side, dtype=torch.float32, device=device) + 0.5) / valid[:, [axis]]
        for axis, side in enumerate(hw)
    )
    full = len(valid), *hw
    return torch.stack([columns[:, None].expand(full), rows[:, :, None].expand(full)], dim=3).flatten(1, 2)
