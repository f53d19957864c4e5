"""Patch embedding: from a map to the tokens of a stage."""

from torch import Tensor, nn

from .layout import to_tokens


class PatchEmbed(nn.Module):
    """Convolution ``proj`` and LayerNorm ``norm`` (eps 1e-5, also where the blocks use 1e-6), or no norm.

    ``kernel_size == stride`` cuts the map into patches and drops the remainder (PVT, section 3.1); a larger kernel with
    ``kernel_size // 2`` zeros around overlaps them (PVTv2, section 3.2). A model applies ``drop`` to the tokens when it
    has added their positions; here it is frozen with the rest.
    """

    def __init__(
        self, in_channels: int, channels: int, kernel_size: int, stride: int, drop: float = 0.0, norm: bool = True
    ) -> None:
        super().__init__()
        padding = kernel_size // 2 if kernel_size > stride else 0
        self.proj = nn.Conv2d(in_channels, channels, kernel_size, stride, padding)
        self.norm = nn.LayerNorm(channels) if norm else nn.Identity()
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Map (B, C, H, W) to tokens (B, N, C') and their ``hw``."""
        tokens, hw = to_tokens(self.proj(x))
        return self.norm(tokens), hw
