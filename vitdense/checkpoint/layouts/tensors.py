"""Tensors that one layout has and another computes: projections in one or several parts, biases, class entries."""

import math
import re

import torch
from torch.nn import functional as F

from .family import State


def join_rows(state: State, whole: str, parts: tuple[str, ...]) -> State:
    """Join parameters along the first axis: those whose names have one of ``parts`` where the joint one has ``whole``.

    Raises:
        KeyError: one of several is missing.
    """
    joined: State = {}
    for key, value in state.items():
        part = next((part for part in parts if part in key), None)
        if part is None:
            joined[key] = value
        elif (name := key.replace(part, whole)) not in joined:
            joined[name] = torch.cat([state[key.replace(part, other)] for other in parts])
    return joined


def split_rows(state: State, whole: str, parts: tuple[str, ...]) -> State:
    """Undo :func:`join_rows`."""
    divided: State = {}
    for key, value in state.items():
        if whole in key:
            pieces = value.chunk(len(parts))
            divided |= {key.replace(whole, part): piece for part, piece in zip(parts, pieces, strict=True)}
        else:
            divided[key] = value
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
