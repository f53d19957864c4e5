"""Back end ``cuda``: the compiled kernels of ``csrc/cuda*``, for compute capability 8.0 and later."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from . import library
from .determinism import alert_not_deterministic

MAX_LEVELS = 32  # that a kernel takes, kMaxLevels in csrc/cuda_stage.cuh


def unavailable(device: torch.device) -> str | None:
    """Why the compiled kernels cannot run on ``device`` and what would make them run; None if they can."""
    if device.type != 'cuda':
        return f'it runs on CUDA devices, not on {device.type}'
    if torch.version.cuda is None:
        return f'PyTorch {torch.__version__} is built without CUDA'
    if torch.cuda.get_device_capability(device) < (8, 0):
        return f'{torch.cuda.get_device_name(device)} is too old: compute capability 8.0 is needed'
    return library.load('cuda')


def forward(*inputs: Any) -> Tensor:
    outputs = [torch.ops.vitdense_cuda.forward(*part) for part in _parts(*inputs)]
    return outputs[0] if len(outputs) == 1 else torch.stack(outputs).sum(0, dtype=torch.float32).to(outputs[0].dtype)


def backward(grad_output: Tensor, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    alert_not_deterministic('cuda')
    grads = [torch.ops.vitdense_cuda.backward(grad_output, *part) for part in _parts(*inputs)]
    if len(grads) == 1:
        return grads[0]
    by_value, by_locations, by_weights = zip(*grads, strict=True)
    return torch.cat(by_value, dim=1), torch.cat(by_locations, dim=3), torch.cat(by_weights, dim=3)


def _parts(
    value: Tensor, spatial_shapes: list[int], sampling_locations: Tensor, attention_weights: Tensor
) -> Iterator[tuple[Tensor, list[int], Tensor, Tensor]]:
    """The arguments for no more levels than a kernel takes, of which the output is the sum."""
    if len(spatial_shapes) <= 2 * MAX_LEVELS:
        yield value, spatial_shapes, sampling_locations, attention_weights
        return
    start = 0
    for first in range(0, len(spatial_shapes) // 2, MAX_LEVELS):
        levels = slice(first, first + MAX_LEVELS)
        shapes = spatial_shapes[2 * first : 2 * levels.stop]
        end = start + sum(h * w for h, w in zip(shapes[::2], shapes[1::2], strict=True))
        tensors = value[:, start:end], sampling_locations[:, :, :, levels], attention_weights[:, :, :, levels]
        part, locations, weights = (tensor.contiguous() for tensor in tensors)
        yield part, shapes, locations, weights
        start = end
