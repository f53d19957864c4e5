"""Position embeddings and the resizing of their grids."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .layout import to_map, to_tokens


def resize_grid(
    table: Tensor, old_hw: tuple[int, int], new_hw: tuple[int, int], mode: str = 'bilinear', antialias: bool = False
) -> Tensor:
    """Resize a learned grid of embeddings (1, H*W, C) from ``old_hw`` to ``new_hw``, as (1, H'*W', C).

    The grid is compared by its two sides, never by its number of tokens: 28 x 112 and 56 x 56 differ.
    """
    if old_hw == new_hw:
        return table
    grid = F.interpolate(to_map(table, old_hw), size=new_hw, mode=mode, align_corners=False, antialias=antialias)
    return to_tokens(grid)[0]


RESIZE_RULES = {
    'bicubic_antialias': dict(mode='bicubic', antialias=True),
    'bicubic': dict(mode='bicubic'),
    'bilinear': dict(mode='bilinear'),
}
"""How releases resize a position table: timm; DeiT, MAE and ViTDet; SETR."""


def resize_positions(table: Tensor, prefix: int, old_hw: tuple[int, int], new_hw: tuple[int, int], rule: str) -> Tensor:
    """Resize the grid of a position table (1, P + H*W, C) by a rule of ``RESIZE_RULES``; its ``prefix`` P entries stay.

    PyTorch's bicubic kernel with antialiasing is another one than without, so the rules differ also in enlarging.
    """
    if old_hw == new_hw:
        return table
    grid = resize_grid(table[:, prefix:], old_hw, new_hw, **RESIZE_RULES[rule])
    return torch.cat([table[:, :prefix], grid], dim=1)
