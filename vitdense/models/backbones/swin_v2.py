"""Swin Transformer V2 (Liu et al., CVPR 2022, https://arxiv.org/abs/2111.09883)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitdense.models.layers.fast.linear import linear
from vitdense.models.layers.precision import widened
from vitdense.models.layers.window import (
    ExportedWindows,
    Pair,
    Windows,
    cached,
    export_windows,
    position_bias,
    window_attention,
)
from vitdense.ops.ms_deform_attn.module import sizes_tensor
from vitdense.registry import MODELS

from .swin import PatchMerging, Swin, SwinArch, SwinBlock, WindowAttention


@dataclass(frozen=True)
class SwinV2Arch(SwinArch):
    """A row of section 4.1 of the paper, with the stochastic depth of Swin's detection code.

    ``pretrained_window_sizes`` has the window of each stage in pretraining, 0 for one of ``window_size``. It scales the
    coordinates of which position biases are made.
    """

    window_size: int = 8
    pretrained_window_sizes: tuple[int, ...] = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = self.pretrained_window_sizes
        if len(sizes) != 4 or any(size < 0 or size == 1 for size in sizes):
            raise ValueError(f'pretrained_window_sizes must be 4 windows, 0 or of at least 2 tokens, got {sizes}')


class CosineAttention(WindowAttention):
    """Attention by the cosine of queries and keys, times a learned scale (section 3.3).

    A small network makes the bias of a relative position from its coordinates (section 3.4).
    """

    MAX_SCALE = 100.0
    MAX_BIAS = 16.0

    def __init__(self, channels: int, num_heads: int, pretrained_window: int, qkv_bias: bool, **drops: float) -> None:
        super().__init__(channels, num_heads, **drops)
        self.pretrained_window = pretrained_window
        self.logit_scale = nn.Parameter(torch.full((num_heads, 1, 1), math.log(10)))
        self.cpb_mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, num_heads, bias=False))
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(channels)) if qkv_bias else None for _ in range(2))

    def project(self, x: Tensor) -> Tensor:
        bias = None
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        return linear(x, self.qkv.weight, bias)

    def attend(self, qkv: Tensor, windows: Windows | ExportedWindows, dropout: float) -> Tensor:
        coordinates = log_coordinates(windows.size, self.pretrained_window, qkv.device).to(self.logit_scale.dtype)
        bias = position_bias(self.MAX_BIAS * self.cpb_mlp(coordinates).sigmoid(), windows.size)
        q, k, v = qkv.unbind(-3)  # (..., W, n, M, D)
        scale = widened(self.logit_scale).clamp(max=math.log(self.MAX_SCALE)).exp().flatten(1)
        q, k = normalised(q) * scale, normalised(k)
        return window_attention(torch.stack([q.to(v.dtype), k.to(v.dtype), v], -3), bias, windows, 1.0, dropout)


def normalised(x: Tensor) -> Tensor:
    """Vectors (..., D) of length 1, in float32 at least; zeros stay.

    The gradient at zero, where keys of the padding are, is that of the identity: PyTorch's ``normalize`` has 1e12 times
    as much, which float16 does not hold.
    """
    x = widened(x)
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / norm.masked_fill(norm == 0, 1)


@cached
def log_coordinates(window: Pair, pretrained_window: int, device: torch.device) -> Tensor:
    """Coordinates, rows first, of all relative positions in a window, in a logarithmic space ((2H - 1) (2W - 1), 2).

    The largest distance in a window of the pretraining becomes 8 before the logarithm.
    """
    distances = [torch.arange(1 - side, side, device=device) * (8 / (pretrained_window - 1)) for side in window]
    return torch.cartesian_prod(*(x.sign() * torch.log2(x.abs() + 1) / math.log2(8) for x in distances))


class SwinV2Block(SwinBlock):
    """A block whose norms end its branches (section 3.2)."""

    def forward(self, x: Tensor, windows: Windows | ExportedWindows) -> Tensor:
        x = x + self.drop_path(self.norm1(self.attend(x, nn.Identity(), windows)))
        return x + self.drop_path(self.norm2(self.mlp(x)))

    def export(self, hw: Pair, device: torch.device) -> ExportedWindows:
        """Windows of full size, in which a map that is smaller masks the keys of its padding."""
        sides = sizes_tensor([hw], torch.long, device)[0]
        height, width = self.shift * (sides > self.window)
        windows = export_windows(hw, self.window, (height, width) if self.shift else None, device)
        rows, columns = (torch.arange(self.window, device=device) >= side for side in sides)
        masks = torch.zeros(1, device=device) if windows.masks is None else windows.masks
        padding = (rows[:, None] | columns).flatten()
        return windows._replace(masks=masks.masked_fill(padding[None, None, None], -torch.inf))

    def window_and_shift(self, hw: Pair) -> tuple[Pair, Pair]:
        """A side of the map within one window makes a window of its own length, which is not shifted along it."""
        height, width = hw
        window = min(height, self.window), min(width, self.window)
        return window, (self.shift if height > self.window else 0, self.shift if width > self.window else 0)


class SwinV2PatchMerging(PatchMerging):
    """Joins 2 x 2 tokens and halves their channels: linear layer, then norm."""

    NORMED = 2

    def reduce(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(x))


@MODELS.register_module()
class SwinV2(Swin):
    """Swin Transformer V2: norms at the end of the branches, cosine attention, continuous position bias.

    Arguments, padding and the norms of the returned maps are those of :class:`Swin`. A map that is one window or less
    makes a window of its own size and is not shifted, as in the official classification code. That has square maps
    only; here, as in timm, each side counts by itself: a map of 8 x 30 tokens has windows of 8 x 8 that are shifted
    along its rows. The coordinates of position biases keep their scale, whatever the size of the window.

    There is no official detection code of V2: the released classification weights load, whose last stage had a window
    half as large where ``window_size`` is 16, and is then to be given as ``pretrained_window_sizes=(0, 0, 0, 8)``.
    """

    arch: SwinV2Arch
    BLOCK, MERGING = SwinV2Block, SwinV2PatchMerging
    ARCHS = {
        'tiny': SwinV2Arch(96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
        'small': SwinV2Arch(96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
        'base': SwinV2Arch(128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), drop_path_rate=0.3),
        'large': SwinV2Arch(
            192,
            depths=(2, 2, 18, 2),
            num_heads=(6, 12, 24, 48),
            window_size=16,
            drop_path_rate=0.3,
            pretrained_window_sizes=(12, 12, 12, 6),
        ),
    }

    def __init__(self, arch: str, **kwargs) -> None:
        super().__init__(arch, **kwargs)
        for block in self.modules():
            if isinstance(block, SwinV2Block):  # a new block passes its input on, as in the release
                for norm in (block.norm1, block.norm2):
                    nn.init.zeros_(norm.weight)

    def build_attention(self, stage: int) -> CosineAttention:
        pretrained = self.arch.pretrained_window_sizes[stage] or self.arch.window_size
        return CosineAttention(pretrained_window=pretrained, **self.attention_args(stage))
