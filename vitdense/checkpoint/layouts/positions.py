"""The class entry of a position table that is stored and never used."""

import math

from torch.nn import functional as F

from .family import State


def drop_class_entry(state: State, key: str) -> State:
    """Drop the first entry of the table ``key`` (1, 1 + H*H, C), the patches of a square image after a class token."""
    patches = state[key].shape[1] - 1 if key in state else 0
    is_with_class = patches and math.isqrt(patches) ** 2 == patches
    return state | {key: state[key][:, 1:]} if is_with_class else state


def add_class_entry(state: State, key: str) -> State:
    """Undo :func:`drop_class_entry`, with zeros.

    Raises:
        ValueError: the table is not that of a square image.
    """
    if key not in state:
        return state
    entries = state[key].shape[1]
    if math.isqrt(entries) ** 2 != entries:
        raise ValueError(f'{key} with {entries} entries is not that of a square image, as in this layout')
    return state | {key: F.pad(state[key], (0, 0, 1, 0))}
