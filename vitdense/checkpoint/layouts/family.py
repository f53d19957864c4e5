"""What is known of a family of backbones: how its weights are published, and how its tables are resized."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

State = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """One way in which a backbone's parameters are published.

    Attributes:
        name: who publishes them so.
        probe: pattern of a key that only this layout has.
        places: patterns of key beginnings and what replaces them, or None for keys that a backbone does not use. Every
            key must match one. ``{n+1}`` and ``{n-1}`` in a replacement are computed.
        parts: plain replacements in the rest of the key.
        tensors: last step, on the renamed tensors.
        note: what a config must say for the outputs to be equal, as the end of a line of the log.
    """

    name: str
    probe: str
    places: tuple[tuple[str, str | None], ...]
    parts: tuple[tuple[str, str], ...] = ()
    tensors: Callable[[State], State] = dict
    note: str = ''

    def rename(self, key: str) -> str | None:
        """Our name of ``key``, or None if a backbone does not use it."""
        for pattern, replacement in self.places:
            found = re.match(pattern, key)
            if not found:
                continue
            if replacement is None:
                return None
            place = re.sub(r'\{(\d+)([+-]1)\}', lambda m: str(int(m[1]) + int(m[2])), found.expand(replacement))
            rest = key[found.end() :]
            for old, new in self.parts:
                rest = rest.replace(old, new)
            return place + rest
        raise ValueError(f'key {key!r} does not belong to the {self.name} layout')


@dataclass(frozen=True)
class Family:
    """Backbones, or whole models, that load the same files.

    Attributes:
        layouts: each way in which their weights are published.
        releases: URL of each official file by the name that a config gives.
        whole: whether these are whole models, whose parts are ``backbone``, ``neck`` and heads.
        class_head: pattern of the parameters of a whole model that have a row for each logit.
        fit: what the parameters of a backbone (second argument) demand of a state dict, whatever its layout was.
        tables: pattern of the tables that depend on the image size or the window, and the function that brings one to
            another shape as its release does. It gets the table, the shape and ``Backbone.table_args`` of its name.
    """

    layouts: tuple[Layout, ...]
    releases: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False
    class_head: str = ''
    fit: Callable[[State, State], State] = lambda state, own: state
    tables: tuple[tuple[str, Callable[..., Tensor]], ...] = ()
