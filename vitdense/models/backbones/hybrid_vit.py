"""Hybrid Vision Transformer: its patches come from the map of a convolutional network (R50+ViT-B/16)."""

import math
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

from timm.layers import StdConv2dSame
from timm.models.resnetv2 import ResNetV2
from torch import Tensor, nn
from torch.nn import functional as F

from vitdense.models.layers.patch_embed import PatchEmbed
from vitdense.models.layers.sizes import ceil_div
from vitdense.registry import MODELS

from .vit import ViT, ViTArch

SKIPS = ((64, 2), (256, 4), (512, 8))
"""Channels and strides of the maps before the one of the patches: the root's and those of two stages."""


@dataclass(frozen=True)
class HybridViTArch(ViTArch):
    """A row of the table of :class:`ViT`, and its ResNet.

    Attributes:
        layers: bottlenecks of each of the three stages.
    """

    layers: tuple[int, int, int] = (3, 4, 9)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.layers) != 3 or min(self.layers) < 1:
            raise ValueError(f'layers must be bottlenecks of three stages, got {self.layers}')
        if self.patch_size != 16:
            raise ValueError(f'patch_size must be 16, the stride of the last of three stages, got {self.patch_size}')


class SameConv(StdConv2dSame):
    """timm's convolution with standardised weights and the padding of TensorFlow, computed with integers only."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.pads, self.same_pad = self.same_pad, False

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride), rounded up."""
        return super().forward(pad_same(x, self.kernel_size[0], self.stride[0]) if self.pads else x)


def pad_same(x: Tensor, kernel_size: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad a map (B, C, H, W) for sides of H / ``stride`` and W / ``stride``, rounded up, more of it behind."""
    if kernel_size <= stride:
        return x
    pads = []
    for side in reversed(x.shape[2:]):
        total = (ceil_div(side, stride) - 1) * stride + kernel_size - side
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


class HybridEmbed(PatchEmbed):
    """A ResNet, and what makes patches of the cells of its last map; only the ResNet for no ``channels``."""

    def __init__(self, backbone: ResNetV2, channels: int, drop: float) -> None:
        if channels:
            super().__init__(backbone.num_features, channels, 1, 1, drop, norm=False)
        else:
            nn.Module.__init__(self)
        self.backbone = backbone


@MODELS.register_module()
class HybridViT(ViT):
    """The hybrid of Dosovitskiy et al. (ICLR 2021, https://arxiv.org/abs/2010.11929), the encoder of TransUNet.

    A ResNet with group norm and standardised weights (timm's ``ResNetV2``) ends at stride 16, and each cell of its last
    map is a patch. The maps to choose from by ``out_indices`` are

    - 0, 1, 2: its root, before the pooling, and its first two stages: 64, 256 and 512 channels at strides 2, 4 and 8;
    - 3 + i: that after block i of the transformer, at stride 16, as in :class:`ViT`.

    Blocks in the sense of :class:`Backbone` are those of the transformer and the bottlenecks before them; the third
    stage of the ResNet, the patch embedding, tokens and position table belong to stage 3. Parameters are named as in
    timm's ``vit_base_r50_s16_224``. Convolutions are padded as in TensorFlow: sides of maps are rounded up. The last
    norm of a bottleneck starts with scales of zero, as in Google's code.

    Args:
        arch: row of ``ARCHS``.
        out_indices: maps that are returned, see above; later stages are not built. Default: the last.
        frozen_stages: -1 for none, 0 the root, s this and the stages 0 to s - 1.
        kwargs: as of :class:`ViT`; columns of :class:`HybridViTArch` to replace among them, e.g. ``layers=(3, 4, 6)``.

    Raises:
        ValueError: unknown ``arch`` or stages, or columns that do not fit each other.
        TypeError: an argument that does not exist.
    """

    arch: HybridViTArch
    patch_embed: HybridEmbed
    ARCHS = {'base': HybridViTArch(embed_dims=768, depth=12, num_heads=12)}

    def stages(self) -> list[tuple[int, int, int]]:
        *convs, last = self.arch.layers
        (depth, width, stride), *others = super().stages()
        skips = [(layers, *sizes) for layers, sizes in zip((0, *convs), SKIPS, strict=True)]
        return [*skips, (last + depth, width, stride), *others]

    def build_patch_embed(self, in_channels: int, drop: float) -> HybridEmbed:
        backbone = ResNetV2(
            list(self.arch.layers[: len(self.depths) - 1]),
            num_classes=0,
            in_chans=in_channels,
            global_pool='',
            stem_type='same',
            preact=False,
            conv_layer=partial(SameConv, eps=1e-8),
            zero_init_last=True,
        )
        return HybridEmbed(backbone, self.arch.embed_dims if len(self.depths) > len(SKIPS) else 0, drop)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Image (B, 3, H, W) to one map (B, C, H/s, W/s), rounded up, for each of ``out_indices``; s = its stride."""
        resnet: Any = self.patch_embed.backbone
        x = resnet.stem.norm(resnet.stem.conv(image))
        convolved = [x]
        x = F.max_pool2d(pad_same(x, 3, 2, -math.inf), 3, 2)
        for stage in resnet.stages:
            for bottleneck in stage.blocks:
                x = self.run_block(bottleneck, x)
            convolved.append(x)
        maps = [convolved[index] for index in self.out_indices if index < len(SKIPS)]
        return (*maps, *self.transform(*self.patch_embed(x))) if self.blocks else tuple(maps)

    def leaves_out(self, name: str) -> bool:
        stage = re.match(r'patch_embed\.backbone\.stages\.(\d)\.', name)
        if stage:
            return len(self.patch_embed.backbone.stages) <= int(stage[1]) < len(self.arch.layers)
        return super().leaves_out(name) if self.blocks else not name.startswith('patch_embed.backbone.')

    def layer_id(self, name: str) -> int:
        found = re.match(r'patch_embed\.backbone\.(stem\.|stages\.(\d)\.blocks\.(\d+)\.)', name)
        if not found:
            return sum(self.arch.layers) + max(super().layer_id(name), 1)
        return 0 if found[1] == 'stem.' else sum(self.arch.layers[: int(found[2])]) + int(found[3]) + 1
