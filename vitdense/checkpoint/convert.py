"""Foreign checkpoint layouts to ours: pure functions from a state dict to a state dict."""

import re
from collections.abc import Mapping

from torch import Tensor

from vitdense.checkpoint.layouts import FAMILIES
from vitdense.checkpoint.layouts.family import Layout, State

WRAPPERS = ('state_dict', 'model', 'module')


def unwrap(checkpoint: Mapping) -> State:
    """The state dict inside a checkpoint file: wrappers and the prefix ``module.`` removed.

    Raises:
        ValueError: no tensors inside.
    """
    state = checkpoint
    for wrapper in WRAPPERS:
        if isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    state = {key.removeprefix('module.'): value for key, value in state.items() if isinstance(value, Tensor)}
    if not state:
        raise ValueError(f'no tensors in the checkpoint, its keys are {sorted(map(str, checkpoint))[:10]}')
    return state


def backbone_of(state: State) -> State:
    """That part of a detector's state dict which is its backbone, ``state`` itself if it is one."""
    part = {key.removeprefix('backbone.'): value for key, value in state.items() if key.startswith('backbone.')}
    return part or state


def convert(checkpoint: Mapping, family: str) -> tuple[State, list[str]]:
    """Bring a checkpoint of any known layout into ours.

    Args:
        checkpoint: what the file holds, wrappers included.
        family: a key of ``FAMILIES``: :attr:`Backbone.family`, or a whole model.

    Returns:
        The state dict under our names, and the foreign keys that the model does not use.

    Raises:
        ValueError: no layout of the family fits, or a key that the layout does not know.
    """
    state = unwrap(checkpoint)
    if not FAMILIES[family].whole:
        state = backbone_of(state)
    layout = find_layout(state, family)
    if layout is None:
        known = ', '.join(layout.name for layout in FAMILIES[family].layouts)
        raise ValueError(f'not a checkpoint of {family} (known layouts: {known}); its first keys are {list(state)[:5]}')
    return rename(state, layout)


def find_layout(state: State, family: str) -> Layout | None:
    """The layout of ``family`` that ``state`` has, None if it has none of them."""
    probes = ((layout, layout.probe) for layout in FAMILIES[family].layouts)
    return next((layout for layout, probe in probes if any(re.match(probe, key) for key in state)), None)


def rename(state: State, layout: Layout) -> tuple[State, list[str]]:
    """``state`` under our names, and the keys that the model does not use.

    Raises:
        ValueError: a key that ``layout`` does not know.
    """
    names = {key: layout.rename(key) for key in state}
    kept = {new: state[old] for old, new in names.items() if new is not None}
    return layout.tensors(kept), [old for old, new in names.items() if new is None]
