"""Nested dicts and lists, and their dotted keys."""

from typing import Any


def look_up(node, key: str, default=None):
    """The value at a dotted key below a config node, list indices included."""
    for part in key.split('.'):
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            return default
    return node


def places(node, above: str = '') -> dict[str, object]:
    """All values below a node by their dotted keys."""
    found = {}
    for part, child in node.items() if isinstance(node, dict) else enumerate(node):
        place = f'{above}.{part}' if above else str(part)
        found[place] = child
        if isinstance(child, dict | list | tuple):
            found.update(places(child, place))
    return found


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """The tree of values by dotted keys, of which dicts may get further keys; lists that keys index are dicts in it.

    Raises:
        ValueError: one of the keys is below another whose value has no keys.
    """
    tree: dict[str, Any] = {}
    for key, value in values.items():
        node: Any = tree
        *above, last = key.split('.')
        for part in above:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ValueError(f'{key}: {part} is set to {node!r}, which has no keys')
        node[last] = value
    return tree
