"""Which metric of an evaluation tells how good a model is, and in which direction it grows."""

import math
import re
from collections.abc import Mapping
from typing import Any

MAIN = (
    *('PQ', 'segm_mAP', 'segm_AP', 'bbox_mAP', 'bbox_AP', 'mAP', 'AP', 'mIoU', 'IoU', 'cIoU', 'mDice', 'Dice'),
    *('mFscore', 'Fscore', 'F1', 'HOTA', 'MOTA', 'IDF1', 'averageScoreCategories', 'mMR', 'rmse', 'abs_rel'),
    *('mAcc', 'aAcc', 'accuracy', 'acc'),
)
"""Names of metrics without their prefix, the first that an evaluation has is its main one: of the whole task before its
parts, masks before boxes, overlap before accuracy."""

HIGHER = frozenset(
    (
        *('pq', 'sq', 'rq', 'map', 'ap', 'ar', 'iou', 'miou', 'ciou', 'dice', 'mdice', 'fscore', 'mfscore'),
        *('f1', 'hota', 'mota', 'idf1', 'acc', 'accuracy', 'macc', 'aacc', 'auc', 'precision', 'mprecision'),
        *('recall', 'mrecall', 'averagescorecategories', 'averagescoreinstcategories', 'd1', 'd2', 'd3'),
        *('top1', 'top5', 'ji', 'psnr', 'ssim'),
    )
)
LOWER = frozenset(
    (
        *('loss', 'error', 'err', 'mae', 'mse', 'rmse', 'mmr', 'fid', 'abs_rel', 'sq_rel', 'rel', 'silog'),
        *('log10', 'rmse_log'),
    )
)
QUALIFIERS = frozenset(
    (
        *('bbox', 'segm', 'mask', 'box', 's', 'm', 'l', 'r', 'c', 'f', 'th', 'st', 'mean', 'overall', 'all'),
        *('val', 'test', 'log'),
    )
)


def direction(key: str) -> str | None:
    """'greater' if more is better, 'less' if less is, ``None`` where that is not known, of a key such as
    ``coco/bbox_mAP``.
    """
    name = _name(key).lower()
    words = {name, *_words(name)}
    return 'less' if words & LOWER else 'greater' if words & HIGHER else None


def main_metric(metrics: Mapping[str, Any]) -> str | None:
    """Key of the main metric; ``None`` if there is none whose direction is known.

    Values of single classes (``coco/person_precision``) are none, and neither is what is no number. A NaN is a number:
    that a metric is undefined at one evaluation does not make another the main one.
    """
    ranks = [(rank, place, key) for place, key in enumerate(metrics) if (rank := _rank(key)) is not None]
    return min((entry for entry in ranks if number(metrics[entry[2]]) is not None), default=(0, 0, None))[2]


def number(value: Any) -> float | None:
    """A metric as a number, ``None`` where it is none."""
    try:
        return None if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def finite(value: Any) -> float | None:
    """A metric as a number, ``None`` where it is none, NaN or infinite."""
    found = number(value)
    return found if found is not None and math.isfinite(found) else None


def _rank(key: str) -> int | None:
    """Place in ``MAIN``, behind it for parts of what is there (``bbox_mAP_50``), ``None`` for others."""
    name = _name(key)
    if name in MAIN:
        return MAIN.index(name)
    known = all(word in HIGHER | LOWER | QUALIFIERS or word.isdigit() for word in _words(name.lower()))
    return len(MAIN) if known and direction(key) else None


def _name(key: str) -> str:
    return key.rpartition('/')[2]


def _words(name: str) -> list[str]:
    """``bbox_map_50`` as bbox, map and 50; ``ar@100`` as ar and 100; ``ap50`` as ap and 50."""
    words = []
    for part in re.split(r'[^a-z0-9]+', name):
        match = re.fullmatch(r'([a-z]+?)(\d{2,})', part)
        words += [*match.groups()] if match else [part] if part else []
    return words
