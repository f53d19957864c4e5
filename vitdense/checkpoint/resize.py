"""Tables of a checkpoint that depend on the image size or the window, brought to the size of the model."""

import re
from collections.abc import Mapping

from torch import Tensor

from vitdense.checkpoint.layouts import FAMILIES
from vitdense.models.backbones import Backbone


def resize_tables(state: Mapping[str, Tensor], backbone: Backbone) -> tuple[dict[str, Tensor], list[str]]:
    """Fit ``state`` to ``backbone``: its family's ``fit``, and the tables that differ in size resized.

    Returns:
        The state dict with resized tables, and their names.
    """
    family, own = FAMILIES[backbone.family], backbone.state_dict()
    state = family.fit(state, own)
    resized = dict(state)
    names = []
    for key, table in state.items():
        wanted = own[key].shape if key in own else table.shape
        for pattern, resize in family.tables:
            # what differs in the number of channels or heads belongs to another model
            if re.search(pattern, key) and table.shape != wanted and table.shape[-1] == wanted[-1]:
                resized[key] = resize(table.float(), wanted, **backbone.table_args(key)).to(table.dtype)
                names.append(key)
    return resized, names
