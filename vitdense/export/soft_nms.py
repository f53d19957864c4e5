"""Soft-NMS of whole batches as one operator, in PyTorch and in ONNX."""

from typing import Any

import torch
from torch import Tensor

NAIVE, LINEAR, GAUSSIAN = range(3)


@torch.library.custom_op('vitdense::soft_nms', mutates_args=())
def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    method: int,
    iou: float,
    sigma: float,
    min_score: float,
    score: float,
    most: int,
) -> list[Tensor]:
    """Soft-NMS (arXiv:1704.04503): what overlaps a better detection of its class loses of its score.

    The best that are left never get better, so that they are found in falling order, and ``most`` steps are enough.

    Args:
        boxes: (B, N, 4), xyxy.
        scores: (B, N).
        labels: classes (B, N).
        method: 0 takes all of the score of what overlaps by ``iou`` or more, 1 the share that overlaps; 2 multiplies
            all by exp(-overlap^2 / ``sigma``).
        iou, sigma: see there.
        min_score: what falls below is left out.
        score: detections have more than that before.
        most: number D of detections; N has to be as large.

    Returns:
        Boxes (B, D, 4), lowered scores (B, D) and places among the N (B, D), the best first; scores are 0 where there
        are fewer.
    """
    left = torch.where(scores > score, scores, -1.0)
    size = boxes[..., 2:] - boxes[..., :2]
    found_scores, found_places = scores.new_zeros(len(boxes), most), labels.new_zeros(len(boxes), most)
    for i in range(most):
        best, place = left.max(1, keepdim=True)
        found_scores[:, i], found_places[:, i] = best[:, 0].clamp(min=0), place[:, 0]
        box = boxes.gather(1, place[..., None].expand(-1, -1, 4))
        shared = torch.minimum(boxes, box)[..., 2:] - torch.maximum(boxes, box)[..., :2]
        overlap = shared.clamp(min=0).prod(-1)
        overlap = overlap / (size.prod(-1) + (box[..., 2:] - box[..., :2]).prod(-1) - overlap).clamp(min=1e-9)
        if method == GAUSSIAN:
            share = (-(overlap**2) / sigma).exp()
        else:
            share = torch.where(overlap >= iou, 1 - overlap if method == LINEAR else 0.0, 1.0)
        left = torch.where(labels == labels.gather(1, place), left * share, left)
        left = torch.where(left < min_score, -1.0, left).scatter(1, place, -1.0)
    return [boxes.gather(1, found_places[..., None].expand(-1, -1, 4)), found_scores, found_places]


@soft_nms.register_fake
def _(boxes: Tensor, scores: Tensor, labels: Tensor, *settings: Any) -> list[Tensor]:
    shape = boxes.shape[0], settings[-1]
    return [boxes.new_empty((*shape, 4)), scores.new_empty(shape), labels.new_empty(shape)]


def translated(
    boxes: Any,
    scores: Any,
    labels: Any,
    method: int,
    iou: float,
    sigma: float,
    min_score: float,
    score: float,
    most: int,
) -> Any:
    """The operator in ONNX, for ``torch.onnx.export(custom_translation_table=...)``."""
    from onnxscript import opset18

    from .soft_nms_loop import soft_nms_loop

    op: Any = opset18
    left = op.Where(op.Greater(scores, op.Constant(value_float=score)), scores, op.Constant(value_float=-1.0))
    limits = op.Constant(value_floats=[iou, sigma, min_score])
    kind = op.Constant(value_int=method)
    found_scores, places = soft_nms_loop(boxes, left, labels, limits, kind, op.Constant(value_int=most))
    wide = op.Expand(op.Unsqueeze(places, op.Constant(value_ints=[2])), op.Constant(value_ints=[1, 1, 4]))
    return op.GatherElements(boxes, wide, axis=1), found_scores, places
