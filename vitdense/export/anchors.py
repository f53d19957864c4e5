"""Heads of mmdet that move anchors: RetinaNet's, and the one that proposes regions."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .graph import Graph, corner_of, nms_settings
from .nms import nms


class AnchorDetection(Graph):
    """A one-stage detector with anchors: the best candidates of each level go through NMS."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        check_coder(self.model.bbox_head)
        settings = self.model.bbox_head.test_cfg
        self.candidates = int(settings.get('nms_pre', 1000))
        self.found = nms_settings(settings)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        head = self.model.bbox_head
        levels = enumerate(zip(*head(self.model.extract_feat(self.padded(image))), strict=True))
        found = [best_anchors(head, level, logits, deltas, self.candidates) for level, (logits, deltas) in levels]
        scores, labels, boxes = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        return tuple(nms(torch.minimum(boxes.clamp(min=0), corner_of(image)), scores, labels, *self.found))


def best_anchors(head: Any, level: int, logits: Tensor, deltas: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best anchors of a level.

    Args:
        head: of mmdet, with anchors.
        level: of the pyramid.
        logits, deltas: maps of the head (B, A * K, H, W) and (B, A * 4, H, W).
        number: how many.

    Returns:
        Scores (B, number), -1 where there are fewer; classes (B, number); and boxes (B, number, 4), not cut.
    """
    batch = logits.shape[0]
    shares = logits.permute(0, 2, 3, 1).reshape(batch, -1, head.cls_out_channels)
    shares = shares.sigmoid() if head.use_sigmoid_cls else shares.softmax(-1)[..., :-1]
    classes = shares.shape[2]
    # as many more as are asked for, so that there are always enough
    best, order = F.pad(shares.flatten(1), (0, number), value=-1.0).topk(number)
    anchors = head.prior_generator.single_level_grid_priors(
        logits.shape[2:], level, dtype=logits.dtype, device=logits.device
    )
    place = (order // classes).clamp(max=anchors.shape[0] - 1)[..., None].expand(-1, -1, 4)
    moves = deltas.permute(0, 2, 3, 1).reshape(batch, -1, 4).gather(1, place)
    return best, order % classes, decode(head.bbox_coder, anchors.expand(batch, -1, -1).gather(1, place), moves)


def decode(coder: Any, priors: Tensor, deltas: Tensor) -> Tensor:
    """Boxes (..., 4) of deltas (..., 4) from others, as ``DeltaXYWHBBoxCoder`` of mmdet has them, not cut."""
    means, stds = (deltas.new_tensor(values) for values in (coder.means, coder.stds))
    shift, growth = (deltas * stds + means).split(2, dim=-1)
    low, high = priors.split(2, dim=-1)
    size, limit = high - low, abs(math.log(16 / 1000))
    centre = (low + high) / 2 + size * shift
    half = size * growth.clamp(-limit, limit).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def check_coder(head: Any) -> None:
    """Does a head move boxes in the way that is known here?

    Raises:
        ValueError: it does not.
    """
    coder = head.bbox_coder
    if type(coder).__name__ != 'DeltaXYWHBBoxCoder' or coder.add_ctr_clamp or not coder.clip_border:
        raise ValueError(f'{type(head).__name__} with {type(coder).__name__} cannot be exported')
