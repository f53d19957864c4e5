"""Masks of the annotations of a COCO file: their form, and whether they lie where their boxes do."""

from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from . import rules
from .coco_file import CocoFile

LEAST_IOU = 0.1
"""Of a box with the extent of its mask; a box that was drawn by hand around a mask has more than half."""


def check_masks(file: CocoFile, good: np.ndarray, loads_masks: bool) -> None:
    """Note in ``file.findings`` masks of the ``good`` annotations (A,) that are no masks or belong to no box."""
    masks = file.column('segmentation')
    if not loads_masks and not any(masks):
        return
    faults: dict[int, str] = {}
    sound = []
    for i in np.flatnonzero(good & ~file.ignored).tolist():
        mask = masks[i]
        if mask and type(mask) is list and all(map(_is_polygon, mask)):
            sound.append(i)
        elif fault := mask_fault(mask, file.images[file.image_of[i]], loads_masks):
            faults[i] = fault
        elif mask:
            sound.append(i)
    faults.update(_misplaced(file, masks, sound))
    faulty = np.zeros(len(good), bool)
    faulty[list(faults)] = True
    file.about(rules.FAULTY_MASK, faulty, faults.__getitem__, fatal=loads_masks and not file.official)


def mask_fault(mask: Any, image: dict, needed: bool = True) -> str:
    """What is wrong with the form of a ``segmentation`` (polygons xyxy... or RLE), or ''."""
    if not mask:
        return 'it has no segmentation, but the pipeline loads masks' if needed else ''
    if isinstance(mask, list):
        if all(isinstance(number, int | float) for number in mask):
            return f'a flat list of {len(mask)} numbers, where a list of polygons belongs: [[x, y, x, y, ...]]'
        return next(filter(None, map(_polygon_fault, mask)), '')
    if not isinstance(mask, dict):
        return f'segmentation is a {type(mask).__name__}'
    size, counts = mask.get('size'), mask.get('counts')
    if size != [image['height'], image['width']]:
        return f'RLE of size (height, width) {size}, the image has {[image["height"], image["width"]]}'
    if isinstance(counts, str) and counts:
        counts = decode(counts)
        if counts is None:
            return 'RLE whose text cannot be decoded, or is cut off'
    if not isinstance(counts, list) or not counts:
        return 'RLE without counts'
    if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != size[0] * size[1]:
        return f'RLE counts do not add up to the {size[0] * size[1]} pixels of the image'
    return ''


def decode(text: str) -> list[int] | None:
    """Run lengths of a compressed RLE, ``None`` if it is none.

    As ``rleFrString`` of pycocotools reads it: six bits a letter from '0' on, of which the sixth says that the number
    goes on and the fifth of the last is its sign; from the fourth number on each is the difference to the last but one.
    """
    letters = np.frombuffer(text.encode('latin-1', 'replace'), np.uint8).astype(np.int64) - 48
    ends = (letters & 32) == 0
    if (letters < 0).any() or (letters > 63).any() or not ends[-1]:
        return None
    starts = np.r_[0, np.flatnonzero(ends)[:-1] + 1]
    lengths = np.diff(np.r_[starts, len(letters)])
    if lengths.max() > 12:  # beyond 60 bits
        return None
    place = np.arange(len(letters)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((letters & 31) << 5 * place, starts)
    numbers -= np.where(letters[ends] & 16, np.int64(1) << 5 * lengths, 0)
    numbers[1::2] = numbers[1::2].cumsum()
    numbers[2::2] = numbers[2::2].cumsum()
    return numbers.tolist()


def _is_polygon(polygon: Any) -> bool:
    return type(polygon) is list and len(polygon) >= 6 and not len(polygon) % 2


def _polygon_fault(polygon: Any) -> str:
    if _is_polygon(polygon):
        return ''
    count = len(polygon) if isinstance(polygon, list) else repr(polygon)
    return f'polygon of {count} numbers, where x and y of three points or more belong'


def _misplaced(file: CocoFile, masks: Sequence, sound: Sequence[int]) -> dict[int, str]:
    """Faults of masks by their extents, by annotation."""
    faults: dict[int, str] = {}
    polygons = [i for i in sound if isinstance(masks[i], list)]
    for part in _parts(polygons):
        found = _extents([masks[i] for i in part])
        if found is None:  # not all are numbers: one by one
            single = {i: _extents([masks[i]]) for i in part}
            faults.update({i: 'polygon with something that is no number' for i, one in single.items() if one is None})
            part = [i for i in part if i not in faults]
            found = np.concatenate([np.empty((0, 4)), *(one for one in single.values() if one is not None)])
        faults.update(_compare(file, part, found))
    for part in _parts([i for i in sound if isinstance(masks[i], dict)]):
        rles = [_rle(masks[i]) for i in part]
        xywh = np.asarray(mask_api.toBbox(rles), np.float64).reshape(-1, 4)
        faults.update(_compare(file, part, np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)))
    return faults


def _parts(indices: list[int], size: int = 50_000) -> Iterator[list[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def _rle(mask: dict) -> dict:
    if isinstance(mask['counts'], list):
        return mask_api.frPyObjects(mask, *mask['size'])
    return mask


def _extents(masks: Sequence[list[list]]) -> np.ndarray | None:
    """Extents (N, 4) xyxy of masks of polygons, ``None`` if something is no number."""
    flat = chain.from_iterable(chain.from_iterable(masks))
    try:
        points = np.frombuffer(array('d', list(flat))).reshape(-1, 2)
    except (TypeError, OverflowError):
        return None
    lengths = [len(mask[0]) if len(mask) == 1 else sum(map(len, mask)) for mask in masks]
    starts = np.cumsum([0, *lengths[:-1]]) // 2
    return np.concatenate([np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)], 1)


def _compare(file: CocoFile, part: Sequence[int], extents: np.ndarray) -> Iterator[tuple[int, str]]:
    """Faults by annotation of masks with these ``extents`` (N, 4) xyxy, give or take a pixel."""
    boxes = file.boxes[np.array(part, np.int64)]
    with np.errstate(invalid='ignore', over='ignore', divide='ignore'):
        start, end = extents[:, :2] - 1, extents[:, 2:] + 1
        inner = np.minimum(end, boxes[:, :2] + boxes[:, 2:]) - np.maximum(start, boxes[:, :2])
        common = inner.clip(0).prod(1)
        iou = common / ((end - start).prod(1) + boxes[:, 2:].prod(1) - common)
        finite, flat = np.isfinite(extents).all(1), (extents[:, 2:] - extents[:, :2]).min(1) <= 0
    for k in np.flatnonzero(~finite | flat | (iou < LEAST_IOU)).tolist():
        if not finite[k]:
            yield part[k], 'polygon with NaN or infinity'
            continue
        if flat[k]:
            yield part[k], 'a mask without a pixel'
            continue
        relative = ', relative to the image?' if (extents[k] >= 0).all() and (extents[k] <= 1).all() else ''
        x1, y1, x2, y2 = extents[k].round(2).tolist()
        yield part[k], f'the mask reaches from ({x1}, {y1}) to ({x2}, {y2}), the box is {boxes[k].tolist()}{relative}'
