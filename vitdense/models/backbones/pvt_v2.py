"""PVT v2 (Wang et al., Computational Visual Media 2022, https://arxiv.org/abs/2106.13797)."""

from dataclasses import dataclass

from torch import Tensor, nn

from vitdense.models.layers.attention import LinearSpatialReductionAttention, SpatialReductionAttention
from vitdense.models.layers.init import init_conv_fan_out_
from vitdense.models.layers.mlp import ConvMlp
from vitdense.models.layers.patch_embed import PatchEmbed
from vitdense.registry import MODELS

from .pvt import PVTArch, PyramidVisionTransformer


@dataclass(frozen=True)
class PVTv2Arch(PVTArch):
    """A row of table 1 of the paper; ``linear`` pools keys and values to 7 x 7 and leaves ``sr_ratios`` unused."""

    linear: bool = False


@MODELS.register_module()
class PVTv2(PyramidVisionTransformer):
    """Pyramid Vision Transformer, version 2: overlapping patches, convolutional feed-forward, no position embedding.

    Each stage ends in a LayerNorm ``norm{s}`` (eps 1e-6), and its output is both returned and passed on. Arguments are
    those of :class:`Pyramid`.
    """

    arch: PVTv2Arch
    ARCHS = {
        'b0': PVTv2Arch(depths=(2, 2, 2, 2), embed_dims=(32, 64, 160, 256)),
        'b1': PVTv2Arch(depths=(2, 2, 2, 2)),
        'b2': PVTv2Arch(depths=(3, 4, 6, 3)),
        'b2_li': PVTv2Arch(depths=(3, 4, 6, 3), linear=True),
        'b3': PVTv2Arch(depths=(3, 4, 18, 3)),
        'b4': PVTv2Arch(depths=(3, 8, 27, 3)),
        'b5': PVTv2Arch(depths=(3, 6, 40, 3), mlp_ratios=(4, 4, 4, 4)),
    }

    def __init__(self, arch: str, **kwargs) -> None:
        super().__init__(arch, **kwargs)
        self.apply(init_conv_fan_out_)

    def build_patch_embed(self, stage: int, in_channels: int) -> PatchEmbed:
        kernel_size, stride = (7, 4) if stage == 0 else (3, 2)
        return PatchEmbed(in_channels, self.arch.embed_dims[stage], kernel_size, stride)

    def build_mlp(self, channels: int, hidden_channels: int) -> ConvMlp:
        return ConvMlp(channels, hidden_channels, self.drop_rate, relu=self.arch.linear)

    def build_attention(self, stage: int) -> SpatialReductionAttention:
        if self.arch.linear:
            return LinearSpatialReductionAttention(**self.attention_args(stage))
        return super().build_attention(stage)

    def build_rest(self, stage: int) -> None:
        setattr(self, f'norm{stage + 1}', nn.LayerNorm(self.arch.embed_dims[stage], eps=1e-6))

    def leave_stage(self, tokens: Tensor, stage: int) -> Tensor:
        return getattr(self, f'norm{stage + 1}')(tokens)
