"""Tables of a checkpoint that depend on the image size, brought to the size of the model."""

import math
import re
from collections.abc import Mapping

from torch import Tensor

from vitdense.models.layers.pos_embed import resize_grid

RULES: dict[str, tuple[tuple[str, dict], ...]] = {
    'pvt': ((r'pos_embed\d$', dict(mode='bilinear')),),
    'pvt_v2': (),
}
"""By family: pattern of the position tables (1, H*W, C) of square images, and how its release resizes them."""


def resize_tables(
    state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], family: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Resize the tables in ``state`` that differ in size from ``shapes``, the model's own.

    Returns:
        The state dict with resized tables, and their names.
    """
    resized = dict(state)
    names = []
    for key, table in state.items():
        for pattern, how in RULES[family]:
            wanted = shapes.get(key, table.shape)
            if re.match(pattern, key) and table.shape != wanted and table.shape[2] == wanted[2]:
                old, new = math.isqrt(table.shape[1]), math.isqrt(wanted[1])
                resized[key] = resize_grid(table.float(), (old, old), (new, new), **how).to(table.dtype)
                names.append(key)
    return resized, names
