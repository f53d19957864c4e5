"""Deformable convolution v1 (arXiv:1703.06211) and v2 (arXiv:1811.11168).

Images (B, C, H, W), weight (O, C / groups, kH, kW), offset (B, deform_groups * kH * kW * 2, H', W') as y, x pairs, mask
(B, deform_groups * kH * kW, H', W'). The empty buffers and ``im2col_step`` serve mmcv's own kernels.

Offsets and masks of v2 may be larger than the output, as in mmdet's DyHead: mmcv reads the numbers of an image in their
order as if they were of its size, and so do we.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from vitdense.compat.mmcv_ext.precision import widen

__all__ = [
    'deform_conv_backward_input',
    'deform_conv_backward_parameters',
    'deform_conv_forward',
    'modulated_deform_conv_backward',
    'modulated_deform_conv_forward',
]


PLAIN = ('dH', 'dW', 'padH', 'padW', 'dilationH', 'dilationW', 'group', 'deformable_group')
MODULATED = ('stride_h', 'stride_w', 'pad_h', 'pad_w', 'dilation_h', 'dilation_w', 'group', 'deformable_group')
"""mmcv's keywords, v1 and v2, in torchvision's order; the sizes of the kernel are those of the weight."""


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **geometry: int
) -> None:
    """Write the convolution into ``output`` (B, O, H', W')."""
    output.copy_(torch.ops.torchvision.deform_conv2d(*_arguments(geometry, input, weight, offset)))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **geometry: int,
) -> None:
    """Write the gradients of the images and the offsets.

    torchvision computes the gradient of the weight along with them, so it is kept in the buffer ``columns``, which
    mmcv hands to ``deform_conv_backward_parameters`` next.
    """
    grads = _backward(gradOutput, *_arguments(geometry, input, weight, offset))
    gradInput.copy_(grads.input)
    gradOffset.copy_(grads.offset)
    columns.resize_(weight.shape).copy_(grads.weight)


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    *,
    scale: float,
    **geometry: int,
) -> None:
    """Add ``scale`` times the gradient of the weight to ``gradWeight``."""
    grad = columns
    if columns.numel() == 0:
        # the weight itself is not passed in, and its gradient does not depend on it
        grad = _backward(gradOutput, *_arguments(geometry, input, torch.zeros_like(gradWeight), offset)).weight
    gradWeight.add_(grad, alpha=scale)
    columns.resize_(0)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    *,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Write the convolution into ``output`` (B, O, H', W')."""
    arguments = _arguments(geometry, input, weight, offset, mask, bias if with_bias else None)
    output.copy_(torch.ops.torchvision.deform_conv2d(*arguments))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    *,
    with_bias: bool,
    **geometry: int,
) -> None:
    """Write the gradients of images, weight, offsets, mask and, if ``with_bias``, bias."""
    grads = _backward(grad_output, *_arguments(geometry, input, weight, offset, mask, bias if with_bias else None))
    grad_input.copy_(grads.input)
    grad_weight.copy_(grads.weight)
    for target, grad in ((grad_offset, grads.offset), (grad_mask, grads.mask)):
        whole = torch.zeros_like(target, memory_format=torch.contiguous_format)
        whole.flatten(1)[:, : grad[0].numel()] = grad.flatten(1)  # the rest of larger ones is zero
        target.copy_(whole)
    if with_bias:
        grad_bias.copy_(grads.bias)


class Gradients(NamedTuple):
    """What torchvision's backward returns, in its order."""

    input: Tensor
    weight: Tensor
    offset: Tensor
    mask: Tensor
    bias: Tensor


def _arguments(
    geometry: Mapping[str, int],
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple:
    """What the operators of torchvision take."""
    names = PLAIN if mask is None else MODULATED
    bias_given = weight.new_zeros(len(weight)) if bias is None else bias
    settings = *(geometry[name] for name in names), mask is not None
    if mask is None:
        mask_given = offset.new_zeros(len(offset), 1)
    else:
        size = _output_size(input, weight, settings)
        offset, mask_given = (_as_large(x, size) for x in (offset, mask))
    return *widen(input, weight, offset, mask_given, bias_given), *settings


def _output_size(input: Tensor, weight: Tensor, settings: Sequence[int]) -> tuple[int, int]:
    strides, paddings, dilations = settings[:2], settings[2:4], settings[4:6]
    height, width = (
        (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for side, kernel, stride, padding, dilation in zip(
            input.shape[2:], weight.shape[2:], strides, paddings, dilations, strict=True
        )
    )
    return height, width


def _as_large(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The first numbers of each image of ``x`` (B, C, H, W) as (B, C, H', W'); ``x`` itself if it has no more."""
    count = x.shape[1] * size[0] * size[1]
    return x.flatten(1)[:, :count].unflatten(1, (x.shape[1], *size)) if x.shape[1:].numel() > count else x


def _backward(grad_output: Tensor, *arguments: Any) -> Gradients:
    """The gradients for what :func:`_arguments` returns."""
    input, weight, offset, *_ = arguments
    grads = Gradients(*torch.ops.torchvision._deform_conv2d_backward(grad_output.to(input.dtype), *arguments))
    outside = _at_minus_1(offset, weight, arguments[5:])
    return grads._replace(offset=grads.offset.masked_fill(outside, 0))


def _at_minus_1(offset: Tensor, weight: Tensor, settings: Sequence[int]) -> Tensor:
    """Which samples are at exactly -1 of their axis (B, deform_groups * kH * kW * 2, H', W').

    What is there does not count. torchvision gives it the gradient of the samples between -1 and 0, mmcv none.
    """
    moved = offset.unflatten(1, (-1, *weight.shape[2:], 2))  # (B, deform_groups, kH, kW, 2, H', W')
    y, x = (_places(offset, weight, settings, axis) for axis in (0, 1))
    y, x = y[:, None, :, None] + moved[:, :, :, :, 0], x[:, None, :] + moved[:, :, :, :, 1]
    return torch.stack([y == -1, x == -1], dim=4).flatten(1, 4)


def _places(offset: Tensor, weight: Tensor, settings: Sequence[int], axis: int) -> Tensor:
    """Where the taps of the kernel lie for each output along an axis, without offsets (taps, outputs)."""
    stride, padding, dilation = settings[axis], settings[2 + axis], settings[4 + axis]
    taps, outputs = (torch.arange(x.shape[2 + axis], device=offset.device) for x in (weight, offset))
    return taps[:, None] * dilation + outputs * stride - padding
