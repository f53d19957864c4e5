"""Operators compute in float32 (float64 for float64) and store the result in the tensor that mmcv allocated."""

import torch
from torch import Tensor


def widen(first: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Convert all tensors to float64 if the first is float64, else to float32."""
    dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
    return tuple(tensor.to(dtype) for tensor in (first, *others))
