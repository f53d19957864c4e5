"""Pyramid Vision Transformer (Wang et al., ICCV 2021, https://arxiv.org/abs/2102.12122)."""

import re
from abc import abstractmethod
from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor, nn

from vitdense.models.layers.attention import SpatialReductionAttention
from vitdense.models.layers.block import Block
from vitdense.models.layers.init import learned
from vitdense.models.layers.layout import pad_to_minimum, to_map
from vitdense.models.layers.mlp import FeedForward, Mlp
from vitdense.models.layers.patch_embed import PatchEmbed
from vitdense.models.layers.pos_embed import resize_grid
from vitdense.registry import MODELS

from .base import STRIDES, Pyramid


@dataclass(frozen=True)
class PVTArch:
    """A row of the architecture tables of PVT and PVTv2: one entry a stage.

    ``drop_path_rate`` comes from the official detection code, which differs from classification.
    """

    depths: tuple[int, ...]
    embed_dims: tuple[int, ...] = (64, 128, 320, 512)
    num_heads: tuple[int, ...] = (1, 2, 5, 8)
    mlp_ratios: tuple[float, ...] = (8, 8, 4, 4)
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)
    qkv_bias: bool = True
    drop_path_rate: float = 0.1

    def __post_init__(self) -> None:
        columns = ('depths', 'embed_dims', 'num_heads', 'mlp_ratios', 'sr_ratios')
        lengths = {column: len(getattr(self, column)) for column in columns}
        if set(lengths.values()) != {4}:
            raise ValueError(f'a pyramid has 4 stages, got {lengths}')
        for channels, heads in zip(self.embed_dims, self.num_heads, strict=True):
            if channels % heads:
                raise ValueError(f'embed_dims {self.embed_dims} must be multiples of num_heads {self.num_heads}')

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return self.embed_dims


class PyramidVisionTransformer(Pyramid):
    """What PVT and PVTv2 share: four stages, each a patch embedding ``patch_embed{s}`` and blocks ``block{s}``.

    Parameters are named as in the official release. Images below 32 pixels a side are padded with zeros to 32, which
    the spatial reduction of the first stage needs. Attention reaches over the whole map, the padding of a batch
    included: features of an image depend on it. Arguments are those of :class:`Pyramid`.
    """

    arch: PVTArch

    def build(self, in_channels: int, rates: list[list[float]]) -> None:
        row = self.arch
        self.min_size = max(stride * ratio for stride, ratio in zip(STRIDES, row.sr_ratios, strict=True))
        for stage in range(len(self.depths)):
            previous = in_channels if stage == 0 else row.embed_dims[stage - 1]
            blocks = nn.ModuleList(self.build_block(stage, rate) for rate in rates[stage])
            setattr(self, f'patch_embed{stage + 1}', self.build_patch_embed(stage, previous))
            setattr(self, f'block{stage + 1}', blocks)
            self.build_rest(stage)

    @abstractmethod
    def build_patch_embed(self, stage: int, in_channels: int) -> PatchEmbed:
        """Patch embedding of ``stage``, counted from 0."""

    @abstractmethod
    def build_mlp(self, channels: int, hidden_channels: int) -> FeedForward:
        """Feed-forward network of a block."""

    @abstractmethod
    def build_rest(self, stage: int) -> None:
        """Whatever else ``stage`` owns."""

    def build_attention(self, stage: int) -> SpatialReductionAttention:
        """Attention of a block of ``stage``."""
        return SpatialReductionAttention(sr_ratio=self.arch.sr_ratios[stage], **self.attention_args(stage))

    def build_block(self, stage: int, drop_path: float) -> Block:
        """A block of ``stage``."""
        channels = self.arch.embed_dims[stage]
        mlp = self.build_mlp(channels, int(channels * self.arch.mlp_ratios[stage]))
        return Block(channels, self.build_attention(stage), mlp, drop_path)

    def enter_stage(self, tokens: Tensor, hw: tuple[int, int], stage: int) -> Tensor:
        """Tokens (B, N, C) between patch embedding and blocks."""
        return tokens

    def leave_stage(self, tokens: Tensor, stage: int) -> Tensor:
        """Tokens (B, N, C) between the blocks and the map that is returned and passed on."""
        return tokens

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Image (B, 3, H, W) to maps (B, C, H/s, W/s), s = 4, 8, 16, 32 as far as ``out_indices`` names them."""
        x = pad_to_minimum(image, self.min_size)
        maps = []
        for stage in range(len(self.depths)):
            tokens, hw = getattr(self, f'patch_embed{stage + 1}')(x)
            tokens = self.enter_stage(tokens, hw, stage)
            for block in getattr(self, f'block{stage + 1}'):
                tokens = self.run_block(block, tokens, hw)
            x = to_map(self.leave_stage(tokens, stage), hw)
            if stage in self.out_indices:
                maps.append(x.contiguous())
        return tuple(maps)

    def leaves_out(self, name: str) -> bool:
        found = re.match(r'(?:patch_embed|pos_embed|block|norm)([1-4])\b', name)
        return found is not None and int(found[1]) > len(self.depths)

    def layer_id(self, name: str) -> int:
        found = re.match(r'(patch_embed|pos_embed|block|norm)([1-4])(?:\.(\d+))?', name)
        if not found:
            raise ValueError(f'{type(self).__name__} has no parameter {name!r}')
        part, stage, block = found[1], int(found[2]) - 1, found[3]
        before = list(accumulate(self.depths, initial=0))
        if part == 'block':
            return before[stage] + int(block) + 1
        if part == 'norm':
            return before[stage + 1]
        return 0 if stage == 0 else before[stage] + 1


@MODELS.register_module()
class PVT(PyramidVisionTransformer):
    """Pyramid Vision Transformer, version 1, as in the official detection code.

    The last stage has no class token. Each stage adds a learned position embedding ``pos_embed{s}``, stored for images
    of ``IMG_SIZE`` pixels and resized bilinearly to any other size. Maps are returned without a norm. Arguments are
    those of :class:`Pyramid`.
    """

    IMG_SIZE = 224
    ARCHS = {
        'tiny': PVTArch(depths=(2, 2, 2, 2)),
        'small': PVTArch(depths=(3, 4, 6, 3)),
        'medium': PVTArch(depths=(3, 4, 18, 3), drop_path_rate=0.0),
        'large': PVTArch(depths=(3, 8, 27, 3), drop_path_rate=0.0),
    }

    def build_patch_embed(self, stage: int, in_channels: int) -> PatchEmbed:
        patch = 4 if stage == 0 else 2
        return PatchEmbed(in_channels, self.arch.embed_dims[stage], patch, patch, self.drop_rate)

    def build_mlp(self, channels: int, hidden_channels: int) -> Mlp:
        return Mlp(channels, hidden_channels, self.drop_rate)

    def build_rest(self, stage: int) -> None:
        side = self.IMG_SIZE // STRIDES[stage]
        setattr(self, f'pos_embed{stage + 1}', learned(1, side * side, self.arch.embed_dims[stage]))

    def enter_stage(self, tokens: Tensor, hw: tuple[int, int], stage: int) -> Tensor:
        side = self.IMG_SIZE // STRIDES[stage]
        table = resize_grid(getattr(self, f'pos_embed{stage + 1}'), (side, side), hw)
        return getattr(self, f'patch_embed{stage + 1}').drop(tokens + table)
