"""NMS of whole batches as one operator, in PyTorch and in ONNX."""

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import batched_nms


@torch.library.custom_op('vitdense::nms', mutates_args=())
def nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float, score: float, most: int) -> list[Tensor]:
    """The best detections of each image, none of which overlaps a better one of its class.

    Args:
        boxes: (B, N, 4), xyxy.
        scores: (B, N).
        labels: classes (B, N).
        iou: from which overlap on the worse of two is left out.
        score: detections have more than that.
        most: number D of detections; N has to be as large.

    Returns:
        Boxes (B, D, 4), scores (B, D) and places among the N (B, D), the best first; all of them are 0 where
        there are fewer.
    """
    found_boxes = boxes.new_zeros(len(boxes), most, 4)
    found_scores, places = scores.new_zeros(len(boxes), most), labels.new_zeros(len(boxes), most)
    for i in range(len(boxes)):
        chosen = (scores[i] > score).nonzero()[:, 0]
        keep = chosen[batched_nms(boxes[i, chosen], scores[i, chosen], labels[i, chosen], iou)[:most]]
        found_boxes[i, : len(keep)] = boxes[i, keep]
        found_scores[i, : len(keep)], places[i, : len(keep)] = scores[i, keep], keep
    return [found_boxes, found_scores, places]


@nms.register_fake
def _(boxes: Tensor, scores: Tensor, labels: Tensor, *settings: Any) -> list[Tensor]:
    shape = boxes.shape[0], settings[-1]
    return [boxes.new_empty((*shape, 4)), scores.new_empty(shape), labels.new_empty(shape)]


def translated(boxes: Any, scores: Any, labels: Any, iou: float, score: float, most: int) -> Any:
    """The operator in ONNX, for ``torch.onnx.export(custom_translation_table=...)``."""
    from onnxscript import opset18

    op: Any = opset18
    # classes apart: one box of NonMaxSuppression for each, moved by its class
    lowest = op.Min(op.ReduceMin(boxes, keepdims=0), op.Constant(value_float=0.0))
    far = op.Add(op.Sub(op.ReduceMax(boxes, keepdims=0), lowest), op.Constant(value_float=1.0))
    moved = op.Add(boxes, op.Unsqueeze(op.Mul(op.Cast(labels, to=1), far), op.Constant(value_ints=[2])))
    picked = op.NonMaxSuppression(
        moved,
        op.Unsqueeze(scores, op.Constant(value_ints=[1])),
        op.Constant(value_ints=[most]),
        op.Constant(value_floats=[iou]),
        op.Constant(value_floats=[score]),
    )  # (found, 3): image, 0, place
    places = op.Gather(picked, op.Constant(value_ints=[0, 2]), axis=1)
    zeros = op.Mul(scores, op.Constant(value_float=0.0))
    ones = op.Add(op.Cast(op.Gather(picked, op.Constant(value_int=1), axis=1), to=1), op.Constant(value_float=1.0))
    kept = op.ScatterND(zeros, places, ones)
    best, order = op.TopK(op.Mul(scores, kept), op.Constant(value_ints=[most]), axis=1)
    there = op.Greater(best, op.Constant(value_float=0.0))
    wide = op.Expand(op.Unsqueeze(order, op.Constant(value_ints=[2])), op.Constant(value_ints=[1, 1, 4]))
    found_boxes = op.GatherElements(boxes, wide, axis=1)
    return (
        op.Where(op.Unsqueeze(there, op.Constant(value_ints=[2])), found_boxes, op.Constant(value_float=0.0)),
        best,
        op.Where(there, order, op.Constant(value_int=0)),
    )
