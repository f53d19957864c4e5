"""Heads of mmdet that predict at every place of a pyramid: from anchors or from points, and what proposes regions."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .graph import Graph, corner_of
from .suppression import suppression_of

KNOWN = ('BaseDenseHead', 'GFLHead', 'YOLOXHead')
"""Classes of mmdet whose way from maps to boxes is known; heads have it from one of them."""

CODERS = ('DeltaXYWHBBoxCoder', 'DistancePointBBoxCoder')


class DenseDetection(Graph):
    """A one-stage detector: the best candidates of each level go through NMS."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        head = self.model.bbox_head
        check_head(head)
        self.candidates = int(head.test_cfg.get('nms_pre', 0))
        self.found = suppression_of(head.test_cfg, 1000)
        self.score = self.found.score

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        head, corner = self.model.bbox_head, corner_of(image)
        levels = enumerate(zip(*head(self.model.extract_feat(self.padded(image))), strict=True))
        found = [best_of_level(head, level, maps, self.candidates, self.score) for level, maps in levels]
        scores, labels, boxes = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        boxes = within(getattr(head, 'bbox_coder', None), boxes, corner)
        return dataclasses.replace(self.found, score=0.0)(boxes, scores, labels)


def best_of_level(
    head: Any, level: int, maps: tuple[Tensor, ...], number: int, score: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The best candidates of a level.

    Args:
        head: of mmdet.
        level: of the pyramid.
        maps: those of the head (B, A * K, H, W) and (B, A * 4, H, W), and of some heads (B, A, H, W) by which scores
            are multiplied.
        number: how many N, all of them where it is not positive.
        score: candidates have more than that, before they are multiplied.

    Returns:
        Scores (B, N), -1 where there are fewer; classes (B, N); and boxes (B, N, 4), not cut.
    """
    logits, deltas, *factors = maps
    batch = logits.shape[0]
    shares = rows(logits, head.cls_out_channels)
    shares = shares.sigmoid() if head.use_sigmoid_cls else shares.softmax(-1)[..., :-1]
    best_class = None
    if source_of(head) == 'YOLOXHead':  # one class a place
        shares, best_class = shares.max(-1, keepdim=True)
        shares = shares * rows(factors.pop(), 1).sigmoid()
    classes = shares.shape[2]
    flat = shares.flatten(1)
    if number > 0:  # as many more as are asked for, so that there are always enough
        best, order = F.pad(flat, (0, number), value=-1.0).topk(number)
    else:
        best, order = flat, torch.arange(flat.shape[1], device=flat.device).expand(batch, -1)
    priors = priors_of(head, level, logits)
    place = (order // classes).clamp(max=priors.shape[0] - 1)

    def chosen(values: Tensor) -> Tensor:
        return values.gather(1, place[..., None].expand(-1, -1, values.shape[2]))

    scores = torch.where(best > score, best * chosen(rows(factors[0], 1)).sigmoid()[..., 0] if factors else best, -1.0)
    labels = order % classes if best_class is None else chosen(best_class)[..., 0]
    moves = chosen(rows(deltas, deltas.shape[1] * head.cls_out_channels // logits.shape[1]))
    return scores, labels, boxes_of(head, level, chosen(priors.expand(batch, -1, -1)), moves)


def rows(maps: Tensor, channels: int) -> Tensor:
    """Maps (B, A * C, H, W) as (B, H * W * A, C)."""
    return maps.permute(0, 2, 3, 1).reshape(maps.shape[0], -1, channels)


def priors_of(head: Any, level: int, maps: Tensor) -> Tensor:
    """Anchors (H * W * A, 4), xyxy, or points (H * W, 2) of a level with maps (B, C, H, W)."""
    return head.prior_generator.single_level_grid_priors(maps.shape[2:], level, dtype=maps.dtype, device=maps.device)


def boxes_of(head: Any, level: int, priors: Tensor, moves: Tensor) -> Tensor:
    """Boxes (..., 4), xyxy and not cut, of what a head predicts for priors of a level."""
    source, stride = source_of(head), head.prior_generator.strides[level]
    if source == 'YOLOXHead':
        centre, half = priors + moves[..., :2] * stride[0], moves[..., 2:].exp() * stride[0] / 2
        return torch.cat([centre - half, centre + half], -1)
    if source == 'GFLHead':
        distances = moves.unflatten(-1, (4, -1)).softmax(-1) @ head.integral.project
        return around((priors[..., :2] + priors[..., 2:]) / 2, distances * stride[0])
    return decode(head.bbox_coder, priors, moves)


def decode(coder: Any, priors: Tensor, moves: Tensor) -> Tensor:
    """Boxes (..., 4) as a coder of mmdet, one of ``CODERS``, has them, not cut.

    Args:
        coder: of the head.
        priors: boxes (..., 4), xyxy, or points (..., 2).
        moves: deltas (..., 4) of the boxes, or distances of the sides from the points.
    """
    if type(coder).__name__ == 'DistancePointBBoxCoder':
        return around(priors, moves)
    means, stds = (moves.new_tensor(values) for values in (coder.means, coder.stds))
    shift, growth = (moves * stds + means).split(2, dim=-1)
    low, high = priors.split(2, dim=-1)
    size, limit = high - low, abs(math.log(16 / 1000))
    shift = size * shift
    if coder.add_ctr_clamp:
        shift, growth = shift.clamp(-coder.ctr_clamp, coder.ctr_clamp), growth.clamp(max=limit)
    else:
        growth = growth.clamp(-limit, limit)
    centre, half = (low + high) / 2 + shift, size * growth.exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def around(points: Tensor, distances: Tensor) -> Tensor:
    """Boxes (..., 4) whose left, top, right and bottom are (..., 4) away from points (..., 2)."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], -1)


def within(coder: Any, boxes: Tensor, corner: Tensor) -> Tensor:
    """Boxes (..., 4) cut at the picture, where a coder does it."""
    return torch.minimum(boxes.clamp(min=0), corner) if getattr(coder, 'clip_border', False) else boxes


def source_of(head: Any) -> str:
    """The class that says how a head gets from its maps to boxes."""
    kinds = type(head).__mro__
    names = ('_predict_by_feat_single', 'predict_by_feat')
    return next(kind.__name__ for kind in kinds if any(name in vars(kind) for name in names))


def is_known(head: Any) -> bool:
    """Whether it is a head whose way to boxes is known."""
    return hasattr(head, 'prior_generator') and hasattr(head, 'predict_by_feat') and source_of(head) in KNOWN


def check_head(head: Any) -> None:
    """Does a head move its boxes and score them in a way that is known here?

    Raises:
        ValueError: it does not.
    """
    coder = type(getattr(head, 'bbox_coder', None)).__name__
    if source_of(head) != 'YOLOXHead' and coder not in CODERS:
        raise ValueError(f'{type(head).__name__} with {coder} cannot be exported: known are {" and ".join(CODERS)}')
    loss = getattr(head, 'loss_cls', None)
    if getattr(loss, 'custom_cls_channels', False):
        raise ValueError(f'{type(head).__name__} with {type(loss).__name__} cannot be exported')
