"""Doors of the OpenMMLab packages by which a file that is data would run code: each reads plain values from now on.

mmengine unpickles, makes whatever object a YAML file asks for, calls whatever function a ``type`` names, and evaluates
the config in a checkpoint as Python. None of it is needed by files that these packages write.
"""

import inspect
import sys
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from types import ModuleType
from typing import Any

from vitdense.compat.after_import import after_import
from vitdense.untrusted.configs import (
    DATA,
    OF_OPENMMLAB,
    STACK,
    UntrustedError,
    check_base,
    check_config,
    check_inner,
    check_plain,
)
from vitdense.untrusted.files import check_regular
from vitdense.untrusted.yaml_text import read_yaml

OF_CHECKPOINT = 'the config in the checkpoint'

_from_checkpoint: ContextVar[bool] = ContextVar('_from_checkpoint', default=False)
"""Whether texts of configs are those of a checkpoint."""

_is_data: ContextVar[bool] = ContextVar('_is_data', default=False)
"""Whether a file in Python is such a text."""

_last_read: ContextVar[str] = ContextVar('_last_read', default='')
"""The file that mmengine has read last, whose bytes it then hands to what knows the format."""


def install() -> None:
    """Guard the doors, now or when their modules are imported. Idempotent."""
    after_import('mmengine.fileio.handlers.yaml_handler', _plain_yaml)
    after_import('mmengine.fileio.handlers.pickle_handler', _plain_pickles)
    after_import('mmengine.fileio.backends.local_backend', _regular_files)
    after_import('mmengine.config.config', _data_configs)
    after_import('mmengine.registry.registry', _classes_alone)
    after_import('mmengine.infer.infer', _configs_of_inferencers)
    after_import('mmengine.runner.runner', _configs_of_resumed_runs)
    after_import('mmseg.utils.io', _plain_images)
    after_import('mmdet.datasets.openimages', _plain_hierarchies)
    after_import('timm.models._helpers', _weights_alone)


def _replace(owner: Any, name: str, change: Callable[[Callable], Callable]) -> None:
    """Put ``change(function)`` in the place of a function, once."""
    function = inspect.getattr_static(owner, name)
    plain = function.__func__ if isinstance(function, staticmethod) else function
    if getattr(plain, 'of_vitdense', False):
        return
    changed: Any = wraps(plain)(change(plain))
    changed.of_vitdense = True
    setattr(owner, name, staticmethod(changed) if isinstance(function, staticmethod) else changed)


def _plain_yaml(module: Any) -> None:
    _replace(module.YamlHandler, 'load_from_fileobj', lambda load: lambda self, file, **kwargs: read_yaml(file))


def _plain_pickles(module: Any) -> None:
    def load_from_fileobj(self: Any, file: Any, **kwargs: Any) -> Any:
        read = _last_read.get()
        _last_read.set('')
        given = read if read.endswith(('.pkl', '.pickle')) else 'a pickle'
        return _plain_pickle(file.read(), getattr(file, 'name', given))

    _replace(module.PickleHandler, 'load_from_fileobj', lambda load: load_from_fileobj)


def _plain_pickle(content: bytes, name: str) -> Any:
    from vitdense.checkpoint.pickled_arrays import NotPlainError, load_plain

    try:
        return load_plain(content)
    except NotPlainError as error:
        raise UntrustedError(
            f'{name} needs {error}, and to load it could run any code that is in the file; expected arrays, tensors, '
            'texts, numbers, lists and dicts'
        ) from None
    except Exception as error:  # whatever Python makes of a damaged one
        raise UntrustedError(f'{name} is no pickle of data, or is damaged: {type(error).__name__}: {error}') from error


def _regular_files(module: Any) -> None:
    def change(read: Callable) -> Callable:
        def read_regular(self: Any, filepath: Any, *args: Any, **kwargs: Any) -> Any:
            check_regular(filepath)
            _last_read.set(str(filepath))
            return read(self, filepath, *args, **kwargs)

        return read_regular

    for name in ('get', 'get_text'):
        _replace(module.LocalBackend, name, change)


def _data_configs(module: Any) -> None:
    def file2dict(read: Callable) -> Callable:
        def read_checked(filename: str, *args: Any, **kwargs: Any) -> Any:
            try:
                found = read(filename, *args, **kwargs)
            except RecursionError as error:
                raise UntrustedError(f'{filename} has lists or dicts too deep within each other: {error}') from None
            if _is_data.get() or str(filename).endswith(DATA):  # before mmengine imports what it says
                check_config(dict(found[0]), OF_CHECKPOINT if _is_data.get() else filename)
            return found

        return read_checked

    def base_files(read: Callable) -> Callable:
        def read_checked(filename: str) -> Any:
            found = read(filename)
            for base in found if filename.endswith(DATA) else ():
                check_base(base, 'a config in JSON or YAML')
            return found

        return read_checked

    def path_of(find: Callable) -> Callable:
        def find_checked(cfg_path: str, filename: str) -> Any:
            if '::' in cfg_path:
                check_inner(cfg_path)
            return find(cfg_path, filename)

        return find_checked

    def fromstring(read: Callable) -> Callable:
        def read_checked(cfg_str: str, file_format: str) -> Any:
            if not _from_checkpoint.get():
                return read(cfg_str, file_format)
            check_plain(cfg_str, OF_CHECKPOINT)
            token = _is_data.set(True)
            try:
                return read(cfg_str, file_format)
            finally:
                _is_data.reset(token)

        return read_checked

    for name, change in dict(
        _file2dict=file2dict, _get_base_files=base_files, _get_cfg_path=path_of, fromstring=fromstring
    ).items():
        _replace(module.Config, name, change)


def _configs_of_inferencers(module: Any) -> None:
    _replace(module.BaseInferencer, '_init_model', _reading_checkpoints)


def _configs_of_resumed_runs(module: Any) -> None:
    _replace(module.Runner, 'resume', _reading_checkpoints)


def _reading_checkpoints(method: Callable) -> Callable:
    """A method that evaluates the config in a checkpoint as Python, and takes values alone from now on."""

    def read_checked(*args: Any, **kwargs: Any) -> Any:
        token = _from_checkpoint.set(True)
        try:
            return method(*args, **kwargs)
        finally:
            _from_checkpoint.reset(token)

    return read_checked


def _classes_alone(module: Any) -> None:
    def change(get: Callable) -> Callable:
        def get_checked(self: Any, key: Any) -> Any:
            package = key.partition('.')[0] if isinstance(key, str) and '.' in key else ''
            if package in sys.stdlib_module_names:
                raise _no_part(key)
            found = get(self, key)
            if found is not None and package and not _is_part(module.Registry, self, found, package):
                raise _no_part(key)
            return found

        return get_checked

    def from_string(find: Callable) -> Callable:
        return lambda obj_name: find(obj_name) if '.' in obj_name else None  # a module, which would be imported

    _replace(module, 'get_object_from_string', from_string)
    _replace(module.Registry, 'get', change)


def _no_part(key: str) -> UntrustedError:
    return UntrustedError(f'type={key!r} is no part of a model or of a run: expected a class that is registered')


def _is_part(kind: type, registry: Any, found: Any, package: str) -> bool:
    """Whether a ``type`` may be built: of the stack, what is registered and classes; of other packages, anything else
    than what Python itself has, which can be reached through any of them."""
    home = str(getattr(found, '__module__', None) or '').partition('.')[0]
    if package not in STACK:
        return home not in sys.stdlib_module_names or _is_registered(registry, found)
    if inspect.isclass(found) and home in OF_OPENMMLAB:
        return True
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from torch.utils.data import Sampler

    parts = (nn.Module, Optimizer, LRScheduler, Sampler)
    return (inspect.isclass(found) and issubclass(found, parts)) or _is_registered(registry, found)


def _is_registered(registry: Any, found: Any) -> bool:
    root = registry._get_root_registry()
    return any(found in one.module_dict.values() for one in (root, *root.children.values()))


def _plain_images(module: Any) -> None:
    module.pickle = ModuleType('pickle')
    module.pickle.loads = lambda content: _plain_pickle(content, 'a pickled image')


def _plain_hierarchies(module: Any) -> None:
    """``allow_pickle=True`` of a table of numbers."""
    numpy = module.np
    if getattr(numpy.load, 'of_vitdense', False):
        return

    def load(file: Any, *args: Any, **kwargs: Any) -> Any:
        return numpy.load(file, *args, **dict(kwargs, allow_pickle=False))

    load.of_vitdense = True  # type: ignore[attr-defined]
    module.np = ModuleType('numpy')
    vars(module.np).update(vars(numpy), load=load)


def _weights_alone(module: Any) -> None:
    """The releases of timm before 1.0.20 unpickle what they are given."""
    for name in ('load_state_dict', 'load_checkpoint'):
        function = getattr(module, name)
        defaults = inspect.signature(function).parameters
        given = [p.name for p in defaults.values() if p.default is not p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
        function.__defaults__ = tuple(
            True if name == 'weights_only' else value
            for name, value in zip(given, function.__defaults__ or (), strict=True)
        )
