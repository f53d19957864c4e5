"""Nested values of a file, in which one list can stand in many places, and so be walked as often as it is met."""

from collections.abc import Iterator, Mapping
from typing import Any

MOST = 20_000_000
"""Values of a file, each counted as often as a walk through all of them would meet it."""

DEEPEST = 500
"""Lists and dicts within each other: about what Python's own walks bear."""


class UnboundedError(ValueError):
    """Values that are too many, too deep, or hold themselves, as the end of a sentence that begins with their file."""


def check_values(value: Any, most: int = MOST) -> None:
    """Refuse values through which nobody can walk in bounded time and depth.

    Every container is looked at once, however often it is met: a text of 300 bytes can say 2 ** 40 values.

    Raises:
        UnboundedError: they are more than ``most``, deeper than ``DEEPEST``, or one is within itself.
    """
    size: dict[int, int] = {}
    depth: dict[int, int] = {}
    open_: set[int] = set()
    stack = [(value, _parts(value))]
    open_.add(id(value))
    size[id(value)], depth[id(value)] = 1, 1
    while stack:
        node, rest = stack[-1]
        child = next(rest, None)
        if child is None:
            stack.pop()
            open_.discard(id(node))
            if size[id(node)] > most:
                raise UnboundedError(f'holds more than {most} values: lists in it stand in many places')
            if stack:
                _add(size, depth, stack[-1][0], node)
            continue
        part = child[0]
        if not isinstance(part, list | tuple | set | frozenset | Mapping):
            size[id(node)] += 1
        elif id(part) in open_:
            raise UnboundedError('holds a list or dict that is within itself')
        elif id(part) in size:
            _add(size, depth, node, part)
        elif len(stack) >= DEEPEST:
            raise UnboundedError(f'holds lists or dicts more than {DEEPEST} deep')
        else:
            size[id(part)], depth[id(part)] = 1, 1
            open_.add(id(part))
            stack.append((part, _parts(part)))


def _add(size: dict[int, int], depth: dict[int, int], node: Any, part: Any) -> None:
    size[id(node)] += size[id(part)]
    depth[id(node)] = max(depth[id(node)], depth[id(part)] + 1)
    if depth[id(node)] > DEEPEST:
        raise UnboundedError(f'holds lists or dicts more than {DEEPEST} deep')


def _parts(value: Any) -> Iterator[tuple[Any]]:
    """What a value holds, each in a tuple of its own; keys of a dict as well."""
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield (key,)
            yield (child,)
    elif isinstance(value, list | tuple | set | frozenset):
        for child in value:
            yield (child,)
