"""The decoders of SETR (Zheng et al., CVPR 2021, https://arxiv.org/abs/2012.15840, section 3.3)."""

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from vitdense.registry import MODELS


@MODELS.register_module()
class SETRUPHead(BaseDecodeHead):
    """Classes from one map of a plain ViT: a LayerNorm (eps 1e-6), then convolutions, each with an upsampling.

    The naive decoder of the paper is one 1 x 1 convolution, in the release without any upsampling before the logits are
    resized to the image; the progressive one (PUP) four 3 x 3 convolutions with an upsampling by 2 each.

    Args:
        num_convs: number of convolutions.
        kernel_size: 1 or 3.
        up_scale: factor of the upsampling behind each; 1 for none.
        kwargs: of mmseg's ``BaseDecodeHead``.

    Raises:
        ValueError: another ``kernel_size``.
    """

    def __init__(self, *, num_convs: int = 1, kernel_size: int = 3, up_scale: int = 4, **kwargs) -> None:
        super().__init__(**kwargs)
        if kernel_size not in (1, 3):
            raise ValueError(f'SETRUPHead: kernel_size must be 1 or 3, got {kernel_size}')
        self.up_scale = up_scale
        self.norm = LayerNorm2d(self.in_channels, eps=1e-6)
        widths = [self.in_channels] + num_convs * [self.channels]
        self.convs = nn.ModuleList(
            conv_norm(self, before, self.channels, kernel_size, bias=True) for before in widths[:-1]
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps (B, C, H, W), of which ``in_index`` counts, to logits (B, K, H', W'); H' = H * up_scale ** num_convs."""
        x = self.norm(self._transform_inputs(inputs))
        for conv in self.convs:
            x = upsample(conv(x), self.up_scale, self.align_corners)
        return self.cls_seg(x)


@MODELS.register_module()
class SETRMLAHead(BaseDecodeHead):
    """Classes from the maps of :class:`MLANeck`: each passes two 3 x 3 convolutions and an upsampling by 4.

    The upsampled maps are joined along their channels, ``channels`` in all, and classified by a 3 x 3 convolution.

    Args:
        up_align_corners: of the upsampling by 4, which the release aligns other than the resizing of the logits.
        kwargs: of mmseg's ``BaseDecodeHead``; ``in_channels`` and ``in_index`` of each map, the shallowest first.

    Raises:
        ValueError: ``channels`` that the maps cannot share.
    """

    def __init__(self, *, up_align_corners: bool = True, **kwargs) -> None:
        super().__init__(input_transform='multiple_select', **kwargs)
        count = len(self.in_channels)
        if self.channels % count:
            raise ValueError(
                f'SETRMLAHead: channels {self.channels} must be a multiple of the {count} maps of in_index'
            )
        width = self.channels // count
        self.up_align_corners = up_align_corners
        self.convs = nn.ModuleList(
            nn.Sequential(conv_norm(self, channels, width, 3), conv_norm(self, width, width, 3))
            for channels in self.in_channels
        )
        self.conv_seg = nn.Conv2d(self.channels, self.out_channels, 3, padding=1)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps (B, C, H, W) to logits (B, K, 4H, 4W)."""
        maps = self._transform_inputs(inputs)
        branches = [upsample(conv(x), 4, self.up_align_corners) for conv, x in zip(self.convs, maps, strict=True)]
        return self.cls_seg(torch.cat(branches, dim=1))


def conv_norm(head: BaseDecodeHead, channels: int, out_channels: int, kernel_size: int, **kwargs) -> ConvModule:
    """A convolution that keeps the size of its map, with the norm and the activation of ``head``."""
    layers = dict(norm_cfg=head.norm_cfg, act_cfg=head.act_cfg)
    return ConvModule(channels, out_channels, kernel_size, padding=kernel_size // 2, **layers, **kwargs)


def upsample(x: Tensor, scale: int, align_corners: bool) -> Tensor:
    """Bilinear upsampling of a map (B, C, H, W) by an integer."""
    if scale == 1:
        return x
    size = tuple(scale * side for side in x.shape[2:])
    return F.interpolate(x, size, mode='bilinear', align_corners=align_corners)
