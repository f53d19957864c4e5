"""How a test leaves out what overlaps, read from its config."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vitdense.names import listed

from .nms import nms
from .soft_nms import soft_nms

METHODS = ('naive', 'linear', 'gaussian')


@dataclass(frozen=True)
class Suppression:
    """NMS with its settings.

    Attributes:
        most: detections of an image D.
        iou: overlap above which the worse of two boxes of a class is left out, or loses of its score.
        score: detections have more than that.
        least: width and height of a box are more than that, in pixels.
        agnostic: whether boxes of other classes count as well.
        method: of Soft-NMS, one of ``METHODS``, or None.
        sigma: of ``gaussian``.
        min_score: that Soft-NMS has to leave.
    """

    most: int
    iou: float
    score: float = 0.0
    least: float = -1.0
    agnostic: bool = False
    method: str | None = None
    sigma: float = 0.5
    min_score: float = 1e-3

    def __call__(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best of boxes (B, N, 4), xyxy, with scores (B, N) and classes (B, N).

        Returns:
            Boxes (B, D, 4), scores (B, D) and labels (B, D), the best first; where there are fewer, scores are 0 and
            labels -1.
        """
        if self.least >= 0:
            large = (boxes[..., 2:] - boxes[..., :2] > self.least).all(-1)
            scores = torch.where(large, scores, -1.0)
        boxes, scores = F.pad(boxes, (0, 0, 0, self.most)), F.pad(scores, (0, self.most), value=-1.0)
        labels = F.pad(labels, (0, self.most))
        groups = torch.zeros_like(labels) if self.agnostic else labels
        if self.method is None:
            found, best, order = nms(boxes, scores, groups, self.iou, self.score, self.most)
        else:
            decay = METHODS.index(self.method), self.iou, self.sigma, self.min_score
            found, best, order = soft_nms(boxes, scores, groups, *decay, self.score, self.most)
        return found, best, torch.where(best > 0, labels.gather(1, order), -1)


def suppression_of(test_cfg: Mapping[str, Any], most: int | None = None) -> Suppression:
    """That of a ``test_cfg`` of mmdet, which has ``nms``, ``score_thr``, ``min_bbox_size`` and ``max_per_img``.

    ``most`` is taken where a test has no ``max_per_img``.

    Raises:
        ValueError: it is one that cannot be exported.
    """
    settings = dict(test_cfg.get('nms') or {})
    kind = settings.pop('type', 'nms')
    kind = getattr(kind, '__name__', kind)
    if kind not in ('nms', 'soft_nms') or (kind == 'nms' and 'iou_threshold' not in settings):
        raise ValueError(
            f'test_cfg.nms = {dict(test_cfg.get("nms") or {})} cannot be exported: known are nms and soft_nms'
        )
    found = Suppression(
        most=int(test_cfg.get('max_per_img', most)),
        iou=float(settings.pop('iou_threshold', 0.3)),
        score=float(test_cfg.get('score_thr', 0)),
        least=float(test_cfg.get('min_bbox_size', -1)),
        agnostic=bool(settings.pop('class_agnostic', False)),
        method=settings.pop('method', 'linear') if kind == 'soft_nms' else None,
        sigma=float(settings.pop('sigma', 0.5)),
        min_score=float(settings.pop('min_score', 1e-3)),
    )
    neutral = dict(split_thr=settings.get('split_thr'), offset=0, max_num=-1, score_threshold=0)
    others = [key for key, value in settings.items() if key not in neutral or value != neutral[key]]
    if others:
        raise ValueError(f'test_cfg.nms with {listed(others, 5)} cannot be exported')
    return found
