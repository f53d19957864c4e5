# mypy: ignore-errors
"""The steps of :func:`vitdense.export.soft_nms.soft_nms` as a function of ONNX."""

from onnxscript import FLOAT, INT64, script
from onnxscript import opset18 as op
from onnxscript.values import Opset


@script(Opset('vitdense', 1), default_opset=op)
def soft_nms_loop(
    boxes: FLOAT, left: FLOAT, labels: INT64, limits: FLOAT, method: INT64, most: INT64
) -> tuple[FLOAT, INT64]:
    """Boxes (B, N, 4), scores (B, N), classes (B, N), [iou, sigma, min_score], method and D to scores and places."""
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
