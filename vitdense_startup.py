"""What the OpenMMLab packages need before vitdense is imported: their own tools read configs and import models first.

An installation has ``vitdense_startup.pth`` beside this module, whose line Python runs at each start. It hands the
search for two modules to :func:`find_spec`. This module imports the standard library only, and vitdense where mmcv has
no operators.
"""

import importlib.util
from collections.abc import Callable
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
    """``mmcv._ext``, that of vitdense where mmcv has none, and mmengine's module of the names of packages."""
    spec = PathFinder.find_spec(name, path, target)
    if name == 'mmengine.config.utils':
        return changed(spec, find_renamed_mmseg)
    if spec is None:
        from vitdense.compat.mmcv_ext import StandInFinder

        spec = StandInFinder.find_spec(name)
    return spec


def changed(spec: ModuleSpec | None, change: Callable[[Any], None]) -> ModuleSpec | None:
    """How to import a module as ``spec`` says, and then change it."""
    if spec is not None:
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            change(module)

        loader.exec_module = exec_module
    return spec


def find_renamed_mmseg(config_utils: Any) -> None:
    """For ``mmseg::`` in a config, mmengine looks for, or even pip installs, the distribution mmsegmentation.

    The continuation is called onedl-mmsegmentation, so mmengine is told to look for the module instead.
    """
    packages: dict[str, str] = config_utils.MODULE2PACKAGE
    try:
        metadata.distribution(packages['mmseg'])
    except metadata.PackageNotFoundError:
        if importlib.util.find_spec('mmseg'):
            packages['mmseg'] = 'mmseg'
