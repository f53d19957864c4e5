"""Soft-NMS of whole batches as one operator, in PyTorch and in ONNX."""

from functools import cache
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
def _(
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
    shape = boxes.shape[0], most
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
    from onnxscript import opset20

    op: Any = opset20
    left = op.Where(op.Greater(scores, op.Constant(value_float=score)), scores, op.Constant(value_float=-1.0))
    limits = op.Constant(value_floats=[iou, sigma, min_score])
    kind = op.Constant(value_int=method)
    found_scores, places = loop()(boxes, left, labels, limits, kind, op.Constant(value_int=most))
    wide = op.Expand(op.Unsqueeze(places, op.Constant(value_ints=[2])), op.Constant(value_ints=[1, 1, 4]))
    return op.GatherElements(boxes, wide, axis=1), found_scores, places


@cache
def loop() -> Any:
    """The steps of :func:`soft_nms` as a function of ONNX."""
    from onnxscript import opset20 as op
    from onnxscript import script
    from onnxscript.values import Opset

    @script(Opset('vitdense', 1), default_opset=op)
    def soft_nms_steps(boxes, left, labels, limits, method, most):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        x1, y1, x2, y2 = op.Split(boxes, num_outputs=4, axis=2)
        areas = (x2 - x1) * (y2 - y1)
        columns = op.Unsqueeze(op.Range(0, most, 1), [0])  # (1, D)
        shape = op.Concat(op.Shape(left, start=0, end=1), op.Reshape(most, [1]), axis=0)
        found_scores = op.Expand(0.0, shape)
        places = op.Expand(op.Constant(value_int=0), shape)
        for i in range(most):
            best, place = op.TopK(left, [1], axis=1)  # (B, 1)
            is_here = op.Equal(columns, i)
            found_scores = op.Where(is_here, op.Max(best, 0.0), found_scores)
            places = op.Where(is_here, place, places)
            one = op.Unsqueeze(place, [2])
            w = op.Min(x2, op.GatherElements(x2, one, axis=1)) - op.Max(x1, op.GatherElements(x1, one, axis=1))
            h = op.Min(y2, op.GatherElements(y2, one, axis=1)) - op.Max(y1, op.GatherElements(y1, one, axis=1))
            shared = op.Max(w, 0.0) * op.Max(h, 0.0)
            whole = areas + op.GatherElements(areas, one, axis=1) - shared
            overlap = op.Squeeze(shared / op.Max(whole, 1e-9), [2])  # (B, N)
            limit = op.Gather(limits, 0)
            lower = op.Where(method == 1, 1.0 - overlap, 0.0)
            hard = op.Where(overlap >= limit, lower, 1.0)
            soft = op.Exp(op.Neg(overlap * overlap) / op.Gather(limits, 1))
            share = op.Where(method == 2, soft, hard)
            same = op.Equal(labels, op.GatherElements(labels, place, axis=1))
            lowered = op.Where(same, left * share, left)
            lowered = op.Where(lowered < op.Gather(limits, 2), -1.0, lowered)
            left = op.ScatterElements(lowered, place, op.Min(best, -1.0), axis=1)
        return found_scores, places

    return soft_nms_steps
