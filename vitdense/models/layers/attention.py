"""Softmax attention, all of it through ``scaled_dot_product_attention``."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fast.light import recomputed
from .fast.linear import Linear, linear
from .layout import from_windows, to_map, to_tokens, to_windows
from .sizes import average_pool


def attention(
    q: Tensor, k: Tensor, v: Tensor, num_heads: int, dropout: float = 0.0, bias: Tensor | None = None
) -> Tensor:
    """Multi-head attention of queries (B, N, C) over keys and values (B, N', C), as (B, N, C); scale 1 / sqrt(D).

    ``bias``, of a shape that broadcasts to (B, M, N, N'), is added to the logits, or is False for pairs to leave out.
    """
    q, k, v = (split_heads(x, num_heads) for x in (q, k, v))
    return merge_heads(F.scaled_dot_product_attention(q, k, v, bias, dropout))


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, N, C) to (B, M, N, D), a view."""
    return x.unflatten(2, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, M, N, D) to (B, N, C)."""
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Attention of all tokens over each other, or within windows (ViT; ViTDet, section 3).

    A window has ``window_size`` tokens a side, 0 for no windows. A map that they do not divide is padded at the right
    and the bottom with zeros, before ``qkv`` and unmasked. Only that which ``qkv`` makes of a zero is ever computed
    for the padding, which is its bias.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        window_size: int = 0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop = nn.Dropout(attn_drop)
        self.window_size = window_size
        self.qkv = Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = Linear(channels, channels)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Tokens (B, N, C) to (B, N, C)."""
        return self.mix(self.project(x, hw), hw)

    def project(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Tokens (B, N, C) of a map ``hw`` to queries, keys and values (B, N, 3C), of windows (B * W, n, 3C) if any."""
        qkv = linear(x, self.qkv.weight, self.bias)
        return to_windows(qkv, hw, self.window_size, self.padding) if self.window_size else qkv

    @property
    def bias(self) -> Tensor | None:
        """Bias of queries, keys and values (3C,)."""
        return self.qkv.bias

    @property
    def padding(self) -> Tensor | None:
        """Queries, keys and values (3C,) of the padding of windows; None for zeros."""
        return self.bias

    def mix(self, qkv: Tensor, hw: tuple[int, int]) -> Tensor:
        """Queries, keys and values that :meth:`project` has made of a map ``hw`` to tokens (B, N, C)."""
        if self.window_size:
            x = from_windows(self.attend(qkv, (self.window_size, self.window_size)), hw, self.window_size)
        else:
            x = self.attend(qkv, hw)
        return self.proj_drop(self.proj(x))

    def attend(self, qkv: Tensor, hw: tuple[int, int]) -> Tensor:
        """Queries, keys and values (B, N, 3C) of a map or a window ``hw`` to mixed values (B, N, C)."""
        q, k, v = qkv.chunk(3, dim=2)
        return attention(q, k, v, self.num_heads, self.dropout)

    @property
    def dropout(self) -> float:
        """Dropout of the attention weights, as it applies now."""
        return self.attn_drop.p if self.training else 0.0


class MultiHeadAttention(nn.Module):
    """Attention of queries over other tokens; its parameters are those of ``nn.MultiheadAttention``.

    Unlike there, positions can be added to queries and keys and not to values (DETR), padding is masked without a
    matrix of all weights, and all matrix products are :func:`linear`.
    """

    def __init__(self, channels: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop = nn.Dropout(dropout)
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * channels, channels)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = Linear(channels, channels)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None = None) -> Tensor:
        """Queries (B, N, C) over keys and values (B, N', C) to (B, N, C).

        ``valid``, of a shape that broadcasts to (B, M, N, N'), is True for the pairs that take part.
        """
        if q is k:
            q, k = self._project(q, 0, 2).chunk(2, dim=2)
        else:
            q, k = self._project(q, 0, 1), self._project(k, 1, 2)
        dropout = self.attn_drop.p if self.training else 0.0
        x = attention(q, k, self._project(v, 2, 3), self.num_heads, dropout, valid)
        return self.out_proj(x)

    def _project(self, x: Tensor, first: int, last: int) -> Tensor:
        rows = slice(first * x.shape[2], last * x.shape[2])
        return linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])


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
        self.attn_drop = nn.Dropout(attn_drop)
        self.q = Linear(channels, channels, bias=qkv_bias)
        self.kv = Linear(channels, 2 * channels, bias=qkv_bias)
        self.proj = Linear(channels, channels)
        self.proj_drop = nn.Dropout(proj_drop)
        self.reduces = sr_ratio > 1
        if self.reduces:
            self.sr = nn.Conv2d(channels, channels, sr_ratio, sr_ratio)
            self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        """Tokens (B, N, C) to (B, N, C)."""
        k, v = self.kv(self.reduce(x, hw)).chunk(2, dim=2)
        dropout = self.attn_drop.p if self.training else 0.0
        x = recomputed(self.q, lambda q: attention(q, k, v, self.num_heads, dropout), x)
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
        average = average_pool if torch.compiler.is_exporting() else F.adaptive_avg_pool2d
        pooled = average(to_map(x, hw), (self.POOL, self.POOL))
        return F.gelu(self.norm(to_tokens(self.sr(pooled))[0]))
