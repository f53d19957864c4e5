"""A stand-in for ``mmcv._ext``, the compiled operators that mmcv's wheels from PyPI do not have."""

import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

from vitdense.compat.mmcv_ext.unavailable import unavailable

NAME = 'mmcv._ext'


class StandInFinder(MetaPathFinder, Loader):
    """Imports the stand-in when everything before it on ``sys.meta_path`` found no ``mmcv._ext``."""

    @staticmethod
    def find_spec(fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != NAME:
            return None
        return ModuleSpec(NAME, StandInFinder(), origin=__name__)

    @staticmethod
    def invalidate_caches() -> None:
        """``importlib.invalidate_caches`` calls it, and what ``sys.meta_path`` has is the class."""

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        from vitdense.compat.mmcv_ext import boxes, deform_conv, focal_loss, ms_deform_attn, roi

        for part in (boxes, deform_conv, focal_loss, ms_deform_attn, roi):
            vars(module).update({name: getattr(part, name) for name in part.__all__})
        vars(module).update(__doc__=__doc__, __getattr__=_missing_op)
        # printed with the environment of every run
        vars(module)['get_compiler_version'] = lambda: 'none (operators from torchvision through vitdense)'
        vars(module)['get_compiling_cuda_version'] = lambda: 'not available'


def _missing_op(name: str) -> Callable[..., NoReturn]:
    # `load_ext` of mmcv asks for every operator when mmcv.ops is imported: only a call may fail
    if name.startswith('_'):
        raise AttributeError(f'module {NAME!r} has no attribute {name!r}')
    return unavailable(name)


def install() -> None:
    """Let ``import mmcv._ext`` succeed; a compiled one is found first and is never replaced. Idempotent."""
    if StandInFinder not in sys.meta_path:
        sys.meta_path.append(StandInFinder)


def is_stand_in() -> bool:
    """Whether ``mmcv._ext`` is imported and is the stand-in."""
    spec = getattr(sys.modules.get(NAME), '__spec__', None)
    return spec is not None and isinstance(spec.loader, StandInFinder)
