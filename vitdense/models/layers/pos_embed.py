"""Position embeddings and the resizing of their grids."""

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
