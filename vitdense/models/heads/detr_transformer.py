"""The transformer of DETR (Carion et al., ECCV 2020, https://arxiv.org/abs/2005.12872, section 3.2)."""

import torch
from torch import Tensor, nn

from vitdense.models.layers.attention import MultiHeadAttention
from vitdense.models.layers.fast.dropout import Dropout, relu_dropout
from vitdense.models.layers.fast.light import WithCp, checked, recomputed, run_block
from vitdense.models.layers.fast.linear import Linear


class Layer(nn.Module):
    """What the layers of encoders and decoders share: norms follow the sums, dropout ends each branch."""

    norm1: nn.LayerNorm
    norm2: nn.LayerNorm
    norm3: nn.LayerNorm

    def __init__(self, norms: int, channels: int, feedforward_channels: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = Linear(channels, feedforward_channels)
        self.linear2 = Linear(feedforward_channels, channels)
        for i in range(norms):
            self.add_module(f'norm{i + 1}', nn.LayerNorm(channels))
        self.dropout = Dropout(dropout)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def feed_forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) to (B, N, C)."""
        p = self.dropout.p if self.training else 0.0
        rows = x.flatten(0, 1)  # linear1 returns no view, which could not be changed in place without a copy
        rows = recomputed(lambda rows: relu_dropout(self.linear1(rows), p), self.linear2, rows)
        return self.dropout(rows).unflatten(0, x.shape[:2])


def multi_head_attention(channels: int, num_heads: int, dropout: float) -> MultiHeadAttention:
    """Attention whose output projection starts as in the official release."""
    attention = MultiHeadAttention(channels, num_heads, dropout)
    nn.init.xavier_uniform_(attention.out_proj.weight)
    return attention


class EncoderLayer(Layer):
    """Self-attention of image tokens, and a feed-forward network."""

    def __init__(self, channels: int, num_heads: int, feedforward_channels: int, dropout: float) -> None:
        super().__init__(2, channels, feedforward_channels, dropout)
        self.self_attn = multi_head_attention(channels, num_heads, dropout)

    def forward(self, x: Tensor, pos: Tensor, valid: Tensor | None) -> Tensor:
        """Tokens (B, N, C) with positions (B, N, C) to (B, N, C); ``valid`` (B, 1, 1, N) is False at padding."""
        placed = x + pos
        x = self.norm1(x + self.dropout(self.self_attn(placed, placed, x, valid)))
        return self.norm2(x + self.feed_forward(x))


class DecoderLayer(Layer):
    """Self-attention of queries, attention over image tokens, and a feed-forward network."""

    def __init__(self, channels: int, num_heads: int, feedforward_channels: int, dropout: float) -> None:
        super().__init__(3, channels, feedforward_channels, dropout)
        self.self_attn = multi_head_attention(channels, num_heads, dropout)
        self.multihead_attn = multi_head_attention(channels, num_heads, dropout)

    def forward(self, x: Tensor, query_pos: Tensor, keys: Tensor, values: Tensor, valid: Tensor | None) -> Tensor:
        """Queries (B, Q, C) over image tokens (B, N, C), as ``keys`` with and as ``values`` without positions."""
        placed = x + query_pos
        x = self.norm1(x + self.dropout(self.self_attn(placed, placed, x)))
        x = self.norm2(x + self.dropout(self.multihead_attn(x + query_pos, keys, values, valid)))
        return self.norm3(x + self.feed_forward(x))


class Encoder(nn.Module):
    """Layers one after the other, without a norm at the end."""

    def __init__(self, layers: list[Layer], with_cp: WithCp) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.with_cp = checked(with_cp)

    def forward(self, x: Tensor, *args) -> Tensor:
        """Tokens (B, N, C) to (B, N, C); each layer gets ``args``."""
        for layer in self.layers:
            x = run_block(layer, self.with_cp if self.training else False, x, *args)
        return x


class Decoder(nn.Module):
    """Layers one after the other, and one norm for the results of them all."""

    def __init__(self, layers: list[DecoderLayer], channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(channels)

    def forward(self, query_pos: Tensor, keys: Tensor, values: Tensor, valid: Tensor | None) -> Tensor:
        """Positions of queries (B, Q, C) and tokens (B, N, C) to queries of all layers (T, B, Q, C)."""
        x, results = torch.zeros_like(query_pos), []
        for layer in self.layers:
            x = layer(x, query_pos, keys, values, valid)
            results.append(self.norm(x))
        return torch.stack(results)


class Transformer(nn.Module):
    """Encoder and decoder; parameters are named as in the official release."""

    def __init__(
        self,
        channels: int,
        num_heads: int,
        encoder_layers: int,
        decoder_layers: int,
        feedforward_channels: int,
        dropout: float,
        with_cp: WithCp,
    ) -> None:
        super().__init__()
        args = channels, num_heads, feedforward_channels, dropout
        self.encoder = Encoder([EncoderLayer(*args) for _ in range(encoder_layers)], with_cp)
        self.decoder = Decoder([DecoderLayer(*args) for _ in range(decoder_layers)], channels)

    def forward(self, tokens: Tensor, pos: Tensor, padding_mask: Tensor | None, query_pos: Tensor) -> Tensor:
        """Queries of all decoder layers (T, B, Q, C).

        Args:
            tokens: of the image (B, N, C).
            pos: their positions (B, N, C).
            padding_mask: True at padding (B, N); None without any.
            query_pos: learned positions of queries (B, Q, C).
        """
        valid = None if padding_mask is None else ~padding_mask[:, None, None]
        memory = self.encoder(tokens, pos, valid)
        return self.decoder(query_pos, memory + pos, memory, valid)
