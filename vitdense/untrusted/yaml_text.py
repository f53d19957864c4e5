"""YAML that makes plain values alone, and no more of them than its text has room for."""

from typing import Any

from .values import UnboundedError, check_values

MOST = 1_000_000
"""Nodes of a text, those behind its aliases counted at each."""

TUPLE = 'tag:yaml.org,2002:python/tuple'
"""What mmengine writes for the tuples of a config: the one tag of Python that is read."""


def read_yaml(text: Any) -> Any:
    """What a text in YAML, or JSON, says.

    Args:
        text: str, bytes or an open file.

    Raises:
        ValueError: it is neither; it has a tag of Python, by which it could run code; or its aliases say more than
            ``MOST`` values.
    """
    import yaml  # exported models need none

    class Loader(getattr(yaml, 'CSafeLoader', yaml.SafeLoader)):  # type: ignore[misc]
        """Of plain values."""

    Loader.add_constructor(TUPLE, lambda loader, node: tuple(loader.construct_sequence(node, deep=True)))
    try:
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            check_values(_tree(node), MOST)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.constructor.ConstructorError as error:
        problem = str(error.problem)
        if 'python/' in problem:
            problem += ', which could run code; expected numbers, texts, lists and dicts'
        raise ValueError(f'{problem}{_place(error.problem_mark)}') from None
    except yaml.YAMLError as error:
        raise ValueError(error) from None
    except (RecursionError, TypeError) as error:  # of keys that are lists
        raise ValueError(f'no plain values: {error}') from None


def _place(mark: Any) -> str:
    return f' (line {mark.line + 1})' if mark is not None else ''


def _tree(node: Any) -> Any:
    """Nested lists of the nodes, in which aliases are one list as in the text."""
    made: dict[int, list] = {}
    stack = [node]
    top = made.setdefault(id(node), [])
    filled = set()
    while stack:
        one = stack.pop()
        if id(one) in filled or not isinstance(one.value, list):
            continue
        filled.add(id(one))
        for child in one.value:
            for part in child if isinstance(child, tuple) else (child,):
                made[id(one)].append(made.setdefault(id(part), []))
                stack.append(part)
    return top


__all__ = ['UnboundedError', 'read_yaml']
