"""Back end ``cpu``: vectorised C++, compiled beforehand or at the first call."""

import torch
from torch import Tensor

from . import library


def unavailable(device: torch.device) -> str | None:
    """Why it cannot run on ``device``, or None; compiles the library where there is none."""
    return library.load('cpu') if device.type == 'cpu' else f'it runs on CPUs, not on {device.type}'


def forward(value: Tensor, spatial_shapes: list[int], sampling_locations: Tensor, attention_weights: Tensor) -> Tensor:
    return torch.ops.vitdense_cpu.forward(value, spatial_shapes, sampling_locations, attention_weights)


def backward(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: list[int],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.vitdense_cpu.backward(grad_output, value, spatial_shapes, sampling_locations, attention_weights)
