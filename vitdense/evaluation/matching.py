"""Detections and objects of an image in pairs, by overlap alone."""

import numpy as np
from pycocotools import mask as mask_api


def iou_matrix(found: list[dict], objects: list[dict], crowd: bool = False) -> np.ndarray:
    """(D, G) IoU of COCO annotations: of their masks where the objects have them, else of their boxes.

    With ``crowd`` it is the part of the detection that lies inside the object.
    """
    if not found or not objects:
        return np.zeros((len(found), len(objects)))
    masks = 'segmentation' in objects[0]
    shapes = (
        [a['segmentation'] for a in side] if masks else np.array([a['bbox'] for a in side], np.float64)
        for side in (found, objects)
    )
    return np.asarray(mask_api.iou(*shapes, [int(crowd)] * len(objects)))


def greedy_pairs(iou: np.ndarray, least: float, scores: np.ndarray) -> list[tuple[int, int]]:
    """Rows and columns of ``iou`` (D, G) one to one.

    The pair with the highest IoU comes first, down to ``least``. At equal IoU the higher of ``scores`` (D,) decides.
    """
    rows, columns = np.nonzero(iou >= least)
    order = np.lexsort((-scores[rows], -iou[rows, columns]))
    pairs, used_rows, used_columns = [], set(), set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
            pairs.append((row, column))
    return pairs
