"""Non-maximum suppression and overlaps of boxes (N, 4), xyxy."""

import numpy as np
import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from vitdense.compat.mmcv_ext.precision import widen

__all__ = ['bbox_overlaps', 'nms', 'nms_match', 'softnms']

NAIVE, LINEAR, GAUSSIAN = range(3)
IOU, IOF = range(2)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices (kept,) of the boxes that survive, by falling score. A side of a box is ``x2 - x1 + offset``."""
    boxes, scores = widen(boxes, scores)
    # moving the far corner gives the same sides and intersections as adding the offset to each of them
    boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)
    # mmcv compares in the precision of the boxes: at exactly the threshold a box stays
    iou_threshold = torch.tensor(iou_threshold, dtype=boxes.dtype).item()
    return torch.ops.torchvision.nms(boxes, scores, iou_threshold)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of ``dets`` (N, 5), box and score, as greedy NMS makes them.

    Returns:
        list[list[int]]: for each box that NMS keeps its index, then those it suppresses, by falling score. Unlike
        :func:`nms`, a box is suppressed at exactly the threshold.
    """
    boxes = widen(dets)[0].numpy()
    rest = dets[:, 4].sort(descending=True, stable=True).indices.numpy()
    groups = []
    while len(rest):
        best, others = rest[0], rest[1:]
        suppressed = _iou(boxes[best], boxes[others], offset=0) >= iou_threshold
        groups.append([best.item(), *others[suppressed].tolist()])
        rest = others[~suppressed]
    return groups


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (arXiv:1704.04503): lower the scores of overlapping boxes, drop what falls below ``min_score``.

    Writes boxes and lowered scores, best first, into the first rows of ``dets`` (N, 5). ``method`` is 0 for naive,
    1 for linear, 2 for gaussian. Equal scores come in mmcv's order, which exchanges elements in place. A score that is
    NaN is less than no other and never dropped: it comes where it stands.

    Returns:
        Tensor: indices (kept,) into ``boxes``, in the order of ``dets``.
    """
    rest = torch.column_stack(widen(boxes.cpu(), scores.cpu())).numpy()
    inds = np.arange(len(rest))
    count, done = len(rest), 0
    while done < count:
        best = done + _first_best(rest[done:count, 4])
        rest[[done, best]] = rest[[best, done]]
        inds[[done, best]] = inds[[best, done]]
        box, tail = rest[done], rest[done + 1 : count]
        iou = _iou(box, tail, offset)
        if method == GAUSSIAN:
            tail[:, 4] *= np.exp(-(iou**2) / sigma)
        else:
            tail[:, 4] *= np.where(iou >= iou_threshold, 1 - iou if method == LINEAR else 0, 1)
        done += 1
        kept = done + _compacted(~(tail[:, 4] < min_score))
        count = done + len(kept)
        rest[done:count], inds[done:count] = rest[kept], inds[kept]
    dets[:count] = torch.from_numpy(rest[:count])
    return torch.from_numpy(inds[:count]).to(boxes.device)


def _first_best(scores: np.ndarray) -> int:
    """Position of the first score that no later one exceeds, as a loop of comparisons finds it."""
    return 0 if np.isnan(scores[0]) else int(np.where(np.isnan(scores), -np.inf, scores).argmax())


def _iou(box: np.ndarray, others: np.ndarray, offset: int) -> np.ndarray:
    sides = np.minimum(box[2:4], others[:, 2:4]) - np.maximum(box[:2], others[:, :2]) + offset
    overlap = sides.clip(0).prod(axis=1)
    area = (box[2:4] - box[:2] + offset).prod()
    areas = (others[:, 2:4] - others[:, :2] + offset).prod(axis=1)
    with np.errstate(invalid='ignore'):  # 0 / 0 for two empty boxes: NaN compares as no overlap
        return overlap / (area + areas - overlap)


def _compacted(keep: np.ndarray) -> np.ndarray:
    """Positions of the kept elements once each gap has been filled with the last element that is kept."""
    count = keep.sum()
    order = np.arange(count)
    order[~keep[:count]] = count + np.flatnonzero(keep[count:])[::-1]
    return order


def bbox_overlaps(boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Write the overlap of ``boxes1`` (N, 4) with ``boxes2`` (M, 4) into ``ious`` (N, M); ``aligned``: (N,), N = M.

    ``mode`` 0 divides by the union, 1 by the area of ``boxes1``.
    """
    boxes1, boxes2 = widen(boxes1, boxes2)
    if not aligned:
        boxes1 = boxes1[:, None]
    sides = torch.minimum(boxes1[..., 2:], boxes2[..., 2:]) - torch.maximum(boxes1[..., :2], boxes2[..., :2]) + offset
    overlap = sides.clamp(min=0).prod(dim=-1)
    base = _area(boxes1, offset) if mode == IOF else _area(boxes1, offset) + _area(boxes2, offset) - overlap
    ious.copy_(overlap / base)


def _area(boxes: Tensor, offset: int) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2] + offset).prod(dim=-1)
