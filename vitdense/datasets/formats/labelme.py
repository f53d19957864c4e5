"""LabelMe: a JSON file of shapes beside each image."""

import base64
import io
import math
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from vitdense.findings import Finding
from vitdense.names import counted, listed

from ..coco_fields import read_json
from . import rules
from .class_names import find_names
from .coco import keys_of
from .listing import Listing, Picture, Thing, add_sizes, box_of, files_below
from .parts import by_folders

NO_CLASSES = ('__ignore__', '_background_')
"""Labels of LabelMe's own that stand for no object."""

CORNERS_OF_CIRCLE = 64


def is_labelme(path: Path) -> bool:
    """Whether the beginning of a JSON file looks like LabelMe's."""
    return 'shapes' in keys_of(path)


def read(root: Path) -> Listing:
    """Images with the shapes of their JSON files.

    Polygons, rectangles, circles and masks are objects; shapes of one label and ``group_id`` in an image are one. The
    classes are those of ``labels.txt`` or ``classes.txt``, else all labels in alphabetical order.

    Raises:
        ValueError: no shape has a label.
    """
    found = find_names(root)
    given = [name for name in found[0].values() if name not in NO_CLASSES] if found else []
    listing = Listing((), {})
    images = files_below(root)
    by_stem = {image.with_suffix('').as_posix(): image for image in images}
    pictures: dict[Path, Picture] = {}
    named: list[tuple[Picture, str, list[tuple[str, Any]]]] = []
    for path in files_below(root, ['.json']):
        try:
            content = read_json(path)
        except (ValueError, OSError, RecursionError) as error:
            listing.findings.append(Finding(rules.UNREADABLE, str(path), str(error), leave_out='image'))
            continue
        if not isinstance(content, dict) or not isinstance(content.get('shapes'), list):
            continue
        image = _image_of(path, content, root, by_stem)
        if image is None:
            named_in = f'no image {content.get("imagePath")!r}'
            listing.findings.append(Finding(rules.NO_IMAGE, str(path), named_in, leave_out='image'))
            continue
        pictures[image] = picture = Picture(image)
        named.append((picture, str(path), _shapes(path, content['shapes'], listing)))
    labels = {label for _, _, shapes in named for label, _ in shapes}
    listing.classes = tuple(given or sorted(labels))
    if not listing.classes:
        raise ValueError('\n'.join([f'{root}: no shape has a label', *map(str, listing.findings[:3])]))
    background = sum(image not in pictures for image in images)
    if background:
        listing.remarks.append(f'{counted(background, "image")} without a LabelMe file: background')
    parts, left_out = by_folders(images, root)
    listing.remarks += [left_out] if left_out else []
    for part, entries in parts.items():
        listing.parts[part] = [pictures.get(image, Picture(image)) for image in entries]
        listing.findings += add_sizes(listing.parts[part])
    number = {name: label for label, name in enumerate(listing.classes)}
    for picture, source, shapes in named:
        _add_things(picture, source, shapes, number, listing)
    if all(shape.get('shape_type') == 'rectangle' for _, _, shapes in named for _, shape in shapes):
        for picture in pictures.values():  # boxes are no masks
            for thing in picture.things:
                thing.polygons = None
    return listing


def _image_of(path: Path, content: dict, root: Path, by_stem: dict[str, Path]) -> Path | None:
    """The image that a file names, or that has its name."""
    name = str(content.get('imagePath') or '').replace('\\', '/')
    places = [path.parent / name, path.parent / PurePosixPath(name).name] if name else []
    for place in places:
        if place.is_file() and Path(place).resolve().is_relative_to(root.resolve()):
            return root / place.resolve().relative_to(root.resolve())
    near = by_stem.get(path.with_suffix('').as_posix())
    if near is None:  # files in a folder of their own
        same = [image for stem, image in by_stem.items() if PurePosixPath(stem).name == path.stem]
        near = same[0] if len(same) == 1 else None
    return near


def _shapes(path: Path, shapes: list, listing: Listing) -> list[tuple[str, Any]]:
    """Label and shape, numbered, of those that are objects."""
    found = []
    for count, shape in enumerate(shapes, 1):
        label = ' '.join(str(shape.get('label') or '').split()) if isinstance(shape, dict) else ''
        if not label:
            where = f'{path}: shape {count}'
            listing.findings.append(Finding(rules.NO_NAME, where, 'no label', leave_out='annotation'))
        elif label not in NO_CLASSES:
            found.append((label, {**shape, 'number': count}))
    return found


def _add_things(
    picture: Picture, source: str, shapes: list[tuple[str, Any]], number: dict[str, int], listing: Listing
) -> None:
    """Add the objects to a picture whose size is known."""
    groups: dict[Any, Thing] = {}
    for label, shape in shapes:
        where = f'{source}: shape {shape["number"]}'
        if label not in number:
            expected = f'one of {listed(listing.classes, 8)}'
            finding = Finding(rules.CLASS_BEYOND, where, repr(label), leave_out='annotation', expected=expected)
            listing.findings.append(finding)
            continue
        try:
            thing = _thing(shape, number[label], where, picture.wh)
        except (ValueError, TypeError, KeyError, IndexError, OSError) as error:
            finding = Finding(rules.NO_SHAPE, f'{where} ({label})', str(error), leave_out='annotation')
            listing.findings.append(finding)
            continue
        group = (label, shape.get('group_id'))
        one = groups.get(group) if group[1] is not None else None
        if one and isinstance(one.polygons, list) and isinstance(thing.polygons, list):
            one.polygons += thing.polygons
            one.box = box_of(one.polygons)
        else:
            groups[group] = thing
            picture.things.append(thing)


def _thing(shape: dict, label: int, where: str, wh: tuple[int, int]) -> Thing:
    """The object of a shape.

    Raises:
        ValueError: it has no area.
    """
    kind = str(shape.get('shape_type') or 'polygon')
    points = [(float(x), float(y)) for x, y in shape['points']]
    if not all(math.isfinite(value) for point in points for value in point):
        raise ValueError('points that are no finite numbers')
    if kind == 'mask':
        return _mask(shape, points, label, where, wh)
    if kind == 'circle' and len(points) == 2:
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        angles = [2 * math.pi * i / CORNERS_OF_CIRCLE for i in range(CORNERS_OF_CIRCLE)]
        points = [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]
    elif kind == 'rectangle' and len(points) == 2:
        (x1, y1), (x2, y2) = points
        points = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    elif kind not in ('polygon', 'rectangle', 'oriented_rectangle', 'rotation') or len(points) < 3:
        raise ValueError(f'a {kind} of {counted(len(points), "point")}')
    polygon = [value for point in points for value in point]
    return Thing(label, box_of([polygon]), where, [polygon])


def _mask(shape: dict, points: list[tuple[float, float]], label: int, where: str, wh: tuple[int, int]) -> Thing:
    """A mask that is given as a PNG in the place of its first corner."""
    from pycocotools import mask as coco_mask

    with Image.open(io.BytesIO(base64.b64decode(shape['mask']))) as image:
        inside = np.asarray(image) > 0
    (x, y), (width, height) = points[0], wh
    left, top = round(x), round(y)
    whole = np.zeros((height, width), np.uint8, order='F')
    part = whole[top : top + inside.shape[0], left : left + inside.shape[1]]
    part[:] = inside[: part.shape[0], : part.shape[1]]
    if not whole.any():
        raise ValueError('a mask without a pixel')
    rle = coco_mask.encode(whole)
    box = [float(value) for value in coco_mask.toBbox(rle)]
    segmentation = {'size': [height, width], 'counts': rle['counts'].decode(), 'area': float(coco_mask.area(rle))}
    return Thing(label, (box[0], box[1], box[2], box[3]), where, segmentation)
