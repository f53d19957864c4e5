"""mmcv's multi-scale deformable attention, computed by the operator of vitdense."""

from typing import Any

from vitdense.compat.after_import import after_import

NAME = 'mmcv.ops.multi_scale_deform_attn'


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
    after_import(NAME, use_our_operator)
