"""Position embeddings and the resizing of their grids."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vitdense.ops.ms_deform_attn.module import sizes_tensor

from .layout import to_map, to_tokens
from .precision import widened
from .sizes import is_same


def resize_grid(
    table: Tensor, old_hw: tuple[int, int], new_hw: tuple[int, int], mode: str = 'bilinear', antialias: bool = False
) -> Tensor:
    """Resize a learned grid of embeddings (1, H*W, C) from ``old_hw`` to ``new_hw``, as (1, H'*W', C).

    The grid is compared by its two sides, never by its number of tokens: 28 x 112 and 56 x 56 differ. Half types are
    computed in float32.
    """
    if is_same(old_hw, new_hw):
        return table
    grid = F.interpolate(
        to_map(widened(table), old_hw), size=new_hw, mode=mode, align_corners=False, antialias=antialias
    )
    return to_tokens(grid)[0].to(table.dtype)


RESIZE_RULES: dict[str, dict[str, Any]] = {
    'bicubic_antialias': dict(mode='bicubic', antialias=True),
    'bicubic': dict(mode='bicubic'),
    'bilinear': dict(mode='bilinear'),
}
"""How releases resize a position table: timm; DeiT, MAE and ViTDet; SETR."""


def resize_positions(table: Tensor, prefix: int, old_hw: tuple[int, int], new_hw: tuple[int, int], rule: str) -> Tensor:
    """Resize the grid of a position table (1, P + H*W, C) by a rule of ``RESIZE_RULES``; its ``prefix`` P entries stay.

    PyTorch's bicubic kernel with antialiasing is another one than without, so the rules differ also in enlarging.
    """
    if is_same(old_hw, new_hw):
        return table
    grid = resize_grid(table[:, prefix:], old_hw, new_hw, **RESIZE_RULES[rule])
    return torch.cat([table[:, :prefix], grid], dim=1)


def sine_positions(
    valid_hws: Sequence[tuple[int, int]],
    hw: tuple[int, int],
    channels: int,
    device: torch.device,
    offset: float = 0.0,
    temperature: float = 10000.0,
) -> Tensor:
    """Sine position encodings (B, N, C) of maps ``hw``, in float32; the first half of the channels has the row.

    Row and column are counted from 1, moved by ``offset`` (-0.5 in Deformable DETR), and divided by the number of those
    that show the image, ``valid_hws``; a full side is 2 pi (DETR, supplementary material).
    """
    valid = sizes_tensor(valid_hws, torch.float32, device)
    rows, columns = (
        sines(
            (torch.arange(1, side + 1, dtype=torch.float32, device=device) + offset) / (valid[:, [axis]] + 1e-6),
            channels // 2,
            temperature,
        )
        for axis, side in enumerate(hw)
    )
    full = len(valid), *hw, channels // 2
    return torch.cat([rows[:, :, None].expand(full), columns[:, None].expand(full)], dim=3).flatten(1, 2)


def sines(x: Tensor, channels: int, temperature: float = 10000.0) -> Tensor:
    """Sines and cosines (..., C) in turn of ``x`` (...), a period of the fastest from 0 to 1."""
    exponents = torch.arange(0, channels, 2, dtype=x.dtype, device=x.device) / channels
    angles = 2 * math.pi * x[..., None] / temperature**exponents
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)
