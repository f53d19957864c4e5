"""Which class is taken for which, in detection."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np

from .matching import greedy_pairs, iou_matrix

LEAST_IOU = 0.5
LEAST_SCORE = 0.25


def confusion_matrix(objects: Sequence[dict], found: Sequence[dict], num_classes: int) -> np.ndarray:
    """Pairs of objects and detections, whatever their classes.

    Detections of a score of 0.25 and more are paired one to one with the objects of their image: the pair of the
    highest IoU first, at equal IoU that of the higher score, down to an IoU of 0.5. What is left over is paired with
    the background, except detections half inside a crowd region of their class, which do not count, like the regions.
    (Ultralytics also pairs by IoU alone; COCO's AP by score within a class, which would hide confusions.)

    Args:
        objects: of :class:`~vitdense.evaluation.coco_eval.GroundTruth`; IoUs are those of masks where these have them.
        found: of :func:`~vitdense.evaluation.coco_eval.predictions`.
        num_classes: K.

    Returns:
        (K + 1, K + 1) int64, rows truth, columns predicted, the last of both background.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    objects_of, found_of = _by_image(objects), _by_image(d for d in found if d['score'] >= LEAST_SCORE)
    for image in objects_of.keys() | found_of.keys():
        _add_image(counts, objects_of.get(image, []), found_of.get(image, []))
    return counts


def _by_image(annotations: Iterable[dict]) -> dict[int, list[dict]]:
    image = itemgetter('image_id')
    return {number: list(group) for number, group in groupby(sorted(annotations, key=image), image)}


def _add_image(counts: np.ndarray, objects: list[dict], found: list[dict]) -> None:
    crowds = [o for o in objects if o['iscrowd']]
    objects = [o for o in objects if not o['iscrowd']]
    scores = np.array([d['score'] for d in found])
    pairs = greedy_pairs(iou_matrix(found, objects), LEAST_IOU, scores)
    for row, column in pairs:
        counts[objects[column]['category_id'], found[row]['category_id']] += 1
    for column in set(range(len(objects))).difference(column for _, column in pairs):
        counts[objects[column]['category_id'], -1] += 1
    inside = iou_matrix(found, crowds, crowd=True) >= LEAST_IOU
    crowd_labels = np.array([o['category_id'] for o in crowds])
    for row in set(range(len(found))).difference(row for row, _ in pairs):
        label = found[row]['category_id']
        counts[-1, label] += not inside[row, crowd_labels == label].any()
