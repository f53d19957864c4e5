"""Multi-level aggregation of SETR (Zheng et al., CVPR 2021, https://arxiv.org/abs/2012.15840)."""

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from vitdense.registry import MODELS


@MODELS.register_module()
class MLANeck(BaseModule):
    """Maps of a plain ViT, projected and summed from the deepest up (section 3.3, decoder "MLA").

    Each map passes a LayerNorm (eps 1e-6) and a 1 x 1 convolution. Then the maps of deeper blocks are added to it, and
    the sum passes a 3 x 3 convolution. Sizes stay as they are.

    Args:
        in_channels: channels of each map, the shallowest first.
        out_channels: channels of all results.
        norm_cfg: norm behind the convolutions.
        act_cfg: activation behind them.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        layers = dict(norm_cfg=norm_cfg, act_cfg=act_cfg or dict(type='ReLU'))
        self.norm = nn.ModuleList(LayerNorm2d(channels, eps=1e-6) for channels in in_channels)
        self.project = nn.ModuleList(ConvModule(channels, out_channels, 1, **layers) for channels in in_channels)
        self.extract = nn.ModuleList(
            ConvModule(out_channels, out_channels, 3, padding=1, **layers) for _ in in_channels
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (B, C, H, W) of one size, the shallowest first, to as many (B, C', H, W)."""
        total, results = 0, []
        for x, norm, project, extract in reversed(list(zip(maps, self.norm, self.project, self.extract, strict=True))):
            total = total + project(norm(x))
            results.append(extract(total))
        return tuple(reversed(results))
