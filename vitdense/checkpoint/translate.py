"""Foreign checkpoint layouts to ours, and ours to theirs: pure functions from a state dict to a state dict."""

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


def divide(state: State, prefix: str) -> tuple[State, State]:
    """What begins with ``prefix``, without it, and the rest."""
    part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return part, {key: value for key, value in state.items() if not key.startswith(prefix)}


def joined(part: State, rest: State, prefix: str) -> State:
    """Undo :func:`divide`."""
    return {prefix + key: value for key, value in part.items()} | rest


def convert(checkpoint: Mapping, family: str) -> tuple[State, list[str]]:
    """Bring a checkpoint of any known layout into ours.

    Args:
        checkpoint: what the file holds, wrappers included.
        family: a key of ``FAMILIES``.

    Returns:
        The state dict under our names, and the foreign keys that the model does not use.

    Raises:
        ValueError: no layout of the family fits, or a key that the layout does not know.
    """
    state = unwrap(checkpoint)
    if not FAMILIES[family].whole:
        state = divide(state, 'backbone.')[0] or state  # which may be that of a detector
    return to_ours(state, layout_of(state, family))


def find_layout(state: State, family: str) -> Layout | None:
    """The layout of ``family`` that ``state`` has, None if it has none of them."""
    probes = ((layout, layout.probe) for layout in FAMILIES[family].layouts)
    return next((layout for layout, probe in probes if any(re.match(probe, key) for key in state)), None)


def layout_of(state: State, family: str) -> Layout:
    """The layout of ``family`` that ``state`` has.

    Raises:
        ValueError: it has none of them.
    """
    layout = find_layout(state, family)
    if layout is None:
        known = ', '.join(layout.name for layout in FAMILIES[family].layouts)
        other = recognise(state)
        seems = f'it is one of {other[0]}' if other else f'its first keys are {list(state)[:5]}'
        raise ValueError(f'not a checkpoint of {family} (known layouts: {known}); {seems}')
    return layout


def to_ours(state: State, layout: Layout) -> tuple[State, list[str]]:
    """``state`` under our names, and the keys that our models do not use.

    Raises:
        ValueError: a key that ``layout`` does not know, two for the same parameter, or one without its counterpart.
    """
    names = {key: layout.to_our_name(key) for key in state}
    renamed: State = {}
    for old, new in names.items():
        if new in renamed:
            raise ValueError(f'two keys for {new} in the {layout.name} layout: {old} is the second')
        if new is not None:
            renamed[new] = state[old]
    try:
        converted = layout.tensors(renamed)
    except KeyError as error:
        raise ValueError(f'{error} is missing in the {layout.name} layout') from error
    return converted, [old for old, new in names.items() if new is None]


def to_theirs(state: State, layout: Layout) -> State:
    """Our ``state`` under the names of ``layout``.

    Raises:
        ValueError: a parameter or a value that ``layout`` has no place for.
    """
    return {layout.to_their_name(key): value for key, value in layout.inverse(state).items()}


def recognise(state: State) -> tuple[str, Layout | None] | None:
    """What a state dict is of: a family that knows all of its keys, whole models first, and the layout.

    The layout is None where it is ours and nobody else's. None in all if no family knows ``state``.
    """
    for name, family in sorted(FAMILIES.items(), key=lambda item: not item[1].whole):
        layout = find_layout(state, name)
        if layout and not strangers(state, layout):
            return name, layout
        if family.own and any(re.match(family.own, key) for key in state):
            return name, None
    return None


def strangers(state: State, layout: Layout) -> list[str]:
    """The keys of ``state`` that ``layout`` does not know."""

    def is_stranger(key: str) -> bool:
        try:
            layout.to_our_name(key)
        except ValueError:
            return True
        return False

    return [key for key in state if is_stranger(key)]
