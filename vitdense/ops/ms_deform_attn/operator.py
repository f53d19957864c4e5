"""The operator ``torch.ops.vitdense.ms_deform_attn``: schema, checks, fake kernels, autograd and autocast."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import SymInt, Tensor
from torch.library import Library

from . import reference
from .backends import backend_of

_library = Library('vitdense', 'FRAGMENT')
_ARGUMENTS = 'Tensor value, SymInt[] spatial_shapes, Tensor sampling_locations, Tensor attention_weights'
for _schema in (
    f'ms_deform_attn({_ARGUMENTS}) -> Tensor',
    f'ms_deform_attn_backward(Tensor grad_output, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor)',
):
    _library.define(_schema, tags=torch.Tag.pt2_compliant_tag)
_op = torch.ops.vitdense.ms_deform_attn.default
_backward_op = torch.ops.vitdense.ms_deform_attn_backward.default

DECOMPOSITIONS = {_op: reference.forward}
"""For ``ExportedProgram.run_decompositions``: the operator in terms of PyTorch's own, as ONNX needs it."""

Shapes = Sequence[Sequence[int]] | Tensor


def ms_deform_attn(
    value: Tensor, spatial_shapes: Shapes, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Multi-scale deformable attention (Deformable DETR, arXiv:2010.04159, section 4.1), without the projections.

    Each query sums bilinear samples of the pyramid, times their weights. The centre of pixel (y, x) of a level lies at
    ((x + 0.5) / W, (y + 0.5) / H); what lies outside counts as zero, and so do NaN and infinite locations except in the
    back end ``reference``.

    Args:
        value: (B, S, M, D), the pixels of all levels one after the other; S is the sum of H * W. float32, float16,
            bfloat16 or float64.
        spatial_shapes: (H, W) of each of the L levels. Python integers, or a tensor (L, 2), which on a GPU has to be
            waited for.
        sampling_locations: (B, Q, M, L, P, 2), xy, 0 to 1 over the level. float32, or float64 with a float64 value.
        attention_weights: (B, Q, M, L, P), of the type of the locations.

    Returns:
        Tensor: (B, Q, M * D), of the type of ``value``. ``torch.jit.trace`` and
            ``torch.onnx.export`` see PyTorch's own operators.

    Raises:
        ValueError: sizes, types or devices do not fit together.
        BackendUnavailableError: a back end is forced (:func:`use_backend`) that cannot run.
    """
    arguments = value, flat_shapes(spatial_shapes), sampling_locations, attention_weights
    # sizes of a trace are tensors, which an operator of ours does not take, and ONNX has none of ours
    if torch.jit.is_tracing() or torch.onnx.is_in_onnx_export():
        return reference.forward(*arguments)
    return _op(*arguments)


def flat_shapes(spatial_shapes: Shapes) -> list[int]:
    """H and W of each level, one after the other."""
    if isinstance(spatial_shapes, Tensor):
        spatial_shapes = spatial_shapes.tolist()
    flat: list[int] = []
    for level in spatial_shapes:
        if not isinstance(level, Sequence) or len(level) != 2:
            raise ValueError(f'spatial_shapes: expected a pair (H, W) for each level, found {spatial_shapes!r}')
        flat += level
    return flat


def check(value: Tensor, spatial_shapes: Sequence[int], sampling_locations: Tensor, attention_weights: Tensor) -> None:
    """Raise a ``ValueError`` that names the argument if the arguments do not fit together."""
    for name, tensor, letters in (
        ('value', value, 'B, S, M, D'),
        ('sampling_locations', sampling_locations, 'B, Q, M, L, P, 2'),
        ('attention_weights', attention_weights, 'B, Q, M, L, P'),
    ):
        if tensor.dim() != letters.count(',') + 1:
            raise ValueError(f'{name}: expected ({letters}), found shape {tuple(tensor.shape)}')
    b, s, m, d = value.shape
    q, levels, p = sampling_locations.shape[1], len(spatial_shapes) // 2, sampling_locations.shape[4]
    pixels = sum(spatial_shapes[i] * spatial_shapes[i + 1] for i in range(0, 2 * levels, 2))
    _expect('spatial_shapes', 'at least one level', levels > 0, list(spatial_shapes))
    _expect('spatial_shapes', 'positive sizes', all(size > 0 for size in spatial_shapes), list(spatial_shapes))
    _expect('value', f'{pixels} pixels in dimension 1, the sum of H * W of spatial_shapes', s == pixels, s)
    _expect('value', 'at least one head and channel', m > 0 and d > 0, tuple(value.shape))
    expected = (b, q, m, levels, p, 2)
    found = tuple(sampling_locations.shape)
    _expect('sampling_locations', f'(B, Q, M, L, P, 2) = {expected}', found == expected and p > 0, found)
    found = tuple(attention_weights.shape)
    _expect('attention_weights', f'(B, Q, M, L, P) = {expected[:-1]}', found == expected[:-1], found)
    _expect('value', 'a floating point type', value.dtype.is_floating_point, value.dtype)
    wide = torch.float64 if value.dtype == torch.float64 else torch.float32
    for name, tensor in (('sampling_locations', sampling_locations), ('attention_weights', attention_weights)):
        _expect(name, f'{wide} beside a value of {value.dtype}', tensor.dtype == wide, tensor.dtype)
        _expect(name, f'device {value.device}, that of value', tensor.device == value.device, tensor.device)


def _expect(name: str, expected: str, holds: bool, found: object) -> None:
    if not holds:
        raise ValueError(f'{name}: expected {expected}, found {found}')


def _forward(
    value: Tensor, spatial_shapes: Sequence[int], sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    check(value, spatial_shapes, sampling_locations, attention_weights)
    places = sampling_locations.contiguous(), attention_weights.contiguous()
    return backend_of(value).forward(value.contiguous(), spatial_shapes, *places)


def _backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Sequence[int],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    check(value, spatial_shapes, sampling_locations, attention_weights)
    expected = (*sampling_locations.shape[:2], value.shape[2] * value.shape[3])
    _expect('grad_output', f'(B, Q, M * D) = {expected}', grad_output.shape == expected, tuple(grad_output.shape))
    places = sampling_locations.contiguous(), attention_weights.contiguous()
    grad_output = grad_output.to(value.dtype).contiguous()
    return backend_of(value).backward(grad_output, value.contiguous(), spatial_shapes, *places)


def _fake(
    value: Tensor, spatial_shapes: Sequence[SymInt], sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    b, q, m = sampling_locations.shape[:3]
    return value.new_empty(b, q, m * value.shape[3])


def _fake_backward(
    grad_output: Tensor, value: Tensor, spatial_shapes: Sequence[SymInt], *others: Tensor
) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (value, *others))


def _save_inputs(ctx: Any, inputs: tuple, output: Tensor) -> None:
    value, ctx.spatial_shapes, sampling_locations, attention_weights = inputs
    ctx.save_for_backward(value, sampling_locations, attention_weights)


def _differentiate(ctx: Any, grad_output: Tensor) -> tuple:
    value, sampling_locations, attention_weights = ctx.saved_tensors
    grads = _backward_op(grad_output, value, ctx.spatial_shapes, sampling_locations, attention_weights)
    return grads[0], None, *grads[1:]


def _refuse(ctx: Any, *grads: Tensor) -> None:
    raise NotImplementedError(
        'ms_deform_attn has no second derivative. Where one is needed, differentiate '
        'vitdense.ops.ms_deform_attn.reference.forward instead.'
    )


def _under_autocast(device: str) -> Callable[..., Tensor]:
    """Values in the type of autocast; locations and weights stay float32, or samples would move by whole pixels."""

    def cast(
        value: Tensor, spatial_shapes: Sequence[int], sampling_locations: Tensor, attention_weights: Tensor
    ) -> Tensor:
        dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            if value.dtype != torch.float64:
                value, sampling_locations = value.to(dtype), sampling_locations.float()
                attention_weights = attention_weights.float()
            return _op(value, spatial_shapes, sampling_locations, attention_weights)

    return cast


for _key in ('CPU', 'CUDA'):
    _library.impl('ms_deform_attn', _forward, _key)
    _library.impl('ms_deform_attn_backward', _backward, _key)
    _library.impl('ms_deform_attn', _under_autocast(_key.lower()), f'Autocast{_key}')
torch.library.register_fake('vitdense::ms_deform_attn', _fake, lib=_library)
torch.library.register_fake('vitdense::ms_deform_attn_backward', _fake_backward, lib=_library)
torch.library.register_autograd('vitdense::ms_deform_attn', _differentiate, setup_context=_save_inputs, lib=_library)
torch.library.register_autograd('vitdense::ms_deform_attn_backward', _refuse, lib=_library)
