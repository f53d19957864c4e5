"""The decoder of Trans2Seg (Xie et al., IJCAI 2021, https://arxiv.org/abs/2101.08461, section 4)."""

import torch
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn
from torch.nn import functional as F

from vitdense.models.layers.attention import SelfAttention, split_heads
from vitdense.models.layers.block import Block
from vitdense.models.layers.fast.linear import Linear
from vitdense.models.layers.init import init_linear_, learned
from vitdense.models.layers.layout import to_map, to_tokens
from vitdense.models.layers.mlp import Mlp
from vitdense.models.layers.sizes import is_same
from vitdense.registry import MODELS


@MODELS.register_module()
class Trans2SegHead(BaseDecodeHead):
    """Classes from the attention of one learned query for each over the deepest map, refined with the shallowest.

    The network follows the official code, not the paper's figure: see :class:`DecoderBlock` and
    :class:`AttentionMaps`. What that code computes and never uses is left out: in the last block the update of queries
    and features, in all others the MLP of the attention maps.

    A map of any size will do. In the official code ``mlp3`` ties the decoder to 32 x 32 tokens; here the attention maps
    are resized for it, and its result back, so that it sees and changes what is coarse in them.

    Args:
        in_channels: of the shallowest map (C1) and the deepest one (C4).
        channels: of the convolutions behind the transformer, ``hid_dim`` in the paper's code.
        embed_dim: channels C of the transformer.
        depth: blocks of the encoder, and of the decoder.
        num_heads: attention heads M.
        mlp_ratio: hidden channels of the MLPs of tokens and queries, in ``embed_dim``.
        map_size: side of the square map that has learned positions and that ``mlp3`` sees, the side of C4 in
            training.
        in_index: of C1 and C4.
        align_corners: of the resizing of the logits; within the head all maps are resized with aligned corners.
        kwargs: of mmseg's ``BaseDecodeHead``.

    Raises:
        ValueError: other than two maps, ``embed_dim`` that the heads cannot share, ``depth`` or ``map_size`` below 1.
    """

    def __init__(
        self,
        *,
        in_channels: tuple[int, int],
        channels: int = 64,
        embed_dim: int = 256,
        depth: int = 4,
        num_heads: int = 8,
        mlp_ratio: float = 3.0,
        map_size: int = 32,
        in_index: tuple[int, int] = (0, 3),
        dropout_ratio: float = 0.0,
        align_corners: bool = True,
        **kwargs,
    ) -> None:
        for name, maps in (('in_channels', in_channels), ('in_index', in_index)):
            if len(maps) != 2:
                raise ValueError(f'Trans2SegHead: {name} must be two numbers, of C1 and C4, got {maps}')
        if embed_dim % num_heads:
            raise ValueError(f'Trans2SegHead: embed_dim {embed_dim} must be a multiple of num_heads {num_heads}')
        for name, number in (('depth', depth), ('map_size', map_size)):
            if number < 1:
                raise ValueError(f'Trans2SegHead: {name} must be at least 1, got {number}')
        super().__init__(
            in_channels,
            channels,
            in_index=in_index,
            input_transform='multiple_select',
            dropout_ratio=dropout_ratio,
            align_corners=align_corners,
            **kwargs,
        )
        hidden = int(embed_dim * mlp_ratio)
        self.transformer = Transformer(
            in_channels[1], embed_dim, depth, num_heads, hidden, map_size, queries=self.out_channels
        )
        layers = dict(norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.conv_c1 = ConvModule(in_channels[0], channels, 1, **layers)
        self.lay1, self.lay2, self.lay3 = (
            DepthwiseSeparableConvModule(width, channels, 3, padding=1, **layers)
            for width in (embed_dim + num_heads, channels, channels)
        )
        self.conv_seg = nn.Conv2d(channels, 1, 1)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Maps (B, C, H, W) to logits (B, K, H, W) of the size of C1."""
        c1, c4 = self._transform_inputs(inputs)
        features, attention = self.transformer(c4)
        batch, classes = attention.shape[:2]
        features = features[:, None].expand(-1, classes, -1, -1, -1)
        x = torch.cat([features, attention], dim=2).flatten(0, 1)  # (B * K, C + M, H, W)
        x = resize(self.lay2(self.lay1(x)), c1.shape[2:])
        x = x.unflatten(0, (batch, classes)) + self.conv_c1(c1)[:, None]
        logits = self.cls_seg(self.lay3(x.flatten(0, 1)))  # (B * K, 1, H, W)
        return logits.unflatten(0, (batch, classes)).squeeze(2)


class Transformer(nn.Module):
    """Encoder of tokens, and decoder of one query for each class; names of parameters as in the official code."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        depth: int,
        num_heads: int,
        hidden_channels: int,
        map_size: int,
        queries: int,
    ) -> None:
        super().__init__()
        self.map_size = map_size
        self.hybrid_embed = Linear(in_channels, channels)
        self.cls_token = learned(1, 1, channels)
        self.pos_embed = learned(1, 1 + map_size**2, channels)
        self.cls_embed = learned(queries, channels)
        args = channels, num_heads, hidden_channels
        self.blocks_encoder = nn.ModuleList(EncoderBlock(*args) for _ in range(depth))
        self.norm = nn.LayerNorm(channels)
        self.blocks_decoder = nn.ModuleList(DecoderBlock(*args) for _ in range(depth - 1))
        self.blocks_decoder.append(AttentionMaps(channels, num_heads, map_size))
        self.apply(init_linear_)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A map (B, C', H, W) to features (B, C, H, W) and attention maps (B, K, M, H, W)."""
        tokens, hw = to_tokens(x)
        tokens = self.encode(self.hybrid_embed(tokens), hw)
        features, queries = tokens, self.cls_embed.expand(x.shape[0], -1, -1)
        *blocks, attention_maps = self.blocks_decoder
        for block in blocks:
            queries, features = block(queries, features)
            queries = queries + self.cls_embed
        return to_map(tokens, hw), attention_maps(queries, features, hw)

    def encode(self, tokens: Tensor, hw: tuple[int, int]) -> Tensor:
        """Tokens (B, N, C) of a map ``hw`` to (B, N, C)."""
        x = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1) + self.positions(hw)
        for block in self.blocks_encoder:
            x = block(x, hw)
        return self.norm(x)[:, 1:]

    def positions(self, hw: tuple[int, int]) -> Tensor:
        """Positions of the class token and of a map ``hw``, (1, 1 + N, C)."""
        grid = to_map(self.pos_embed[:, 1:], (self.map_size, self.map_size))
        return torch.cat([self.pos_embed[:, :1], to_tokens(resize(grid, hw))[0]], dim=1)


class EncoderBlock(Block):
    """The block of ViT, its norms with eps 1e-5, its queries, keys and values without bias."""

    def __init__(self, channels: int, num_heads: int, hidden_channels: int) -> None:
        attention = SelfAttention(channels, num_heads, qkv_bias=False)
        super().__init__(channels, attention, Mlp(channels, hidden_channels), eps=1e-5)


class DecoderBlock(nn.Module):
    """Classes attend to the image, and both pass an MLP.

    Where a pre-norm block would add the result of a branch to its input, the official code adds it to itself: queries
    become twice what they attended to, without the queries before, and features twice themselves.
    """

    def __init__(self, channels: int, num_heads: int, hidden_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.norm1_clsembed = nn.LayerNorm(channels)
        self.attn = ClassAttention(channels, num_heads)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, hidden_channels)
        self.mlp2 = Mlp(channels, hidden_channels)

    def forward(self, queries: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (B, K, C) and features (B, N, C) to such."""
        queries = 2 * self.attn(self.norm1_clsembed(queries), self.norm1(features))
        features = 2 * features
        queries = queries + self.mlp(self.norm2(queries))
        return queries, features + self.mlp2(self.norm3(features))


class ClassAttention(nn.Module):
    """Attention of queries over features, without biases.

    The official code splits heads of the queries and joins heads of the result as if a head were some of the classes
    with all of their channels, which :func:`rows_as_heads` says in full.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.fc_q = Linear(channels, channels, bias=False)
        self.fc_kv = Linear(channels, 2 * channels, bias=False)
        self.proj = Linear(channels, channels)

    def forward(self, queries: Tensor, features: Tensor) -> Tensor:
        """Queries (B, K, C) over features (B, N, C) to (B, K, C)."""
        q = rows_as_heads(self.fc_q(queries), self.num_heads)
        k, v = (split_heads(x, self.num_heads) for x in self.fc_kv(features).chunk(2, dim=2))
        return self.proj(F.scaled_dot_product_attention(q, k, v).reshape(queries.shape))


class AttentionMaps(nn.Module):
    """The last block of the decoder: where in the image each class finds its keys, before any softmax.

    The maps are doubled as queries and features are in :class:`DecoderBlock`; then an MLP along the places of a map,
    ``mlp3``, is added.
    """

    def __init__(self, channels: int, num_heads: int, map_size: int) -> None:
        super().__init__()
        places = map_size**2
        self.num_heads = num_heads
        self.map_size = map_size
        self.norm1 = nn.LayerNorm(channels)
        self.norm1_clsembed = nn.LayerNorm(channels)
        self.fc_q = Linear(channels, channels, bias=False)
        self.fc_k = Linear(channels, channels, bias=False)
        self.norm4 = nn.LayerNorm(places)
        self.mlp3 = Mlp(places, 3 * places)

    def forward(self, queries: Tensor, features: Tensor, hw: tuple[int, int]) -> Tensor:
        """Queries (B, K, C) and features (B, N, C) of a map ``hw`` to maps (B, K, M, H, W)."""
        q = rows_as_heads(self.fc_q(self.norm1_clsembed(queries)), self.num_heads)
        k = split_heads(self.fc_k(self.norm1(features)), self.num_heads)
        logits = q @ k.transpose(2, 3) * q.shape[3] ** -0.5  # (B, M, K, N)
        maps = 2 * logits.transpose(1, 2).flatten(1, 2).unflatten(2, hw)  # (B, K * M, H, W)
        places = resize(maps, (self.map_size, self.map_size)).flatten(2)
        change = self.mlp3(self.norm4(places)).unflatten(2, (self.map_size, self.map_size))
        return (maps + resize(change, hw)).unflatten(1, (-1, self.num_heads))


def rows_as_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, K, C) to (B, M, K, D) in the order of memory.

    The numbers of a head are not D channels of all K classes but all C channels of K / M classes in turn.
    """
    return x.reshape(x.shape[0], num_heads, x.shape[1], -1)


def resize(x: Tensor, hw: tuple[int, int]) -> Tensor:
    """Bilinear resizing of a map (B, C, H, W) with aligned corners."""
    return x if is_same(x.shape[2:], hw) else F.interpolate(x, hw, mode='bilinear', align_corners=True)
