"""What a config may say that is no program: in JSON or YAML, in a checkpoint, or on a command line.

mmengine imports whatever module a ``type`` names and calls what it finds there, ``subprocess.Popen`` as well as a
backbone. A config in Python is a program, which may do so; one that is data may name the packages of the stack alone.
"""

import ast
import os
import sys
from collections.abc import Collection, Iterator
from pathlib import PurePath
from typing import Any

from .values import check_values

OF_OPENMMLAB = ('vitdense', 'mmdet', 'mmseg', 'mmcv', 'mmengine', 'mmpretrain')
STACK = (*OF_OPENMMLAB, 'torch', 'torchvision', 'timm')
"""Packages whose classes a config may name."""

TYPES = ('type', 'runner_type', 'constructor', 'ema_type')
"""Keys whose texts name a class, maybe with its package."""

SCOPES = ('_scope_', 'default_scope')
"""Keys whose texts are packages that mmengine imports."""

WRITTEN = ('out_dir', 'output_dir', 'save_dir', 'outfile_prefix', 'out_file_path', 'proposals_file', 'tmpdir')
"""Keys of places to which classes of the stack write, and which some of them empty."""

PLACED = ('filename_tmpl',)
"""Keys of names that are put into a path."""

DATA = ('.json', '.yaml', '.yml')
"""Suffixes of configs that are data."""

PLAIN = (
    *(ast.Module, ast.Assign, ast.Name, ast.Store, ast.Load, ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set),
    *(ast.Call, ast.keyword, ast.UnaryOp, ast.USub, ast.UAdd),
)
"""Of Python, what mmengine writes into a checkpoint: values by name."""


class UntrustedError(ValueError):
    """A config that is data, but would run a program or reach beyond its folder; the message has the key."""


def check_config(tree: Any, what: str) -> None:
    """Refuse what could run code in nested values of a config that is data.

    Args:
        tree: dicts and lists.
        what: whose they are, for the message.

    Raises:
        UntrustedError: a key names a package beyond ``STACK``.
        UnboundedError: they are no tree.
    """
    check_values(tree)
    imports = tree.get('custom_imports')
    names = imports.get('imports') if isinstance(imports, dict) else imports
    for name in [names] if isinstance(names, str) else names or ():
        _check_package(what, 'custom_imports', name, STACK)
    check_types(tree, what, STACK)


def check_places(tree: Any, what: str) -> None:
    """Refuse places outside of the folder of the process, to which a run of a config that is data would write.

    Raises:
        UntrustedError: there is one.
    """
    for place, key, value in _texts(tree):
        if key in WRITTEN and not _is_inner(value):
            raise UntrustedError(
                f'{what}: {place} is {value!r}, expected a path within the folder from which the run is started, which '
                'is not there yet; a config in Python may name any'
            )
        if key in PLACED and os.path.basename(value) != value:
            raise UntrustedError(f'{what}: {place} is {value!r}, expected a name without folders')


def check_types(tree: Any, what: str, packages: Collection[str]) -> None:
    """Refuse types of other ``packages`` than these, see :func:`check_config`.

    Raises:
        UntrustedError: there is one.
    """
    for place, key, value in _texts(tree):
        if key in SCOPES or (key in TYPES and '.' in value):
            _check_package(what, place, value, packages)


def _check_package(what: str, place: str, name: Any, packages: Collection[str]) -> None:
    package = str(name).partition('.')[0]
    if package in packages:
        return
    remedy = f"A config in Python may name others: _base_ = this file, custom_imports = dict(imports=['{package}'])"
    raise UntrustedError(
        f'{what}: {place} is {name!r}, which imports {package!r}, and that can run any code; expected one of '
        f'{", ".join(packages)}. {remedy if package not in sys.stdlib_module_names else ""}'.rstrip()
    )


def _is_inner(path: str) -> bool:
    """Whether a place to write to is within the current folder, and new: some metrics empty theirs."""
    pure = PurePath(path)
    if pure.is_absolute() or '..' in pure.parts or path.startswith('~') or '://' in path:
        return False
    return not os.path.lexists(path)


def _texts(node: Any, place: str = '') -> Iterator[tuple[str, str, str]]:
    """Dotted place, key and value of every text below a node."""
    for key, child in node.items() if isinstance(node, dict) else enumerate(node):
        below = f'{place}.{key}' if place else str(key)
        if isinstance(child, str):
            yield below, str(key), child
        elif isinstance(child, dict | list | tuple):
            yield from _texts(child, below)


def check_base(base: Any, what: str) -> None:
    """Refuse a ``_base_`` of a config that is data and that would run a program.

    Raises:
        UntrustedError: it is neither data nor a config of the stack.
    """
    text = str(base)
    package, _, inner = text.rpartition('::')
    if package:
        _check_package(what, '_base_', package, STACK)
        check_inner(text)
    elif not inner.endswith(DATA):
        raise UntrustedError(
            f'{what}: _base_ is {text!r}, and Python is a program; expected a file in JSON or YAML, or a config of a '
            "package such as 'vitdense::detr/...'. A config in Python may name both"
        )


def check_inner(name: str) -> None:
    """Refuse a config that is named within a package, and leads out of it.

    Raises:
        UntrustedError: it does.
    """
    inner = PurePath(name.rpartition('::')[2])
    if inner.is_absolute() or '..' in inner.parts:
        raise UntrustedError(f'config {name!r} leads out of the package, expected a path within its configs')


def check_plain(text: str, what: str) -> None:
    """Refuse a config in Python that is more than values by name.

    Raises:
        UntrustedError: it imports or calls something, or is no Python.
    """
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UntrustedError(f'{what} cannot be read: {error}') from None
    for node in nodes:
        is_dict = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict'
        if not isinstance(node, PLAIN) or (isinstance(node, ast.Call) and not (is_dict and not node.args)):
            raise UntrustedError(
                f'{what} is a program (line {getattr(node, "lineno", 1)}: {ast.unparse(node)[:80]}), expected values '
                'by name, as mmengine writes them'
            )


def packages_of(tree: Any) -> set[str]:
    """Packages that a config in Python names, which may be named on its command line as well."""
    imports = tree.get('custom_imports')
    names = imports.get('imports') if isinstance(imports, dict) else imports
    found = {str(name).partition('.')[0] for name in ([names] if isinstance(names, str) else names or ())}
    return found | {value.partition('.')[0] for _, key, value in _texts(tree) if key in TYPES and '.' in value}
