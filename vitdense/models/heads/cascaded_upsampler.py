"""The decoder of TransUNet (Chen et al., 2021, https://arxiv.org/abs/2102.04306, section 3.2)."""

from collections.abc import Sequence
from itertools import zip_longest

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn
from torch.nn import functional as F

from vitdense.registry import MODELS

from .setr import conv_norm


@MODELS.register_module()
class CascadedUpsamplerHead(BaseDecodeHead):
    """Classes from the map of a ViT, which doubles its sides block by block and meets the maps of a ResNet on its way.

    A 3 x 3 convolution narrows the map. Each block upsamples it, joins it with a skip map along the channels, and ends
    in two 3 x 3 convolutions. A 3 x 3 convolution classifies the last map. With :class:`HybridViT` this is TransUNet,
    with the only map of a plain :class:`ViT` the cascaded upsampler without skips that the paper compares.

    Args:
        in_channels: channels of the maps, first the skip maps from the largest on, then the
            ViT's map. The last skip map goes to the first block, and so on; blocks may be left over.
        in_index: their places among the inputs.
        hidden_channels: channels after the first convolution.
        block_channels: channels of each block.
        kwargs: of mmseg's ``BaseDecodeHead``; ``channels`` are the last of ``block_channels``.

    Raises:
        ValueError: more skip maps than blocks.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        in_index: Sequence[int],
        hidden_channels: int = 512,
        block_channels: Sequence[int] = (256, 128, 64, 16),
        **kwargs,
    ) -> None:
        maps = dict(in_channels=in_channels, in_index=in_index, input_transform='multiple_select')
        super().__init__(**maps, channels=block_channels[-1], **kwargs)
        *skips, channels = self.in_channels
        if len(skips) > len(block_channels):
            raise ValueError(
                f'CascadedUpsamplerHead: in_channels has {len(skips)} skip maps for {len(block_channels)} blocks'
            )
        self.conv_more = conv_norm(self, channels, hidden_channels, 3)
        self.blocks = nn.ModuleList()
        widths = zip_longest((hidden_channels, *block_channels[:-1]), skips[::-1], block_channels, fillvalue=0)
        for before, skip, after in widths:
            self.blocks.append(
                nn.Sequential(conv_norm(self, before + skip, after, 3), conv_norm(self, after, after, 3))
            )
        self.conv_seg = nn.Conv2d(self.channels, self.out_channels, 3, padding=1)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps (B, C, H, W), of which ``in_index`` counts, to logits (B, K, H', W').

        A block upsamples to the sides of its skip map, or by two where it has none. From stride 16 and
        with three skip maps, the logits have the sides of the image, or one more where these are odd.
        """
        *skips, x = self._transform_inputs(inputs)
        x = self.conv_more(x)
        for block, skip in zip_longest(self.blocks, skips[::-1]):
            hw = [2 * side for side in x.shape[2:]] if skip is None else skip.shape[2:]
            x = F.interpolate(x, tuple(hw), mode='bilinear', align_corners=True)
            x = block(x if skip is None else torch.cat([x, skip], dim=1))
        return self.cls_seg(x)
