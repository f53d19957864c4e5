"""Boxes, areas, flags and references of the annotations of a COCO file."""

from collections.abc import Callable

import numpy as np

from ..coco_fields import FLAGS, flag
from . import rules
from .coco_file import CocoFile
from .masks import check_masks


def check_annotations(file: CocoFile, loads_masks: bool) -> None:
    """Note in ``file.findings`` what is wrong with its annotations.

    Args:
        loads_masks: whether the pipeline loads masks; if not, faults of masks are only remarks.
    """
    images, categories = file.column('image_id'), file.column('category_id')
    given = [(key, file.column(key)) for key in FLAGS]
    no_image, no_category = file.image_of < 0, file.category_of < 0
    file.about(rules.UNKNOWN_IMAGE, no_image, lambda i: f'there is no image {images[i]!r}')
    file.about(
        rules.UNKNOWN_CATEGORY,
        no_category & ~no_image,
        lambda i: f'there is no category {categories[i]!r}, only {[c["id"] for c in file.categories[:20]]}',
    )
    file.about(
        rules.FLAG,
        file.unreadable,
        lambda i: ', '.join(f'{key} is {flags[i]!r}' for key, flags in given if flag(flags[i]) is None),
    )
    good = check_boxes(file, ~no_image & ~no_category)
    no_area = good & ~(file.areas > 0)
    areas = file.column('area')
    file.about(
        rules.NO_AREA,
        no_area & ~file.ignored,
        lambda i: f'area is {areas[i]!r}',
        'area',
        fatal=not file.official,
    )
    _check_repeated(file, good)
    check_masks(file, good, loads_masks)


def check_boxes(file: CocoFile, known: np.ndarray) -> np.ndarray:
    """Mask (A,) of the boxes that have no fault, among the ``known``.

    A box may stick out of its image by a pixel (rounding, counting from one) or by 1 % of the side (a hand that drew
    over the edge, which the resizing clips). A wrong scale, or corners given as xywh, is further out.
    """
    wh = np.full((len(file.boxes), 2), np.nan)
    wh[known] = file.wh[file.image_of[known]]
    xy, size = file.boxes[:, :2], file.boxes[:, 2:]
    slack = np.maximum(1, 0.01 * wh)
    with np.errstate(invalid='ignore', over='ignore'):
        tests = {
            rules.NO_BOX: file.malformed,
            rules.NOT_FINITE: ~np.isfinite(file.boxes).all(1),
            rules.NEGATIVE: (size < 0).any(1),
            rules.EMPTY_BOX: (size == 0).any(1),
            rules.ABSURD: (size > 2 * wh).any(1) | (np.abs(xy) > 1e6).any(1),
            rules.OUTSIDE: ((xy >= wh) | (xy + size <= 0)).any(1),
            rules.BEYOND: ((xy < -slack) | (xy + size > wh + slack)).any(1),
            rules.RELATIVE: _relative(file, known),
            rules.THIN: (size < 1).any(1),
        }
    given = file.column('bbox')
    left = known.copy()
    for kind, test in tests.items():
        lenient = kind == rules.THIN or (file.official and kind in tuple(tests)[3:])
        mends = 'box' if kind == rules.BEYOND else 'annotation'
        file.about(kind, left & test, _box_message(file, given), mends, fatal=not lenient)
        left &= ~test
    return left


def _relative(file: CocoFile, known: np.ndarray) -> np.ndarray:
    """Mask (A,) of the boxes in images, larger than a few pixels, all of whose boxes lie in the first pixel."""
    with np.errstate(invalid='ignore'):
        first = (file.boxes[:, :2] >= 0).all(1) & (file.boxes[:, :2] + file.boxes[:, 2:] <= 1.001).all(1)
        thin = (file.boxes[:, 2:] < 1).any(1)
    elsewhere, some = np.zeros((2, len(file.images)), bool)
    elsewhere[file.image_of[known & ~first]] = True
    some[file.image_of[known & first & thin]] = True
    suspicious = some & ~elsewhere & (file.wh.min(1, initial=np.inf) > 4)
    return known & suspicious[file.image_of] if len(suspicious) else np.zeros(len(known), bool)


def _box_message(file: CocoFile, given: list) -> Callable[[int], str]:
    def message(i: int) -> str:
        width, height = file.wh[file.image_of[i]]
        x, y, w, h = file.boxes[i]
        outside = ', outside of it' if x >= width or y >= height or x + w <= 0 or y + h <= 0 else ''
        return f'bbox (x, y, width, height) {str(given[i])[:80]} in an image of {width:.0f} x {height:.0f}{outside}'

    return message


def _check_repeated(file: CocoFile, good: np.ndarray) -> None:
    """A remark for every box that another annotation of its image and category has as well."""
    candidates = np.flatnonzero(good & ~file.crowd)
    numbers = np.column_stack([file.image_of, file.category_of, (file.boxes + 0.0).view(np.int64)])[candidates]
    candidates = candidates[_with_twin(numbers)]
    rows = np.column_stack([file.image_of, file.category_of, file.boxes])[candidates]
    order = np.lexsort(rows.T[::-1])
    same = (rows[order][1:] == rows[order][:-1]).all(1)
    repeated = np.zeros(len(good), bool)
    repeated[candidates[order][1:][same]] = True
    file.about(rules.TWICE, repeated, lambda i: f'same category and box {file.boxes[i].tolist()}', fatal=False)


def _with_twin(rows: np.ndarray) -> np.ndarray:
    """Mask (N,) of the rows (N, 6) of integers that another may equal, by a hash of theirs."""
    factors = np.array([0x9E3779B97F4A7C15 * (2 * k + 1) % 2**64 | 1 for k in range(rows.shape[1])], np.uint64)
    mixed = rows.view(np.uint64) * factors
    hashes = (mixed ^ (mixed >> np.uint64(29))).sum(1, dtype=np.uint64)
    _, places, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    return counts[places] > 1
