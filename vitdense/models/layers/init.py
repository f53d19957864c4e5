"""Initial weights, applied by the constructors of the models."""

import math

import torch
from torch import nn


def learned(*shape: int) -> nn.Parameter:
    """A parameter from a normal distribution of std 0.02 truncated at +-2 (tokens, position tables)."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))


def init_linear_(module: nn.Module) -> None:
    """Linear weights from a normal distribution of std 0.02 truncated at +-2, biases zero (DeiT, PVT)."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_conv_fan_out_(module: nn.Module) -> None:
    """Convolution weights from a normal distribution of variance 2 / fan-out of a group, biases zero (PVTv2)."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
