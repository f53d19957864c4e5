"""Swin Transformer (Liu et al., ICCV 2021, https://arxiv.org/abs/2103.14030)."""

import re
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor, nn

from vitdense.models.layers.block import Block
from vitdense.models.layers.fast.light import recomputed
from vitdense.models.layers.fast.linear import Linear
from vitdense.models.layers.init import learned
from vitdense.models.layers.layout import pad_to_multiple, to_map
from vitdense.models.layers.mlp import Mlp
from vitdense.models.layers.patch_embed import PatchEmbed
from vitdense.models.layers.sizes import ceil_div
from vitdense.models.layers.window import (
    ExportedWindows,
    Pair,
    Windows,
    cut_windows,
    export_windows,
    position_bias,
    window_attention,
)
from vitdense.registry import MODELS

from .base import Pyramid


@dataclass(frozen=True)
class SwinArch:
    """A row of section 3.3 of the paper; the channels double from stage to stage.

    ``drop_path_rate`` comes from the official detection code's 3x schedules, which differ from classification.
    """

    embed_dims: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_size: int = 7
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    drop_path_rate: float = 0.2

    def __post_init__(self) -> None:
        lengths = {column: len(getattr(self, column)) for column in ('depths', 'num_heads')}
        if set(lengths.values()) != {4}:
            raise ValueError(f'a pyramid has 4 stages, got {lengths}')
        if any(channels % heads for channels, heads in zip(self.channels, self.num_heads, strict=True)):
            raise ValueError(f'channels {self.channels} must be multiples of num_heads {self.num_heads}')
        if self.window_size < 2:
            raise ValueError(f'window_size must be at least 2, got {self.window_size}')

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.embed_dims * 2**stage for stage in range(4))


class WindowAttention(nn.Module):
    """Attention within windows, with a bias for each relative position; what versions 1 and 2 share."""

    def __init__(self, channels: int, num_heads: int, attn_drop: float, proj_drop: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = Linear(channels, channels)
        self.proj_drop = nn.Dropout(proj_drop)

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """Tokens in windows (W, n, C) to their queries, keys and values (W, n, 3C)."""

    @abstractmethod
    def attend(self, qkv: Tensor, windows: Windows | ExportedWindows, dropout: float) -> Tensor:
        """Queries, keys and values (W, n, 3, M, D) to mixed values (W, n, C)."""

    def mix(self, qkv: Tensor, windows: Windows | ExportedWindows) -> Tensor:
        """Queries, keys and values (W, n, 3C) to tokens (B, N, C)."""
        qkv = qkv.unflatten(-1, (3, self.num_heads, -1))
        mixed = self.attend(qkv, windows, self.attn_drop.p if self.training else 0.0)
        return self.proj_drop(self.proj(windows.join(mixed)))


class BiasTableAttention(WindowAttention):
    """Attention with a learned bias for each relative position (section 3.2)."""

    def __init__(self, channels: int, num_heads: int, window: int, qkv_bias: bool, **drops: float) -> None:
        super().__init__(channels, num_heads, **drops)
        self.relative_position_bias_table = learned((2 * window - 1) ** 2, num_heads)
        self.qkv = Linear(channels, 3 * channels, bias=qkv_bias)

    def project(self, x: Tensor) -> Tensor:
        return self.qkv(x)

    def attend(self, qkv: Tensor, windows: Windows | ExportedWindows, dropout: float) -> Tensor:
        bias = position_bias(self.relative_position_bias_table, windows.size)
        return window_attention(qkv, bias, windows, qkv.shape[-1] ** -0.5, dropout)


class SwinBlock(Block):
    """A block with attention within windows, which every other one has shifted by half a window."""

    attn: WindowAttention

    def __init__(
        self, channels: int, attn: WindowAttention, mlp: Mlp, drop_path: float, window: int, shift: int
    ) -> None:
        super().__init__(channels, attn, mlp, drop_path, eps=1e-5)
        self.window = window
        self.shift = shift

    def forward(self, x: Tensor, windows: Windows | ExportedWindows) -> Tensor:
        """Tokens (B, N, C) of a map that :meth:`cut` has cut to (B, N, C)."""
        x = x + self.drop_path(self.attend(x, self.norm1, windows))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def attend(self, x: Tensor, norm: nn.Module, windows: Windows | ExportedWindows) -> Tensor:
        """Tokens (B, N, C), through ``norm`` first, to those that attention has mixed."""
        return recomputed(
            lambda x: self.attn.project(windows.split(norm(x))), lambda qkv: self.attn.mix(qkv, windows), x
        )

    def cut(self, x: Tensor, hw: Pair) -> Windows | ExportedWindows:
        """Windows of the tokens (B, N, C) of a map ``hw``."""
        if torch.compiler.is_exporting():
            return self.export(hw, x.device)
        return cut_windows(x.shape[0], hw, *self.window_and_shift(hw), x.device)

    def export(self, hw: Pair, device: torch.device) -> ExportedWindows:
        """Windows of a map whose sides are symbols."""
        return export_windows(hw, self.window, (self.shift, self.shift) if self.shift else None, device)

    def window_and_shift(self, hw: Pair) -> tuple[Pair, Pair]:
        """Tokens of a window, and of its shift, in a map ``hw``: the same in all maps."""
        return (self.window, self.window), (self.shift, self.shift)


class PatchMerging(nn.Module):
    """Joins 2 x 2 tokens, column by column, and halves their channels: norm, then linear layer."""

    NORMED = 4
    """Channels that the norm sees, in those of a token."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = Linear(4 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(self.NORMED * channels)

    def forward(self, x: Tensor, hw: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (B, N, C) of a map ``hw`` to (B, N', 2C) and their ``hw``; odd sides are padded with zeros."""
        return self.reduce(merge(x, hw)), (ceil_div(hw[0], 2), ceil_div(hw[1], 2))

    def reduce(self, x: Tensor) -> Tensor:
        """Joined tokens (B, N', 4C) to (B, N', 2C)."""
        return self.reduction(self.norm(x))


def merge(x: Tensor, hw: tuple[int, int]) -> Tensor:
    """Tokens (B, N, C) of a map ``hw`` to tokens (B, N', 4C), each of a block of 2 x 2."""
    x = pad_to_multiple(to_map(x, hw), 2).movedim(1, 3)
    x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (B, H', 2, W', 2, C)
    return x.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)


class SwinStage(nn.Module):
    """Blocks, and what leads to the next stage."""

    def __init__(self, blocks: list[SwinBlock], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample


@MODELS.register_module()
class Swin(Pyramid):
    """Swin Transformer, as in the official detection code.

    Maps are padded with zeros at the right and the bottom: images to multiples of 4, maps to whole windows within each
    block and to even sides before patches are merged. As in the release, the padding takes part in attention, and its
    keys and values are the bias of ``qkv``; so features near the right and bottom edges depend on the padding of a
    batch, by the shifted windows of all stages also far from it. Every other block is shifted, whatever the size of the
    map (classification models do not shift a map of one window).

    The map of stage s, counted from 0, is returned through a LayerNorm ``norm{s}``; the next stage gets it without.
    Parameters are named as in the official release. Arguments are those of :class:`Pyramid`.
    """

    arch: SwinArch
    BLOCK, MERGING = SwinBlock, PatchMerging
    ARCHS = {
        'tiny': SwinArch(96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
        'small': SwinArch(96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
        'base': SwinArch(128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), drop_path_rate=0.3),
        'large': SwinArch(192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48), drop_path_rate=0.3),
    }

    def build(self, in_channels: int, rates: list[list[float]]) -> None:
        row = self.arch
        self.patch_embed = PatchEmbed(in_channels, row.embed_dims, kernel_size=4, stride=4, drop=self.drop_rate)
        self.layers = nn.ModuleList()
        for stage in range(len(self.depths)):
            blocks = [
                self.build_block(stage, shifted=i % 2 == 1, drop_path=rate) for i, rate in enumerate(rates[stage])
            ]
            is_last = stage == len(self.depths) - 1
            self.layers.append(SwinStage(blocks, None if is_last else self.MERGING(row.channels[stage])))
        for stage in self.out_indices:
            self.add_module(f'norm{stage}', nn.LayerNorm(row.channels[stage]))

    def build_block(self, stage: int, shifted: bool, drop_path: float) -> SwinBlock:
        """A block of ``stage``."""
        row, channels = self.arch, self.arch.channels[stage]
        mlp = Mlp(channels, int(channels * row.mlp_ratio), self.drop_rate)
        shift = row.window_size // 2 if shifted else 0
        return self.BLOCK(channels, self.build_attention(stage), mlp, drop_path, row.window_size, shift)

    def build_attention(self, stage: int) -> WindowAttention:
        """Attention of a block of ``stage``."""
        return BiasTableAttention(window=self.arch.window_size, **self.attention_args(stage))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Image (B, 3, H, W) to maps (B, C, H/s, W/s), rounded up, s = 4, 8, 16, 32 as ``out_indices`` names them."""
        tokens, hw = self.patch_embed(pad_to_multiple(image, 4))
        tokens = self.patch_embed.drop(tokens)
        maps = []
        for stage, layer in enumerate(cast('Iterable[SwinStage]', self.layers)):
            cuts: dict[int, Windows | ExportedWindows] = {}
            for block in cast('Iterable[SwinBlock]', layer.blocks):
                if block.shift not in cuts:
                    cuts[block.shift] = block.cut(tokens, hw)
                tokens = self.run_block(block, tokens, cuts[block.shift])
            if stage in self.out_indices:
                maps.append(to_map(getattr(self, f'norm{stage}')(tokens), hw).contiguous())
            if layer.downsample is not None:
                tokens, hw = layer.downsample(tokens, hw)
        return tuple(maps)

    def leaves_out(self, name: str) -> bool:
        found = re.match(r'layers\.(\d)\.(downsample)?|norm(\d)\.', name)
        if not found:
            return False
        stage, merging, norm = found.groups()
        if norm:
            return int(norm) not in self.out_indices
        return int(stage) + bool(merging) >= len(self.depths)

    def layer_id(self, name: str) -> int:
        """Depth of the parameter ``name``; what follows the blocks of a stage counts to its last block."""
        found = re.match(r'(patch_embed)\.|layers\.(\d)\.blocks\.(\d+)\.|(?:layers\.(\d)\.downsample|norm(\d))\.', name)
        if not found:
            raise ValueError(f'{type(self).__name__} has no parameter {name!r}')
        stem, stage, block, *after = found.groups()
        before = list(accumulate(self.depths, initial=0))
        if stem:
            return 0
        return before[int(stage)] + int(block) + 1 if stage else before[int(after[0] or after[1]) + 1]
