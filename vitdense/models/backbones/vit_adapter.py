"""ViT-Adapter: a plain ViT beside convolutions, with which it exchanges features."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn
from torch.nn import functional as F

from vitdense.models.layers.adapter import (
    Extractor,
    Geometry,
    Injector,
    Interaction,
    PyramidMlp,
    SpatialPrior,
    ZeroPaddedAttention,
)
from vitdense.models.layers.fast.linear import Linear
from vitdense.models.layers.init import init_conv_fan_out_
from vitdense.models.layers.layout import pad_to_multiple, to_map, to_tokens
from vitdense.models.layers.sizes import ceil_div, is_same
from vitdense.names import unknown
from vitdense.ops.ms_deform_attn import MSDeformAttn
from vitdense.registry import MODELS

from .base import STRIDES
from .vit import ViT, ViTArch

VIT_FEATURES = ('stages', 'last', None)
ADDED = r'(spm|interactions|level_embed|up|norm\d)\b'
"""Pattern of the parameters that stand beside those of the ViT."""


@dataclass(frozen=True)
class ViTAdapterArch(ViTArch):
    """A row of the table of the paper (appendix), and what the releases vary.

    Attributes:
        conv_inplane: channels of the first convolutions.
        n_points: samples of a query in each level and head.
        deform_num_heads: heads of deformable attention.
        deform_ratio: channels of its values, relative to ``embed_dims``.
        cffn_ratio: hidden channels of the feed-forward networks that follow it, relative to ``embed_dims``; 0 for none.
        use_extra_extractor: whether two more extractors follow the last block.
        add_vit_feature: what of the ViT is added to the maps: that after each quarter of its blocks to one map
            ('stages', the official segmentation code), that after the 'last' block to all (the official detection
            code), or None.
    """

    class_token: bool = False
    pos_resize: str = 'bicubic'
    conv_inplane: int = 64
    n_points: int = 4
    deform_num_heads: int = 6
    deform_ratio: float = 1.0
    cffn_ratio: float = 0.25
    use_extra_extractor: bool = True
    add_vit_feature: str | None = 'stages'

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth % len(STRIDES):
            raise ValueError(
                f'depth must be a multiple of {len(STRIDES)}, the number of interactions, got {self.depth}'
            )
        if self.patch_size != 16:
            raise ValueError(f'patch_size must be 16, as the convolutions have such a map, got {self.patch_size}')
        if self.add_vit_feature not in VIT_FEATURES:
            raise ValueError(unknown('add_vit_feature', self.add_vit_feature, map(str, VIT_FEATURES)))


@MODELS.register_module()
class ViTAdapter(ViT):
    """Vision Transformer Adapter (Chen et al., ICLR 2023, https://arxiv.org/abs/2205.08534).

    A ViT whose weights may come from any pretraining, and an adapter that is trained afresh: convolutions make a
    pyramid, which before each quarter of the ViT's blocks is injected into the patches and after it extracts from them.
    The maps are those of the pyramid, at strides 4, 8, 16 and 32. Parameters are named as in the official release.
    Images are padded with zeros at the right and the bottom to multiples of 32; what the maps show of that is cut off.

    It keeps the contract of backbones, with these differences: a stage is a quarter of the ViT's blocks, all of them
    are always built, and the adapter is never frozen: ``layer_id`` counts it behind the last block, so that layer decay
    leaves its learning rates as they are. Windows (``window_size``) are padded as in the official code, after ``qkv``.

    - Official detection code: ``layer_scale=1.0, window_size=14, global_blocks=(2, 5, 8, 11), add_vit_feature='last'``.

    Args:
        arch: row of ``ARCHS``.
        out_indices: maps that are returned.
        frozen_stages: -1 for none, 0 patch embedding, tokens and position table, s these and s quarters of the blocks.
        in_channels: channels of the image.
        norm_cfg: norm of the convolutions and of the maps, e.g. ``dict(type='SyncBN')``.
        kwargs: as of :class:`ViT`, without ``final_norm``; columns of :class:`ViTAdapterArch` to replace among them.

    Raises:
        ValueError: unknown ``arch`` or stages, or columns that do not fit each other.
        TypeError: an argument that does not exist.
    """

    arch: ViTAdapterArch
    needs_all_stages = True
    attention = ZeroPaddedAttention
    ARCHS = {
        'tiny': ViTAdapterArch(embed_dims=192, depth=12, num_heads=3),
        'small': ViTAdapterArch(embed_dims=384, depth=12, num_heads=6),
        'base': ViTAdapterArch(embed_dims=768, depth=12, num_heads=12, deform_num_heads=12, deform_ratio=0.5),
        'large': ViTAdapterArch(embed_dims=1024, depth=24, num_heads=16, deform_num_heads=16, deform_ratio=0.5),
    }

    def __init__(
        self,
        arch: str,
        *,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        in_channels: int = 3,
        norm_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        if 'final_norm' in kwargs:
            raise TypeError('ViTAdapter has a norm for each map and no final_norm')
        super().__init__(arch, out_indices=out_indices, in_channels=in_channels, **kwargs)
        row, channels, finest = self.arch, self.arch.embed_dims, 0 in self.out_indices
        self.level_embed = nn.Parameter(torch.randn(3, channels))

        def norm(width: int) -> nn.Module:
            return build_norm_layer(norm_cfg or dict(type='BN'), width)[1]

        self.spm = SpatialPrior(in_channels, row.conv_inplane, channels, norm, finest)
        extra = 2 if row.use_extra_extractor else 0
        self.interactions = nn.ModuleList(self.build_interaction(count) for count in (1, 1, 1, 1 + extra))
        self.up = nn.ConvTranspose2d(channels, channels, 2, 2).apply(init_conv_fan_out_) if finest else None
        for index in self.out_indices:
            self.add_module(f'norm{index + 1}', norm(channels))

    def stages(self) -> list[tuple[int, int, int]]:
        return [(self.arch.depth // len(STRIDES), self.arch.embed_dims, stride) for stride in STRIDES]

    def build_interaction(self, extractors: int) -> Interaction:
        """Deformable attention and feed-forward networks of an interaction."""
        row, channels = self.arch, self.arch.embed_dims

        def attend(levels: int) -> MSDeformAttn:
            return MSDeformAttn(channels, levels, row.deform_num_heads, row.n_points, row.deform_ratio, Linear)

        def extractor() -> Extractor:
            hidden = int(channels * row.cffn_ratio)
            return Extractor(channels, attend(1), PyramidMlp(channels, hidden) if hidden else None, row.drop_path_rate)

        return Interaction(Injector(channels, attend(3)), [extractor() for _ in range(extractors)])

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Image (B, 3, H, W) to one map (B, C, H/s, W/s), rounded up, for each of ``out_indices``; s = its stride."""
        padded = pad_to_multiple(image, STRIDES[-1])
        finest, maps = self.spm(padded)
        c = torch.cat([to_tokens(x)[0] + level for x, level in zip(maps, self.level_embed, strict=True)], dim=1)
        patches, hw = self.patch_embed(padded)
        geometry = Geometry.of(hw, patches)
        c, features = self.interact(self.place(patches, hw), c, geometry)
        levels = c.split([height * width for height, width in geometry.levels], dim=1)
        maps = [to_map(level, size) for level, size in zip(levels, geometry.levels, strict=True)]
        if finest is not None and self.up is not None:
            maps.insert(0, self.up(maps[0]) + finest)
        absent = len(STRIDES) - len(maps)  # the map of stride 4, unless it is returned
        return tuple(self.finish(maps[i - absent], features[i], hw, i, image) for i in self.out_indices)

    def interact(self, x: Tensor, c: Tensor, geometry: Geometry) -> tuple[Tensor, list[Tensor]]:
        """Tokens (B, P + N, C) and the pyramid (B, S, C) to the pyramid, and to the patches (B, N, C) for each map."""
        prefix, quarter, features = self.arch.num_prefix, self.depths[0], []
        for stage, interaction in enumerate(cast('Iterable[Interaction]', self.interactions)):
            injected = self.run_block(interaction.injector, x[:, prefix:], c, geometry)
            x = torch.cat([x[:, :prefix], injected], dim=1) if prefix else injected
            for block in self.blocks[stage * quarter : (stage + 1) * quarter]:
                x = self.run_block(block, x, geometry.patches)
            features.append(x[:, prefix:])
            for extractor in interaction.extractors:
                c = self.run_block(extractor, c, features[-1], geometry)
        return c, features if self.arch.add_vit_feature == 'stages' else features[-1:] * len(features)

    def finish(self, x: Tensor, feature: Tensor, hw: tuple[int, int], index: int, image: Tensor) -> Tensor:
        """Map ``index`` (B, C, H, W) with the patches (B, N, C) added, normalised and cut to what shows the image."""
        if self.arch.add_vit_feature is not None:
            feature = to_map(feature, hw)
            if not is_same(feature.shape[2:], x.shape[2:]):
                feature = F.interpolate(feature, x.shape[2:], mode='bilinear', align_corners=False)
            x = x + feature
        height, width = (ceil_div(side, STRIDES[index]) for side in image.shape[2:])
        return getattr(self, f'norm{index + 1}')(x)[:, :, :height, :width].contiguous()

    def layer_id(self, name: str) -> int:
        return len(self.blocks) + 1 if re.match(ADDED, name) else super().layer_id(name)
