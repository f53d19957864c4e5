"""Multi-scale deformable attention (arXiv:2010.04159) under mmcv's names, by the operator of vitdense.

``value`` (B, S, M, D), ``value_spatial_shapes`` (L, 2) as H and W, ``sampling_locations`` (B, Q, M, L, P, 2),
``attention_weights`` (B, Q, M, L, P). Start indices and ``im2col_step`` serve mmcv's own kernels.
"""

import weakref

import torch
from torch import Tensor

from vitdense.ops.ms_deform_attn import ms_deform_attn

__all__ = ['ms_deform_attn_backward', 'ms_deform_attn_forward']


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int = 64,
) -> Tensor:
    """The sampled values (B, Q, M * D)."""
    return multi_scale_deformable_attn(value, value_spatial_shapes, sampling_locations, attention_weights)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int = 64,
) -> None:
    """Write the gradients of values, locations and weights."""
    sizes = [size for hw in sizes_of(value_spatial_shapes) for size in hw]
    wide = (_widen(x, value) for x in (sampling_locations, attention_weights))
    grads = torch.ops.vitdense.ms_deform_attn_backward(grad_output, value, sizes, *wide)
    for target, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        target.copy_(grad)


def multi_scale_deformable_attn(
    value: Tensor, value_spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """The sampled values (B, Q, M * D); what ``multi_scale_deformable_attn_pytorch`` of mmcv computes.

    They are of the type of ``value`` also under autocast, as mmcv's are.
    """
    wide = (_widen(x, value) for x in (sampling_locations, attention_weights))
    with torch.autocast(value.device.type, enabled=False):
        return ms_deform_attn(value, sizes_of(value_spatial_shapes), *wide)


class MultiScaleDeformableAttnFunction:
    """In the place of mmcv's autograd function, which would round the locations to the half types of ``value``."""

    @staticmethod
    def apply(
        value: Tensor,
        value_spatial_shapes: Tensor,
        value_level_start_index: Tensor,
        sampling_locations: Tensor,
        attention_weights: Tensor,
        im2col_step: int,
    ) -> Tensor:
        return multi_scale_deformable_attn(value, value_spatial_shapes, sampling_locations, attention_weights)


def _widen(x: Tensor, value: Tensor) -> Tensor:
    return x.to(torch.float64 if value.dtype == torch.float64 else torch.float32)


_last: tuple[weakref.ref, int, list[list[int]]] | None = None


def sizes_of(spatial_shapes: Tensor) -> list[list[int]]:
    """The sizes as Python integers. The layers of a model share one tensor, so that a GPU is waited for once."""
    global _last
    if torch.compiler.is_compiling() or spatial_shapes.is_inference():
        return spatial_shapes.tolist()
    if _last and _last[0]() is spatial_shapes and _last[1] == spatial_shapes._version:
        return _last[2]
    sizes = spatial_shapes.tolist()
    _last = weakref.ref(spatial_shapes), spatial_shapes._version, sizes
    return sizes
