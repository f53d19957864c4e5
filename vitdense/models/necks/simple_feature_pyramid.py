"""The feature pyramid of ViTDet (Li et al., ECCV 2022, section 3, https://arxiv.org/abs/2203.16527)."""

import math
from collections.abc import Sequence
from itertools import pairwise

from mmengine.model import BaseModule
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from vitdense.registry import MODELS

MODELS.register_module(module=LayerNorm2d)  # for the norm_cfg of the heads that follow


class ConvNorm(nn.Conv2d):
    """Convolution without bias that keeps the size of its map, then ``norm``: LayerNorm over channels (eps 1e-6)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = LayerNorm2d(out_channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H, W)."""
        return self.norm(super().forward(x))


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """A pyramid from one map: each level is that map, resized and then projected by a 1 x 1 and a 3 x 3 convolution.

    Transposed convolutions of stride 2 enlarge, each halving the channels, with LayerNorm and GELU between two of them;
    max pooling reduces. A level of scale ``2 ** n`` is called ``simfp_{4 - n}``, which is how the release names the
    levels of a map of stride 16. Odd sides are rounded up where they are halved, so that no pixel is lost.

    Args:
        in_channels: channels of the map.
        out_channels: channels of all levels.
        scale_factors: size of each level relative to the map, the largest first, each half of the one before.
        num_outs: number of levels; those beyond ``scale_factors`` take every second pixel of the level before.
        init_cfg: mmengine's initialisation config.

    Raises:
        ValueError: factors that are not such a sequence of powers of two, none or more of them than ``num_outs``, or
            channels that cannot be halved often enough.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        scale_factors: Sequence[float] = (4, 2, 1, 0.5),
        num_outs: int = 5,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        scale_factors = tuple(scale_factors)
        halved = all(small == large / 2 for large, small in pairwise(scale_factors))
        if not (halved and all(scale > 0 and math.log2(scale).is_integer() for scale in scale_factors)):
            raise ValueError(f'scale_factors must be powers of two, each half of the one before, got {scale_factors}')
        if not 1 <= len(scale_factors) <= num_outs:
            raise ValueError(f'num_outs must be at least the number of scale_factors {scale_factors}, got {num_outs}')
        if in_channels % max(scale_factors[0], 1):
            raise ValueError(
                f'in_channels must be a multiple of scale_factors[0] {scale_factors[0]}, got {in_channels}'
            )
        steps = [int(math.log2(scale)) for scale in scale_factors]
        self.names = [f'simfp_{4 - step}' for step in steps]
        for name, step in zip(self.names, steps, strict=True):
            self.add_module(name, nn.Sequential(*_level(in_channels, out_channels, step)))
        self.num_outs = num_outs

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps of a backbone, of which only the last (B, C, H, W) counts, to ``num_outs`` levels, the largest first."""
        levels = [getattr(self, name)(maps[-1]) for name in self.names]
        while len(levels) < self.num_outs:
            levels.append(levels[-1][:, :, ::2, ::2])
        return tuple(levels)


def _level(channels: int, out_channels: int, steps: int) -> list[nn.Module]:
    """Layers of the level that is ``2 ** steps`` times as large as the map."""
    layers = []
    for step in range(steps):
        if step:
            layers += [LayerNorm2d(channels, eps=1e-6), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 2, stride=2))
        channels //= 2
    if steps < 0:
        layers.append(nn.MaxPool2d(2**-steps, ceil_mode=True))
    return [*layers, ConvNorm(channels, out_channels, 1), ConvNorm(out_channels, out_channels, 3)]
