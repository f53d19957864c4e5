"""Tables of a checkpoint that depend on the image size or the window, brought to the size of the model."""

import re
from collections.abc import Mapping

from torch import Tensor

from vitdense.checkpoint.layouts import FAMILIES


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
        wanted = tuple(shapes.get(key, table.shape))
        for pattern, resize in FAMILIES[family].tables:
            # what differs in the number of channels or heads belongs to another model
            if re.search(pattern, key) and table.shape != wanted and table.shape[-1] == wanted[-1]:
                resized[key] = resize(table.float(), wanted).to(table.dtype)
                names.append(key)
    return resized, names
