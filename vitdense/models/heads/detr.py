"""DETR (Carion et al., ECCV 2020, https://arxiv.org/abs/2005.12872)."""

from collections.abc import Sequence

from torch import Tensor, nn

from vitdense.models.layers.fast.light import WithCp
from vitdense.models.layers.fast.linear import Linear
from vitdense.models.layers.layout import padding_mask, to_tokens, valid_sizes
from vitdense.models.layers.mlp import PredictionMlp
from vitdense.models.layers.pos_embed import sine_positions
from vitdense.models.layers.precision import widened
from vitdense.models.set_prediction import Predictions
from vitdense.registry import MODELS

from .detr_transformer import Transformer
from .query_head import QueryHead, image_sizes


@MODELS.register_module()
class DETRHead(QueryHead):
    """Detection by a transformer over one map, as in the official release, whose parameter names these are.

    Padding is masked in the attention over image tokens, and positions are relative to the image without it. What the
    head returns for an image depends on the padding of its batch only as far as its map does.

    Args:
        num_classes: number of classes K; the last of K + 1 logits is no object.
        in_channels: channels of the map.
        in_index: which of the maps.
        channels: channels C of the transformer.
        num_queries: number of queries Q.
        num_heads: attention heads.
        encoder_layers: layers of the encoder.
        decoder_layers: layers T of the decoder, all of which share the class and box predictions.
        feedforward_channels: hidden channels of the feed-forward networks.
        dropout: in attention, feed-forward networks and at the end of branches.
        temperature: of the position encoding. Small maps gain from 20 (DAB-DETR, https://arxiv.org/abs/2201.12329,
            section 4.4).
        with_cp: what the encoder layers compute again: ``False`` nothing, ``'light'`` the first product of feed-forward
            networks, ``True`` all.
        kwargs: of :class:`QueryHead`.

    Raises:
        ValueError: ``channels`` that heads and position encodings cannot share.
        TypeError: an argument that does not exist.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        in_index: int = -1,
        channels: int = 256,
        num_queries: int = 100,
        num_heads: int = 8,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        feedforward_channels: int = 2048,
        dropout: float = 0.1,
        temperature: float = 10000.0,
        with_cp: WithCp = False,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, softmax=True, **dict(cost_class=1.0, loss_class=1.0) | kwargs)
        if channels % num_heads or channels % 4:
            raise ValueError(
                f'DETRHead: channels {channels} must be a multiple of num_heads {num_heads}, and of 4 for the '
                'position encoding'
            )
        self.in_index = in_index
        self.channels = channels
        self.temperature = temperature
        self.input_proj = nn.Conv2d(in_channels, channels, 1)
        self.query_embed = nn.Embedding(num_queries, channels)
        self.transformer = Transformer(
            channels, num_heads, encoder_layers, decoder_layers, feedforward_channels, dropout, with_cp
        )
        self.class_embed = Linear(channels, self.num_logits)
        self.bbox_embed = PredictionMlp(channels, 4)

    def forward(self, feats: Sequence[Tensor], img_metas: Sequence[dict] | None = None) -> Predictions:
        tokens, hw = to_tokens(self.input_proj(feats[self.in_index]))
        sizes, batch_hw = image_sizes(hw, img_metas)
        valid_hws = valid_sizes(sizes, batch_hw, hw)
        pos = sine_positions(valid_hws, hw, self.channels, tokens.device, temperature=self.temperature)
        mask = padding_mask(valid_hws, hw, tokens.device)
        queries = self.transformer(
            tokens, pos.to(tokens.dtype), mask, self.query_embed.weight.expand(tokens.shape[0], -1, -1)
        )
        return Predictions(self.class_embed(queries), widened(self.bbox_embed(queries)).sigmoid())
