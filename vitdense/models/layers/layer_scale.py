"""Learned scale of a residual branch (Touvron et al. 2021, section 2)."""

import torch
from torch import Tensor, nn


class LayerScale(nn.Module):
    """Multiplies each channel by a learned ``gamma`` that starts at ``init``."""

    def __init__(self, channels: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), float(init)))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., C) to the same shape."""
        return x * self.gamma
