"""mmcv's multi-scale deformable attention, computed by the operator of vitdense."""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

NAME = 'mmcv.ops.multi_scale_deform_attn'


class DeformAttnFinder(MetaPathFinder):
    """Imports mmcv's module as it is, and then puts our operator into it."""

    @staticmethod
    def find_spec(fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname == NAME else None
        if spec is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                use_our_operator(module)

            loader.exec_module = exec_module
        return spec


def use_our_operator(module: Any) -> None:
    """Replace the function that mmcv has for CPUs, and the one for GPUs where mmcv has no compiled kernel for it."""
    from vitdense.compat import mmcv_ext
    from vitdense.compat.mmcv_ext import ms_deform_attn

    ours: Any = ms_deform_attn.multi_scale_deformable_attn
    if module.multi_scale_deformable_attn_pytorch is not ours:
        ours.__wrapped__ = module.multi_scale_deformable_attn_pytorch
        module.multi_scale_deformable_attn_pytorch = ours
    if mmcv_ext.is_stand_in():
        module.MultiScaleDeformableAttnFunction = ms_deform_attn.MultiScaleDeformableAttnFunction


def install() -> None:
    """Let mmcv's modules use our operator, those that are imported already included. Idempotent."""
    if DeformAttnFinder not in sys.meta_path:
        sys.meta_path.insert(0, DeformAttnFinder)
    if NAME in sys.modules:
        use_our_operator(sys.modules[NAME])
