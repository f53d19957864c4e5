"""Boxes: cxcywh, centre and size, or xyxy, upper left and lower right corner."""

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Boxes (..., 4) from centre and size to corners."""
    centre, size = boxes.split(2, dim=-1)
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Boxes (..., 4) from corners to centre and size."""
    upper_left, lower_right = boxes.split(2, dim=-1)
    return torch.cat([(upper_left + lower_right) / 2, lower_right - upper_left], dim=-1)


def generalized_iou(a: Tensor, b: Tensor, eps: float = 1e-10) -> Tensor:
    """Generalised IoU (https://arxiv.org/abs/1902.09630) of boxes (..., 4), cxcywh, whose shapes broadcast: (...).

    Areas below ``eps`` count as ``eps``, so that two boxes without area have a finite one.
    """
    a, b = cxcywh_to_xyxy(a), cxcywh_to_xyxy(b)
    overlap = _area(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    hull = _area(torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])).clamp(min=eps)
    union = (_area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - overlap).clamp(min=eps)
    return overlap / union - (hull - union) / hull


def _area(upper_left: Tensor, lower_right: Tensor) -> Tensor:
    return (lower_right - upper_left).clamp(min=0).prod(-1)
