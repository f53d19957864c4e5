"""Images with their objects, as the readers of all formats list them."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from vitdense.findings import Finding
from vitdense.untrusted.files import check_regular, read_regular
from vitdense.untrusted.pictures import check_pixels

from . import rules

SUFFIXES = frozenset(
    [
        *('.jpg', '.jpeg', '.jpe', '.jp2', '.png', '.bmp', '.tif', '.tiff'),
        *('.webp', '.ppm', '.pgm', '.pbm', '.gif'),
    ]
)
"""Of images, in small letters."""

ORIENTATION = 0x0112
WHOLE = ''
"""Name of the part of data that are not divided."""


@dataclass
class Thing:
    """An object.

    Attributes:
        label: number of its class.
        box: x, y, width and height in pixels.
        source: file, and line or place in it.
        polygons: of its mask, each x1, y1, x2, y2, ... in pixels; or RLE as in COCO with its ``area``; ``None``
            without a mask.
        crowd: neither to be learned nor a mistake when it is found.
    """

    label: int
    box: tuple[float, float, float, float]
    source: str
    polygons: list[list[float]] | dict[str, Any] | None = None
    crowd: bool = False


@dataclass
class Picture:
    """An image with its objects; ``wh`` is the size of the upright image, (0, 0) while it is unknown."""

    path: Path
    wh: tuple[int, int] = (0, 0)
    things: list[Thing] = field(default_factory=list)


@dataclass
class Listing:
    """Data as a reader found them.

    Attributes:
        classes: names; the number of an object's class is an index into them.
        parts: images of 'train', 'val' and 'test'; or all of them as ``WHOLE``.
        findings: what is wrong.
        remarks: what is worth to be said.
    """

    classes: tuple[str, ...]
    parts: dict[str, list[Picture]]
    findings: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def files_below(folder: Path, suffixes: Iterable[str] = SUFFIXES) -> list[Path]:
    """Files with these suffixes, capitals or not, below a folder in the order of their paths; no hidden ones."""
    suffixes = tuple(suffixes)
    found: list[Path] = []
    visited: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:  # a link to a folder above
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [name for name in folders if not name.startswith(('.', '__MACOSX'))]
        chosen = [Path(place, name) for name in names if name.lower().endswith(suffixes) and name[0] != '.']
        found += filter(Path.is_file, chosen)  # neither devices nor pipes
    return sorted(found, key=lambda path: path.as_posix())


def lines_of(path: Path) -> list[str]:
    """Lines of a list of names, which are those of files, whatever their encoding."""
    return [line.strip() for line in read_regular(path).decode('utf-8-sig', 'surrogateescape').splitlines()]


def upright_wh(path: Path) -> tuple[int, int]:
    """Width and height of an image as it is loaded, after what EXIF says about turning.

    Raises:
        OSError: PIL does not know the file, or it is none.
        TooLargeError: it has too many pixels.
    """
    check_regular(path)
    with Image.open(path) as image:
        width, height = image.size
        check_pixels(width, height)
        turned = 1
        if image.format in ('JPEG', 'MPO', 'TIFF', 'WEBP'):
            with suppress(Exception):  # a damaged header is no EXIF
                turned = image.getexif().get(ORIENTATION, 1)
    return (height, width) if turned in (5, 6, 7, 8) else (width, height)


@contextmanager
def large_images() -> Iterator[None]:
    """Within it, PIL opens images of any size; only their headers are read."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def add_sizes(pictures: list[Picture]) -> list[Finding]:
    """Look up the sizes that are not known; images without are taken out of the list, and told."""
    findings = []

    def look(picture: Picture) -> str:
        if all(picture.wh):
            return ''
        try:
            picture.wh = upright_wh(picture.path)
        except Exception as error:  # decoders raise whatever they like
            return f'{type(error).__name__}: {error}'
        return ''

    with large_images(), ThreadPoolExecutor() as threads:
        for picture, fault in zip(pictures, list(threads.map(look, pictures)), strict=True):
            if fault:
                findings.append(Finding(rules.NO_SIZE, str(picture.path), fault, leave_out='image'))
    pictures[:] = [picture for picture in pictures if all(picture.wh)]
    return findings


def box_of(polygons: list[list[float]]) -> tuple[float, float, float, float]:
    """x, y, width and height of what polygons enclose."""
    xs = [x for polygon in polygons for x in polygon[::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def area_of(polygons: list[list[float]]) -> float:
    """Area of polygons, by the shoelace formula."""
    return sum(abs(sum(_cross(polygon))) / 2 for polygon in polygons)


def _cross(polygon: list[float]) -> Iterator[float]:
    points = list(zip(polygon[::2], polygon[1::2], strict=True))
    for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True):
        yield x1 * y2 - x2 * y1


def as_coco(pictures: list[Picture], classes: tuple[str, ...], root: Path) -> dict[str, list[dict]]:
    """The content of a COCO file: ids count from 1 in the order of the images and of their objects.

    Boxes and polygons are rounded to a hundredth of a pixel, as in COCO's own files. ``source`` of an annotation is
    where it comes from.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures, 1):
        width, height = picture.wh
        images.append(dict(id=number, file_name=relative(picture.path, root), width=width, height=height))
        for thing in picture.things:
            box = [round(value, 2) for value in thing.box]
            one: dict[str, Any] = dict(id=len(annotations) + 1, image_id=number, category_id=thing.label + 1, bbox=box)
            one |= dict(area=round(box[2] * box[3], 4), iscrowd=int(thing.crowd), source=thing.source)
            if isinstance(thing.polygons, list):
                one['segmentation'] = [[round(value, 2) for value in polygon] for polygon in thing.polygons]
                one['area'] = round(area_of(thing.polygons), 2)
            elif thing.polygons:
                rle = dict(thing.polygons)
                one |= dict(area=rle.pop('area'), segmentation=rle)
            annotations.append(one)
    categories = [dict(id=number, name=name) for number, name in enumerate(classes, 1)]
    return dict(images=images, annotations=annotations, categories=categories)


def relative(path: Path, root: Path) -> str:
    """A path below ``root`` from there, another one whole."""
    path = Path(os.path.normpath(path.absolute()))
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
