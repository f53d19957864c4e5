"""Back end ``cpu``: vectorised C++, compiled beforehand or at the first call."""

from typing import Any

import torch
from torch import Tensor

from . import library


def unavailable(device: torch.device) -> str | None:
    """Why it cannot run on ``device``, or None; compiles the library where there is none."""
    return library.load('cpu') if device.type == 'cpu' else f'it runs on CPUs, not on {device.type}'


def forward(*inputs: Any) -> Tensor:
    return torch.ops.vitdense_cpu.forward(*inputs)


def backward(grad_output: Tensor, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.vitdense_cpu.backward(grad_output, *inputs)
