"""From the predictions of the last decoder layer to detections."""

from typing import NamedTuple

import torch
from torch import Tensor

from .boxes import cxcywh_to_xyxy


class Detections(NamedTuple):
    """The best D detections of each image, by falling score.

    Attributes:
        scores: (B, D), in [0, 1].
        labels: classes (B, D).
        boxes: xyxy (B, D, 4), relative to the image without padding.
        queries: the query of each (B, D).
    """

    scores: Tensor
    labels: Tensor
    boxes: Tensor
    queries: Tensor


def select(logits: Tensor, boxes: Tensor, softmax: bool, count: int) -> Detections:
    """The ``count`` best detections, or as many as there are.

    With a softmax a query is one detection, of its best class but no object (DETR). With sigmoids each class of each
    query is one (Deformable DETR). Equal scores are in the order of the queries.

    Args:
        logits: class logits (B, Q, K).
        boxes: cxcywh (B, Q, 4).
        softmax: which of the two.
        count: number of detections.
    """
    if softmax:
        scores, labels = logits.float().softmax(-1)[..., :-1].max(-1)
        scores, queries = _best(scores, count)
        labels = labels.gather(1, queries)
    else:
        scores, indices = _best(logits.float().sigmoid().flatten(1), count)
        queries, labels = indices // logits.shape[-1], indices % logits.shape[-1]
    boxes = boxes.float().gather(1, queries[..., None].expand(-1, -1, 4))
    return Detections(scores, labels, cxcywh_to_xyxy(boxes), queries)


def _best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    ordered, indices = falling(scores)
    return ordered[:, :count], indices[:, :count]


def falling(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (B, N) by falling value, and where they were; equal ones stay in their order."""
    if torch.onnx.is_in_onnx_export():  # ONNX knows no other order of equals, and its exporter not the word for it
        return scores.sort(dim=1, descending=True)
    return scores.sort(dim=1, descending=True, stable=True)
