"""What is known of a family of models: how their weights are published, and how their tables are resized."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from .templates import begins, translate

State = dict[str, Tensor]

PROFILED = re.compile(r'(^|\.)total_(ops|params)$')
"""Counts that profilers (thop) leave behind as buffers of every module."""


@dataclass(frozen=True)
class Layout:
    """One way in which parameters are published: a table that is read in both directions.

    Attributes:
        name: who publishes them so.
        probe: pattern of a key that only this layout has.
        places: pairs of beginnings of keys, theirs and ours: templates, see ``templates.py``; the first that fits
            counts.
        parts: such pairs for what follows a place; where none fits, the rest of a key is the same.
        dropped: templates of keys that our models do not use. Every other key must have a place.
        tensors: from renamed tensors to ours.
        inverse: from our tensors to those that :attr:`places` then give their names. It raises ``ValueError`` where
            ours have a value that theirs have no place for.
        targets: what ``tools/convert_checkpoint.py --to`` calls it; none for a layout that is only read.
        wrapper: key of a file that holds the state dict; empty where the file is the state dict.
        note: what a config must say for the outputs to be equal, as the end of a line of the log.
    """

    name: str
    probe: str
    places: tuple[tuple[str, str], ...]
    parts: tuple[tuple[str, str], ...] = ()
    dropped: tuple[str, ...] = ()
    tensors: Callable[[State], State] = dict
    inverse: Callable[[State], State] = dict
    targets: tuple[str, ...] = ()
    wrapper: str = ''
    note: str = ''

    @property
    def names_backbone(self) -> bool:
        """Whether :attr:`places` rename what is inside the backbone of a whole model."""
        return any(ours.startswith('backbone.') and ours != 'backbone.' for _, ours in self.places)

    def to_our_name(self, key: str) -> str | None:
        """Our name of ``key``, or None if our models do not use it.

        Raises:
            ValueError: not a key of this layout.
        """
        if begins(key, self.dropped) or PROFILED.search(key):
            return None
        return self._rename(key, self.places, self.parts)

    def to_their_name(self, key: str) -> str:
        """Their name of our ``key``.

        Raises:
            ValueError: this layout has no place for it.
        """
        return self._rename(key, _swapped(self.places), _swapped(self.parts))

    def _rename(self, key: str, places: tuple[tuple[str, str], ...], parts: tuple[tuple[str, str], ...]) -> str:
        found = translate(key, places)
        if found is None:
            raise ValueError(f'key {key!r} does not belong to the {self.name} layout')
        place, rest = found
        return place + ''.join(translate(rest, parts) or (rest,))


def _swapped(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple((ours, theirs) for theirs, ours in pairs)


def same(*names: str) -> tuple[tuple[str, str], ...]:
    """Places that have the same names in a layout as here."""
    return tuple((name, name) for name in names)


def under(prefix: str, *names: str) -> tuple[tuple[str, str], ...]:
    """Places that have the same names, and here ``prefix`` before them."""
    return nest(same(*names), ours=prefix)


def nest(pairs: Iterable[tuple[str, str]], theirs: str = '', ours: str = '') -> tuple[tuple[str, str], ...]:
    """``pairs`` of names with ``theirs`` and ``ours`` before them."""
    return tuple((theirs + their, ours + our) for their, our in pairs)


@dataclass(frozen=True)
class Family:
    """Backbones, or whole models, that load the same files.

    Attributes:
        classes: names of the backbones; of whole models, the head or the neck by which one is told.
        layouts: each way in which their weights are published.
        fresh: patterns of the parameters of a backbone that its files need not have, so that they start afresh: of each
            pattern all that it fits, or none.
        whole: whether these are whole models, whose parts are ``backbone``, ``neck`` and heads.
        own: pattern of a key that only our layout of a whole model has. That of a backbone is one of ``layouts``.
        class_head: pattern of the parameters of a whole model that have a row for each logit.
        proposals: from the parameters of a whole model to the layer that classifies the proposals of a first stage.
        fit: what the parameters of a backbone (second argument) demand of a state dict, whatever its layout was.
        tables: pattern of the tables that depend on the image size or the window, and the function that brings one to
            another shape as its release does. It gets the table, the shape and ``Backbone.table_args`` of its name.
    """

    classes: tuple[str, ...]
    layouts: tuple[Layout, ...]
    fresh: tuple[str, ...] = ()
    whole: bool = False
    own: str = ''
    class_head: str = ''
    proposals: Callable[[State], str | None] = lambda own: None
    fit: Callable[[State, State], State] = lambda state, own: state
    tables: tuple[tuple[str, Callable[..., Tensor]], ...] = ()
