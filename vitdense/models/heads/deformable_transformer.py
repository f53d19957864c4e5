"""The transformer of Deformable DETR (Zhu et al., ICLR 2021, https://arxiv.org/abs/2010.04159)."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vitdense.models.layers.fast.light import WithCp
from vitdense.models.layers.fast.linear import Linear
from vitdense.models.layers.layout import TokenPyramid
from vitdense.models.layers.pos_embed import sines
from vitdense.models.layers.precision import widened
from vitdense.models.set_prediction.select import falling
from vitdense.ops.ms_deform_attn import MSDeformAttn

from .detr_transformer import Encoder, Layer, multi_head_attention

Shapes = tuple[tuple[int, int], ...]


class DeformableEncoderLayer(Layer):
    """Deformable self-attention of the tokens of all levels, and a feed-forward network (section 4.2)."""

    def __init__(self, attn: MSDeformAttn, channels: int, feedforward_channels: int, dropout: float) -> None:
        super().__init__(2, channels, feedforward_channels, dropout)
        self.self_attn = attn

    def forward(self, x: Tensor, pos: Tensor, places: Tensor, shapes: Shapes, padding_mask: Tensor | None) -> Tensor:
        """Tokens (B, S, C) at ``places`` (B, S, L, 2) to (B, S, C)."""
        x = self.norm1(x + self.dropout(self.self_attn(x + pos, places, x, shapes, padding_mask)))
        return self.norm2(x + self.feed_forward(x))


class DeformableDecoderLayer(Layer):
    """Self-attention of queries, deformable attention over the image, and a feed-forward network.

    As in the release, ``norm2`` follows the self-attention and ``norm1`` the deformable attention.
    """

    def __init__(
        self, attn: MSDeformAttn, channels: int, num_heads: int, feedforward_channels: int, dropout: float
    ) -> None:
        super().__init__(3, channels, feedforward_channels, dropout)
        self.self_attn = multi_head_attention(channels, num_heads, dropout)
        self.cross_attn = attn

    def forward(
        self, x: Tensor, query_pos: Tensor, references: Tensor, memory: Tensor, pyramid: TokenPyramid
    ) -> Tensor:
        """Queries (B, Q, C) with reference points or boxes (B, Q, L, 2 or 4) to (B, Q, C)."""
        placed = x + query_pos
        x = self.norm2(x + self.dropout(self.self_attn(placed, placed, x)))
        attended = self.cross_attn(x + query_pos, references, memory, pyramid.shapes, pyramid.padding_mask)
        x = self.norm1(x + self.dropout(attended))
        return self.norm3(x + self.feed_forward(x))


class DeformableDecoder(nn.Module):
    """Layers one after the other, each with references of its own if boxes are refined (appendix A.4)."""

    def __init__(self, layers: list[DeformableDecoderLayer], refines: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.refines = refines

    def forward(
        self,
        x: Tensor,
        query_pos: Tensor,
        references: Tensor,
        memory: Tensor,
        pyramid: TokenPyramid,
        boxes_of: Sequence[Callable[[Tensor], Tensor]],
    ) -> tuple[Tensor, Tensor]:
        """Queries (B, Q, C) to those of all layers (T, B, Q, C) and their boxes, cxcywh (T, B, Q, 4) in [0, 1].

        Args:
            x: content of the queries.
            query_pos: their positions (B, Q, C).
            references: points xy (B, Q, 2) or boxes cxcywh (B, Q, 4) in [0, 1], in float32.
            memory: tokens (B, S, C) of the image.
            pyramid: how these are laid out.
            boxes_of: what predicts, of each layer, boxes relative to the references, before the sigmoid.
        """
        queries, boxes = [], []
        for layer, predict in zip(self.layers, boxes_of, strict=True):
            ratios = pyramid.valid_ratios.tile(references.shape[-1] // 2)[:, None]  # (B, 1, L, 2 or 4)
            x = layer(x, query_pos, references[:, :, None] * ratios, memory, pyramid)
            queries.append(x)
            boxes.append(relative_to(references, predict(x)))
            if self.refines:
                references = boxes[-1].detach()
        return torch.stack(queries), torch.stack(boxes)


class Proposals(NamedTuple):
    """The first stage of two: what is predicted at each of the S tokens of the encoder (appendix A.5).

    Attributes:
        logits: class logits (B, S, K).
        boxes: cxcywh (B, S, 4) in [0, 1].
        best: the tokens that become queries (B, Q), by falling logit of the first class.
    """

    logits: Tensor
    boxes: Tensor
    best: Tensor


class DeformableTransformer(nn.Module):
    """Encoder and decoder, and with ``two_stage`` proposals between them; parameters are named as in the release.

    Args:
        channels: C.
        num_levels: levels L of the pyramid.
        num_heads: attention heads.
        num_points: samples of each level that a head takes for a query.
        num_layers: of the encoder, and of the decoder.
        feedforward_channels: hidden channels of the feed-forward networks.
        dropout: in the attention among queries, in feed-forward networks and at the end of branches.
        refines: whether each decoder layer starts from the boxes of the one before.
        two_stage: number of queries to choose from the tokens of the encoder; 0 for learned ones.
        with_cp: what the encoder layers compute again: ``False`` nothing, ``'light'`` the first product of feed-forward
            networks, ``True`` all.
    """

    PROPOSAL_SIZE = 0.05
    """Side of a proposal at the first level, relative to the image; it doubles with each level."""
    MARGIN = 0.01
    """A proposal whose centre is nearer to the border than this, or whose side is nearer to 1, takes no part."""

    def __init__(
        self,
        channels: int,
        num_levels: int,
        num_heads: int,
        num_points: int,
        num_layers: tuple[int, int],
        feedforward_channels: int,
        dropout: float,
        *,
        refines: bool,
        two_stage: int,
        with_cp: WithCp,
    ) -> None:
        super().__init__()
        self.two_stage = two_stage

        def attention() -> MSDeformAttn:
            return MSDeformAttn(channels, num_levels, num_heads, num_points, linear=Linear)

        encoder_layers, decoder_layers = num_layers
        sizes = feedforward_channels, dropout
        self.level_embed = nn.Parameter(torch.randn(num_levels, channels))
        self.encoder = Encoder(
            [DeformableEncoderLayer(attention(), channels, *sizes) for _ in range(encoder_layers)], with_cp
        )
        self.decoder = DeformableDecoder(
            [DeformableDecoderLayer(attention(), channels, num_heads, *sizes) for _ in range(decoder_layers)], refines
        )
        if two_stage:
            self.enc_output = Linear(channels, channels)
            self.enc_output_norm = nn.LayerNorm(channels)
            self.pos_trans = Linear(2 * channels, 2 * channels)
            self.pos_trans_norm = nn.LayerNorm(2 * channels)
        else:
            self.reference_points = Linear(channels, 2)
            nn.init.zeros_(self.reference_points.bias)
        for linear in (self.enc_output, self.pos_trans) if two_stage else (self.reference_points,):
            nn.init.xavier_uniform_(linear.weight)

    def forward(
        self,
        pyramid: TokenPyramid,
        query_embed: Tensor | None,
        classes_of: Sequence[Callable[[Tensor], Tensor]],
        boxes_of: Sequence[Callable[[Tensor], Tensor]],
    ) -> tuple[Tensor, Tensor, Proposals | None]:
        """Queries of all decoder layers (T, B, Q, C), their boxes (T, B, Q, 4), and the proposals.

        Args:
            pyramid: tokens with position encodings, to which the embedding of the level is added here.
            query_embed: learned positions and content of queries (Q, 2C); None in two stages.
            classes_of: what predicts the classes of each layer, and last of the proposals.
            boxes_of: what predicts boxes of each layer relative to their references, and last of the proposals.
        """
        counts = [height * width for height, width in pyramid.shapes]
        levels = torch.cat([row.expand(n, -1) for row, n in zip(self.level_embed, counts, strict=True)])
        places = pyramid.centres[:, :, None] * pyramid.valid_ratios[:, None]  # (B, S, L, 2)
        pos = pyramid.pos + levels.to(pyramid.pos.dtype)
        memory = self.encoder(pyramid.tokens, pos, places, pyramid.shapes, pyramid.padding_mask)
        proposals = None
        if query_embed is None:
            proposals = self.propose(memory, pyramid, classes_of[-1], boxes_of[-1])
            references = proposals.boxes.gather(1, proposals.best[..., None].expand(-1, -1, 4)).detach()
            positions = sines(references, memory.shape[2] // 2).flatten(2)  # (B, Q, 2C), C / 2 channels for each number
            embedded = self.pos_trans_norm(self.pos_trans(positions.to(memory.dtype)))
        else:
            embedded = query_embed.expand(memory.shape[0], -1, -1)
            references = widened(self.reference_points(embedded.chunk(2, dim=2)[0])).sigmoid()
        query_pos, queries = embedded.chunk(2, dim=2)
        layers = len(self.decoder.layers)
        return *self.decoder(queries, query_pos, references, memory, pyramid, boxes_of[:layers]), proposals

    def propose(
        self,
        memory: Tensor,
        pyramid: TokenPyramid,
        classes_of: Callable[[Tensor], Tensor],
        boxes_of: Callable[[Tensor], Tensor],
    ) -> Proposals:
        """Predict at each token of the encoder; those at the border and in the padding are taken last.

        Equal logits are in the order of the tokens. There are at most as many queries as tokens.
        """
        levels = [
            pyramid.centres.new_full((math.prod(hw), 2), self.PROPOSAL_SIZE * 2**level)
            for level, hw in enumerate(pyramid.shapes)
        ]
        sides = torch.cat(levels).expand_as(pyramid.centres)
        anchors = torch.cat([pyramid.centres, sides], dim=2)
        outside = ((anchors <= self.MARGIN) | (anchors >= 1 - self.MARGIN)).any(2)  # in the padding centres are above 1
        x = self.enc_output_norm(self.enc_output(memory.masked_fill(outside[..., None], 0)))
        logits = classes_of(x)
        base = torch.logit(anchors).masked_fill(outside[..., None], torch.inf)
        boxes = (widened(boxes_of(x)) + base).sigmoid()
        _, ranks = falling(logits[..., 0].masked_fill(outside, -torch.inf))
        return Proposals(logits, boxes, ranks[:, : self.two_stage])


def relative_to(references: Tensor, offsets: Tensor) -> Tensor:
    """Boxes cxcywh in [0, 1], whose logits are ``offsets`` (B, Q, 4) from those of points or boxes (B, Q, 2 or 4)."""
    base = torch.log(references.clamp(min=1e-5) / (1 - references).clamp(min=1e-5))
    offsets = offsets.to(base.dtype)
    if base.shape[-1] == 2:
        return torch.cat([offsets[..., :2] + base, offsets[..., 2:]], dim=-1).sigmoid()
    return (offsets + base).sigmoid()
