"""Errors of the classes that a config builds, by the place of the config that they come from."""

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

from mmengine.config import Config
from mmengine.registry import build_functions

from vitdense.config.tree import places
from vitdense.registry import bare_type, nearest_type_names

PEERS = ('mmcv', 'mmdet', 'mmengine', 'mmseg', 'torch', 'transformers')
"""Packages whose classes refuse what a config gives them by whatever error comes first."""


class BuildError(ValueError):
    """Something that a config names cannot be built as the config says."""


@contextmanager
def building(cfg: Config) -> Iterator[None]:
    """Within it, an error about a part of ``cfg`` that is being built says where in ``cfg`` it is.

    Errors of vitdense, which say it themselves, and of classes of users, which need their traceback, stay as they are.

    Raises:
        BuildError: a class of mmengine, mmcv, mmdet, mmseg, transformers or PyTorch refused its arguments.
        KeyError: a type is not registered; the message has the nearest names as well.
    """
    try:
        with nearest_type_names():
            yield
    except Exception as error:
        unregistered = isinstance(error, KeyError) and _module(error) == nearest_type_names.__module__
        frames = [frame for frame, _ in walk_tb((error.__cause__ or error if unregistered else error).__traceback__)]
        built = [frame for frame in frames if frame.f_code is build_functions.build_from_cfg.__code__]
        nodes = [frame.f_locals['cfg'] for frame in built if isinstance(frame.f_locals['cfg'], dict)]
        if nodes and unregistered:
            raise KeyError(f'{_place(cfg, nodes[-1])}: {error.args[0]}') from error
        package = _module(error).partition('.')[0]
        ours = package == 'vitdense' and type(error) is ValueError  # it says what, not where
        if not nodes or not (ours or package in PEERS):
            raise
        raise BuildError(_message(cfg, nodes[-1], built[-1].f_locals['cfg'], error)) from error


def _message(cfg: Config, node: dict, part: Any, error: Exception) -> str:
    """What is wrong with a ``node``, or with what stands in the place of a ``part`` of it."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    if 'type' not in node:
        text = 'no type, expected one'
    elif not isinstance(part, dict):
        text = f'{part!r} in the place of a part, expected a dict with a type'
    name = bare_type(node)
    return f'{_place(cfg, node)}{f" ({name})" if name else ""}: {text}'


def _module(error: Exception) -> str:
    """Name of the module in which an error was raised."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get('__name__', ''))


def _place(cfg: Config, node: dict) -> str:
    """The dotted key of what a ``node``, to which those around it may have added settings, was made of."""

    def shared(other: dict) -> int:
        return sum(key in node and _equal(node[key], value) for key, value in other.items())

    nodes = {key: one for key, one in places(cfg.to_dict()).items() if isinstance(one, dict)}
    same = {key: one for key, one in nodes.items() if bare_type(one) == bare_type(node)}
    kept = same or {key: one for key, one in nodes.items() if shared(one)}  # a hook builds what averages the weights
    return max(kept, key=lambda key: (shared(kept[key]), -len(kept[key])), default='config')


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except (TypeError, ValueError, RuntimeError):  # arrays and such
        return False
