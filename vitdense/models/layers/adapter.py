"""What ViT-Adapter adds to a plain ViT: convolutions, and the exchange between their pyramid and the patches.

Names come from the release. A pyramid is the tokens (B, S, C) of the maps at strides 8, 16 and 32, one after the other.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from vitdense.ops.ms_deform_attn import MSDeformAttn

from .attention import SelfAttention
from .init import init_conv_fan_out_, init_linear_
from .layout import cell_centres
from .mlp import DepthwiseConv, FeedForward

Norm = Callable[[int], nn.Module]
Sizes = tuple[tuple[int, int], ...]


class Geometry(NamedTuple):
    """Sizes and cell centres of the patches and of the pyramid.

    Attributes:
        patches: (H, W) of the patches.
        levels: (H, W) of each level.
        patch_centres: xy in [0, 1], the same for each level, (B, N, 3, 2).
        level_centres: xy in [0, 1] of the cells of all levels (B, S, 1, 2).
    """

    patches: tuple[int, int]
    levels: Sizes
    patch_centres: Tensor
    level_centres: Tensor

    @classmethod
    def of(cls, patches: tuple[int, int], like: Tensor) -> 'Geometry':
        """That of patches (H, W) with even sides, on the device and for the batch of ``like``."""
        height, width = patches
        levels = ((2 * height, 2 * width), patches, (height // 2, width // 2))
        centres = [cell_centres([hw], hw, like.device) for hw in levels]
        batch = like.shape[0]
        return cls(
            patches,
            levels,
            centres[1][:, :, None].expand(batch, -1, len(levels), -1),
            torch.cat(centres, dim=1)[:, :, None].expand(batch, -1, -1, -1),
        )


class SpatialPrior(nn.Module):
    """Maps of strides 4, 8, 16 and 32, by 3 x 3 convolutions with ``norm`` and ReLU, projected to ``channels``.

    ``finest`` adds a map of stride 4.
    """

    def __init__(self, in_channels: int, hidden_channels: int, channels: int, norm: Norm, finest: bool) -> None:
        super().__init__()
        width, *_ = widths = [hidden_channels * factor for factor in (1, 2, 4, 4)]
        self.stem = nn.Sequential(
            *_conv(in_channels, width, 2, norm),
            *_conv(width, width, 1, norm),
            *_conv(width, width, 1, norm),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.conv2, self.conv3, self.conv4 = (
            nn.Sequential(*_conv(before, after, 2, norm)) for before, after in pairwise(widths)
        )
        self.fc1 = nn.Conv2d(width, channels, 1) if finest else None
        self.fc2, self.fc3, self.fc4 = (nn.Conv2d(width, channels, 1) for width in widths[1:])
        self.apply(init_conv_fan_out_)

    def forward(self, image: Tensor) -> tuple[Tensor | None, list[Tensor]]:
        """Image (B, 3, H, W) to maps of strides 4 (or None), 8, 16 and 32."""
        x = self.stem(image)
        finest = None if self.fc1 is None else self.fc1(x)
        maps = []
        for conv, project in ((self.conv2, self.fc2), (self.conv3, self.fc3), (self.conv4, self.fc4)):
            x = conv(x)
            maps.append(project(x))
        return finest, maps


def _conv(in_channels: int, channels: int, stride: int, norm: Norm) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
    return [conv, norm(channels), nn.ReLU(inplace=True)]


class PyramidMlp(FeedForward):
    """The convolutional feed-forward with one convolution for all levels of a pyramid."""

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__(channels, hidden_channels)
        self.dwconv = DepthwiseConv(hidden_channels)

    def forward(self, x: Tensor, sizes: Sizes) -> Tensor:
        """The pyramid (B, S, C) to the same."""
        return self.feed(x, lambda x: self.expand(x, sizes))

    def expand(self, x: Tensor, sizes: Sizes) -> Tensor:
        """Everything before the GELU: (B, S, C) to (B, S, C')."""
        levels = self.fc1(x).split([height * width for height, width in sizes], dim=1)
        return torch.cat([self.dwconv(x, hw) for x, hw in zip(levels, sizes, strict=True)], dim=1)


class Injector(nn.Module):
    """Patches look into the pyramid (section 3.3): ``x + gamma * attn(norm(x), norm(c))``, gamma zero at first."""

    def __init__(self, channels: int, attn: MSDeformAttn) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(channels, eps=1e-6)
        self.feat_norm = nn.LayerNorm(channels, eps=1e-6)
        self.attn = attn
        self.gamma = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, c: Tensor, geometry: Geometry) -> Tensor:
        """Patches (B, N, C) and the pyramid (B, S, C) to patches."""
        seen = self.attn(self.query_norm(x), geometry.patch_centres, self.feat_norm(c), geometry.levels)
        return x + self.gamma * seen


class Extractor(nn.Module):
    """The pyramid looks at the patches (section 3.4), and passes through ``ffn`` unless that is None."""

    def __init__(self, channels: int, attn: MSDeformAttn, ffn: PyramidMlp | None, drop_path: float) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(channels, eps=1e-6)
        self.feat_norm = nn.LayerNorm(channels, eps=1e-6)
        self.attn = attn
        self.ffn = ffn
        if ffn is not None:
            self.ffn_norm = nn.LayerNorm(channels, eps=1e-6)
            ffn.apply(init_linear_).apply(init_conv_fan_out_)
        self.drop_path = DropPath(drop_path)

    def forward(self, c: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
        """The pyramid (B, S, C) and patches (B, N, C) to the pyramid."""
        c = c + self.attn(self.query_norm(c), geometry.level_centres, self.feat_norm(x), (geometry.patches,))
        if self.ffn is None:
            return c
        return c + self.drop_path(self.ffn(self.ffn_norm(c), geometry.levels))


class Interaction(nn.Module):
    """An injector before some blocks of a ViT, and one or more extractors after them."""

    def __init__(self, injector: Injector, extractors: list[Extractor]) -> None:
        super().__init__()
        self.injector = injector
        self.extractor, *extra = extractors
        self.extra_extractors = nn.ModuleList(extra)

    @property
    def extractors(self) -> list[Extractor]:
        """All of them, in order."""
        return [self.extractor, *self.extra_extractors]


class ZeroPaddedAttention(SelfAttention):
    """Attention whose windows are padded with zeros after ``qkv``: the padding has no bias of its own."""

    @property
    def padding(self) -> None:
        return None
