"""Projections that are one parameter in one layout and several in another."""

import torch

from .family import State


def join(state: State, whole: str, parts: tuple[str, ...]) -> State:
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


def split(state: State, whole: str, parts: tuple[str, ...]) -> State:
    """Undo :func:`join`."""
    divided: State = {}
    for key, value in state.items():
        if whole in key:
            pieces = value.chunk(len(parts))
            divided |= {key.replace(whole, part): piece for part, piece in zip(parts, pieces, strict=True)}
        else:
            divided[key] = value
    return divided
