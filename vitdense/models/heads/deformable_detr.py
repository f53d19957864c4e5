"""Deformable DETR (Zhu et al., ICLR 2021, https://arxiv.org/abs/2010.04159)."""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitdense.models.layers.fast.light import WithCp
from vitdense.models.layers.fast.linear import Linear
from vitdense.models.layers.layout import TokenPyramid, cell_centres, pyramid_mask, to_tokens, valid_sizes
from vitdense.models.layers.mlp import PredictionMlp
from vitdense.models.layers.pos_embed import sine_positions
from vitdense.models.set_prediction import Predictions
from vitdense.ops.ms_deform_attn.module import sizes_tensor
from vitdense.registry import MODELS

from .deformable_transformer import DeformableTransformer, Proposals
from .query_head import QueryHead, image_sizes


@MODELS.register_module()
class DeformableDETRHead(QueryHead):
    """Detection by deformable attention over the maps of a pyramid; parameters are named as in the official release.

    The maps are those of a neck, in the release 1 x 1 convolutions with group norm and one more level by a 3 x 3
    convolution of stride 2 (mmdet's ``ChannelMapper``). Padding is masked, and positions are relative to the image
    without it: what the head returns for an image depends on the padding of its batch only as far as its maps do.

    Args:
        num_classes: number of classes K.
        in_channels: channels C of all maps, and of the transformer.
        num_levels: number L of maps.
        num_queries: number of queries Q. With ``two_stage`` an image of fewer tokens has only as many.
        num_heads: attention heads.
        num_points: samples of each level that a head takes for a query.
        encoder_layers: layers of the encoder.
        decoder_layers: layers T of the decoder.
        feedforward_channels: hidden channels of the feed-forward networks.
        dropout: in the attention among queries, in feed-forward networks and at the end of branches.
        with_box_refine: each decoder layer refines the boxes of the one before, and has predictions of its own.
        two_stage: queries are the best tokens of the encoder, by the logit of the first class, which there stands for
            any object. Equal logits are in the order of the tokens; tokens at the border and in the padding come last.
            Needs ``with_box_refine``.
        with_cp: what the encoder layers compute again: ``False`` nothing, ``'light'`` the first product of feed-forward
            networks, ``True`` all.
        kwargs: of :class:`QueryHead`.

    Raises:
        ValueError: options that contradict each other, or ``in_channels`` that heads, levels and position encodings
            cannot share.
        TypeError: an argument that does not exist.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 256,
        *,
        num_levels: int = 4,
        num_queries: int = 300,
        num_heads: int = 8,
        num_points: int = 4,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        feedforward_channels: int = 1024,
        dropout: float = 0.1,
        with_box_refine: bool = False,
        two_stage: bool = False,
        with_cp: WithCp = False,
        **kwargs,
    ) -> None:
        super().__init__(num_classes, softmax=False, **dict(cost_class=2.0, loss_class=2.0) | kwargs)
        if in_channels % num_heads or in_channels % 4:
            raise ValueError(
                f'DeformableDETRHead: in_channels {in_channels} must be a multiple of num_heads {num_heads}, and of 4 '
                'for the position encoding'
            )
        if two_stage and not with_box_refine:
            raise ValueError('DeformableDETRHead: two_stage=True needs with_box_refine=True')
        self.channels = in_channels
        self.num_levels = num_levels
        self.transformer = DeformableTransformer(
            in_channels,
            num_levels,
            num_heads,
            num_points,
            (encoder_layers, decoder_layers),
            feedforward_channels,
            dropout,
            refines=with_box_refine,
            two_stage=num_queries if two_stage else 0,
            with_cp=with_cp,
        )
        self.query_embed = None if two_stage else nn.Embedding(num_queries, 2 * in_channels)
        classes, boxes = Linear(in_channels, self.num_logits), PredictionMlp(in_channels, 4)
        nn.init.constant_(classes.bias, -math.log(99))  # a prior probability of 0.01
        for parameter in boxes.layers[-1].parameters():
            nn.init.zeros_(parameter)
        count = decoder_layers + two_stage
        repeat = copy.deepcopy if with_box_refine else lambda module: module  # shared by all layers
        self.class_embed = nn.ModuleList(repeat(classes) for _ in range(count))
        self.bbox_embed = nn.ModuleList(repeat(boxes) for _ in range(count))
        if not two_stage:  # the width and height of first boxes
            nn.init.constant_(self.bbox_embed.get_parameter('0.layers.2.bias')[2:], -2.0)

    def forward(self, feats: Sequence[Tensor], img_metas: Sequence[dict] | None = None) -> Predictions:
        return self.run(feats, img_metas)[0]

    def run(
        self, feats: Sequence[Tensor], img_metas: Sequence[dict] | None = None
    ) -> tuple[Predictions, Proposals | None]:
        """As :meth:`forward`, and what the first of two stages predicts."""
        pyramid = self.pyramid(feats, img_metas)
        embed = None if self.query_embed is None else self.query_embed.weight
        queries, boxes, proposals = self.transformer(pyramid, embed, self.class_embed, self.bbox_embed)
        logits = torch.stack([classes(x) for classes, x in zip(self.class_embed, queries, strict=False)])
        return Predictions(logits, boxes), proposals

    def loss(self, feats: Sequence[Tensor], batch_data_samples: Sequence) -> dict[str, Tensor]:
        """Those of :class:`QueryHead`, and in two stages ``enc_loss_cls``, ``enc_loss_bbox``, ``enc_loss_iou``."""
        predictions, proposals = self.run(feats, [sample.metainfo for sample in batch_data_samples])
        losses = self.losses(predictions, batch_data_samples)
        if proposals is None:
            return losses
        targets = self.targets(batch_data_samples, proposals.logits.shape[1])
        targets = targets._replace(labels=torch.zeros_like(targets.labels))
        first = self.criterion(Predictions(proposals.logits[None], proposals.boxes[None]), targets)
        return losses | {f'enc_{name}': loss for name, loss in first.items()}

    def pyramid(self, feats: Sequence[Tensor], img_metas: Sequence[dict] | None) -> TokenPyramid:
        """Maps (B, C, H, W) of all levels as one sequence.

        Raises:
            ValueError: other maps than the head is made for.
        """
        found = [x.shape[1] for x in feats]
        if found != [self.channels] * self.num_levels:
            raise ValueError(
                f'DeformableDETRHead: expected {self.num_levels} maps of {self.channels} channels (num_levels, '
                f'in_channels), found maps of {found} channels'
            )
        levels = [to_tokens(x) for x in feats]
        shapes = tuple(hw for _, hw in levels)
        device, dtype = feats[0].device, feats[0].dtype
        sizes, batch_hw = image_sizes(shapes[0], img_metas)
        valid = [valid_sizes(sizes, batch_hw, hw) for hw in shapes]
        ratios = torch.stack([sizes_tensor(v, torch.float32, device) for v in valid])  # (L, B, hw)
        ratios = ratios / sizes_tensor(shapes, torch.float32, device)[:, None]
        each = list(zip(valid, shapes, strict=True))
        pos = [sine_positions(v, hw, self.channels, device, offset=-0.5) for v, hw in each]
        full = feats[0].shape[0], -1, -1
        return TokenPyramid(
            torch.cat([tokens for tokens, _ in levels], dim=1),
            torch.cat(pos, dim=1).to(dtype).expand(full),
            pyramid_mask(valid, shapes, device),
            torch.cat([cell_centres(v, hw, device) for v, hw in each], dim=1).expand(full),
            ratios.flip(2).transpose(0, 1).expand(full),
            shapes,
        )
