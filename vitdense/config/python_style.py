"""Configs in mmengine's Python style, which import classes and other configs instead of naming them."""

import inspect
from types import FunctionType, ModuleType
from typing import Any

from mmengine.config import Config
from mmengine.config.lazy import LazyAttr, LazyObject

NAMES = ('type', 'constructor', 'runner_type')
"""Keys whose classes mmengine also finds by name."""


def in_text_style(cfg: Config) -> Config:
    """The same config with names in the place of classes, and without the names that its file has imported.

    All that reads configs then meets one style, and what is saved with a run is a config in text style. A class has
    the name under which ``default_scope`` or its package registers it, or its full one. Functions, and classes under
    other keys than ``NAMES``, stay what they are.

    Raises:
        ImportError: something that is imported does not exist.
    """
    tree = cfg._to_lazy_dict()
    if tree.keys() == cfg._cfg_dict.keys() and not _has_lazy(tree):
        return cfg
    settings = {key: node for key, node in tree.items() if not isinstance(node, ModuleType | FunctionType)}
    return Config(_named(settings, settings.get('default_scope') or 'mmengine'), filename=cfg.filename)


def _has_lazy(node: Any) -> bool:
    if isinstance(node, dict | list | tuple):
        return any(map(_has_lazy, node.values() if isinstance(node, dict) else node))
    return isinstance(node, LazyObject | LazyAttr)


def _named(node: Any, scope: str, key: str = '') -> Any:
    if isinstance(node, dict):
        return {name: _named(child, scope, name) for name, child in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_named(child, scope) for child in node)
    if not isinstance(node, LazyObject | LazyAttr):
        return node
    kind = node.build() if key in NAMES else None
    return _name(kind, scope) if inspect.isclass(kind) else node


def _name(kind: type, scope: str) -> str:
    from vitdense.config.known_keys import registered_names, resolve  # imports PyTorch, which text style does not need

    resolve(kind.__name__, scope)  # so that the classes of this scope are registered
    candidates = [kind.__name__]
    for owner, name in sorted(registered_names(kind), key=lambda found: found[1] != kind.__name__):
        candidates += [name, f'{owner}.{name}']
    whole = f'{kind.__module__}.{kind.__qualname__}'
    return next((name for name in candidates if resolve(name, scope) is kind), whole)
