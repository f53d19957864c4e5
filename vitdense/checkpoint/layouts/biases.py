"""Biases that one code gives its convolutions and another does not."""

import re

import torch

from .family import State


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
