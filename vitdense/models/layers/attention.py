"""Softmax attention, all of it through ``scaled_dot_product_attention``."""

from torch import Tensor, nn
from torch.nn import functional as F

from .layout import to_map, to_tokens


def attention(q: Tensor, k: Tensor, v: Tensor, num_heads: int, dropout: float = 0.0) -> Tensor:
    """Multi-head attention of queries (B, N, C) over keys and values (B, N', C), as (B, N, C); scale 1 / sqrt(D)."""
    q, k, v = (x.unflatten(2, (num_heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, M, N, D)
    out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    return out.transpose(1, 2).flatten(2)


class SpatialReductionAttention(nn.Module):
    """Attention over a reduced map of keys and values (PVT, section 3.3).

    The map is reduced by a convolution ``sr`` with kernel and stride ``sr_ratio``, and a LayerNorm (eps 1e-5).
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        sr_ratio: int,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.q = nn.Linear(channels, channels, bias=qkv_bias)
        self.kv = nn.Linear(channels, 2 * channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)
        self.proj_drop = nn.Dropout(proj_drop)
        self.reduces = sr_ratio > 1
        if self.reduces:
            self.sr = nn.Conv2d(channels, channels, sr_ratio, sr_ratio)
            self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Tokens (B, N, C) to (B, N, C)."""
        k, v = self.kv(self.reduce(x, hw)).chunk(2, dim=2)
        x = attention(self.q(x), k, v, self.num_heads, self.attn_drop if self.training else 0.0)
        return self.proj_drop(self.proj(x))

    def reduce(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Tokens (B, N, C) to those that make keys and values (B, N', C)."""
        return self.norm(to_tokens(self.sr(to_map(x, hw)))[0]) if self.reduces else x


class LinearSpatialReductionAttention(SpatialReductionAttention):
    """Attention over a map pooled to 7 x 7, whatever the image size (PVTv2, section 3.1)."""

    POOL = 7

    def __init__(self, channels: int, num_heads: int, **kwargs) -> None:
        super().__init__(channels, num_heads, sr_ratio=1, **kwargs)
        self.sr = nn.Conv2d(channels, channels, 1)
        self.norm = nn.LayerNorm(channels)

    def reduce(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        pooled = F.adaptive_avg_pool2d(to_map(x, hw), self.POOL)
        return F.gelu(self.norm(to_tokens(self.sr(pooled))[0]))
