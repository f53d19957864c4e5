"""Back end ``triton``: kernels that Triton compiles on the user's machine, for GPUs without the compiled library."""

import importlib.util
import math
import os
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .determinism import alert_not_deterministic


@cache
def unavailable(device: torch.device) -> str | None:
    """Why Triton cannot run on ``device``, or None; with TRITON_INTERPRET=1 it runs on the CPU, slowly."""
    if device.type != 'cuda' and not (device.type == 'cpu' and os.environ.get('TRITON_INTERPRET') == '1'):
        return f'it runs on CUDA devices, not on {device.type}'
    if importlib.util.find_spec('triton') is None:
        return 'Triton is not installed: pip install triton'
    import triton

    if tuple(map(int, triton.__version__.split('.')[:2])) < (3, 3):
        return f'Triton {triton.__version__} is too old: 3.3 is needed, which comes with PyTorch 2.7'
    if device.type == 'cuda' and torch.cuda.get_device_capability(device) < (7, 5):
        return f'{torch.cuda.get_device_name(device)} is too old: compute capability 7.5 is needed'
    return None


def forward(value: Tensor, spatial_shapes: list[int], sampling_locations: Tensor, attention_weights: Tensor) -> Tensor:
    from . import triton_kernels

    b, q, m = sampling_locations.shape[:3]
    output = value.new_empty(b, q, m * value.shape[3])
    launch(triton_kernels.forward, [output], value, spatial_shapes, sampling_locations, attention_weights)
    return output


def backward(grad_output: Tensor, value: Tensor, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    from . import triton_kernels

    alert_not_deterministic('triton')
    grad_value = torch.zeros_like(value, dtype=torch.float32)
    grad_locations, grad_weights = map(torch.empty_like, inputs[1:])
    launch(triton_kernels.backward, [grad_value, grad_locations, grad_weights, grad_output], value, *inputs)
    return grad_value.to(value.dtype), grad_locations, grad_weights


def launch(
    kernel: Any, tensors: list[Tensor], value: Tensor, spatial_shapes: list[int], locations: Tensor, weights: Tensor
) -> None:
    """Run ``kernel`` on ``tensors`` and the arguments of the operator."""
    pixels, heads, width = value.shape[1:]
    images, queries, _, _, points = weights.shape
    if pixels * heads * width >= 2**31 or max(spatial_shapes) > 2**24:
        raise ValueError(f'value {tuple(value.shape)} is too large for Triton: 2**31 elements an image, 2**24 a side')
    sizes, numbers = tuple(map(float, spatial_shapes)), (queries, pixels, heads, points)
    tile = choose_tile(images * queries * heads, width)
    programs = images * heads * math.ceil(queries / tile['BLOCK_Q'])
    if programs:
        with torch.cuda.device_of(value):
            run = kernel[(programs,)]
            run(*tensors, value, locations, weights, sizes, *numbers, WIDTH=width, enable_fp_fusion=True, **tile)


def choose_tile(rows: int, width: int) -> dict[str, int]:
    """Tile of a program and its warps, 8 elements a thread; small problems are cut finer, to occupy the whole GPU.

    More rows than a warp has lanes would send their samples through shared memory.
    """
    block_d = 1 << (width - 1).bit_length()
    warps = 4 if rows * block_d >= 2**20 else 2
    return dict(BLOCK_Q=min(max(256 * warps // block_d, 1), 32), BLOCK_D=block_d, num_warps=warps)
