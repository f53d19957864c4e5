"""Tensors that one layout has and another computes: projections in one or several parts, biases, class entries."""

import math
import re
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from .family import State


@dataclass(frozen=True)
class Rows:
    """Projections that are one parameter in one layout and several in another, joined along the first axis.

    Attributes:
        whole: what the name of the joint one has.
        parts: what the names of the several have in the place of it.
    """

    whole: str
    parts: tuple[str, ...]

    def join(self, state: State) -> State:
        """Join the several.

        Raises:
            KeyError: one of them is missing.
        """
        joined: State = {}
        for key, value in state.items():
            part = next((part for part in self.parts if part in key), None)
            if part is None:
                joined[key] = value
            elif (name := key.replace(part, self.whole)) not in joined:
                joined[name] = torch.cat([state[key.replace(part, other)] for other in self.parts])
        return joined

    def split(self, state: State) -> State:
        """Undo :meth:`join`."""
        divided: State = {}
        for key, value in state.items():
            pieces = value.chunk(len(self.parts)) if self.whole in key else [value]
            names = [key.replace(self.whole, part) for part in self.parts] if self.whole in key else [key]
            divided |= zip(names, pieces, strict=True)
        return divided


def add_biases(state: State, pattern: str) -> State:
    """Give the convolutions whose weights match ``pattern`` a bias of zeros where they have none."""
    weights = [key for key in state if re.fullmatch(pattern, key)]
    return {_bias(key): torch.zeros_like(state[key][:, 0, 0, 0]) for key in weights} | state


def drop_biases(state: State, pattern: str, layout: str) -> State:
    """Undo :func:`add_biases` for a ``layout`` that has no place for them.

    Raises:
        ValueError: one of them is not zero.
    """
    biases = {_bias(key) for key in state if re.fullmatch(pattern, key)} & state.keys()
    for key in sorted(biases):
        if state[key].any():
            raise ValueError(f'{key} is not zero, and the {layout} layout has no place for it')
    return {key: value for key, value in state.items() if key not in biases}


def _bias(weight: str) -> str:
    return weight.removesuffix('weight') + 'bias'


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
