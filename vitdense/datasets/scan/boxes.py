"""Boxes, areas, masks and references of the annotations of a COCO file."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import rules
from .coco_file import CocoFile


def check_annotations(file: CocoFile, loads_masks: bool) -> None:
    """Note in ``file.findings`` what is wrong with its annotations.

    Args:
        loads_masks: whether the pipeline loads masks; if not, faults of masks are only remarks.
    """
    images, categories = file.column('image_id'), file.column('category_id')
    no_image, no_category = file.image_of < 0, file.category_of < 0
    file.about(rules.UNKNOWN_IMAGE, no_image, lambda i: f'there is no image {images[i]!r}')
    file.about(
        rules.UNKNOWN_CATEGORY,
        no_category & ~no_image,
        lambda i: f'there is no category {categories[i]!r}, only {[c["id"] for c in file.categories[:20]]}',
    )
    good = _check_boxes(file, ~no_image & ~no_category)
    no_area = good & ~(file.areas > 0)
    areas = file.column('area')
    file.about(
        rules.NO_AREA,
        no_area & ~file.ignored,
        lambda i: f'expected the area in pixels, found {areas[i]!r}; mmdet fails without and leaves out 0',
        'area',
        fatal=not file.official,
    )
    _check_repeated(file, good)
    _check_masks(file, good, loads_masks)


def _check_boxes(file: CocoFile, known: np.ndarray) -> np.ndarray:
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
            rules.THIN: (size < 1).any(1),
        }
    given = file.column('bbox')
    left = known.copy()
    for kind, test in tests.items():
        lenient = kind == rules.THIN or (file.official and kind in tuple(tests)[3:])
        file.about(kind, left & test, _box_message(file, given), fatal=not lenient)
        left &= ~test
    return left


def _box_message(file: CocoFile, given: list) -> Callable[[int], str]:
    def message(i: int) -> str:
        width, height = file.wh[file.image_of[i]]
        return f'bbox (x, y, width, height) {str(given[i])[:80]} in an image of {width:.0f} x {height:.0f}'

    return message


def _check_repeated(file: CocoFile, good: np.ndarray) -> None:
    """A remark for every box that another annotation of its image and category has as well."""
    candidates = np.flatnonzero(good & ~file.crowd)
    rows = np.column_stack([file.image_of, file.category_of, file.boxes])[candidates]
    order = np.lexsort(rows.T[::-1])
    same = (rows[order][1:] == rows[order][:-1]).all(1)
    repeated = np.zeros(len(good), bool)
    repeated[candidates[order][1:][same]] = True
    file.about(rules.TWICE, repeated, lambda i: f'same category and box {file.boxes[i].tolist()}', fatal=False)


def _check_masks(file: CocoFile, good: np.ndarray, loads_masks: bool) -> None:
    masks = file.column('segmentation')
    if not loads_masks and not any(masks):
        return
    faults: dict[int, str] = {}
    for i in np.flatnonzero(good & ~file.ignored).tolist():
        fault = mask_fault(masks[i], file.images[file.image_of[i]], loads_masks)
        if fault:
            faults[i] = fault
    faulty = np.zeros(len(good), bool)
    faulty[list(faults)] = True
    file.about(rules.FAULTY_MASK, faulty, faults.__getitem__, fatal=loads_masks and not file.official)


def mask_fault(mask: Any, image: dict, needed: bool = True) -> str:
    """What is wrong with the ``segmentation`` of an annotation (polygons xyxy... or RLE), or ''."""
    if not mask:
        return 'it has no segmentation, but the pipeline loads masks' if needed else ''
    if isinstance(mask, list):
        return next(filter(None, map(_polygon_fault, mask)), '')
    if not isinstance(mask, dict):
        return f'segmentation is a {type(mask).__name__}, expected polygons or RLE'
    size, counts = mask.get('size'), mask.get('counts')
    if size != [image['height'], image['width']]:
        return f'RLE of size (height, width) {size}, the image has {[image["height"], image["width"]]}'
    if isinstance(counts, list):
        if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != size[0] * size[1]:
            return f'RLE counts do not add up to the {size[0] * size[1]} pixels of the image'
    elif not isinstance(counts, str) or not counts:
        return 'RLE without counts'
    return ''


def _polygon_fault(polygon: Any) -> str:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        count = len(polygon) if isinstance(polygon, list) else repr(polygon)
        return f'polygon of {count} numbers, expected x and y of three points or more'
    try:
        return '' if math.isfinite(sum(polygon)) else 'polygon with NaN or infinity'
    except (TypeError, OverflowError):
        return 'polygon with something that is no number'
