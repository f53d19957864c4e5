"""A COCO file as columns, and what is wrong with its structure."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain, compress
from operator import itemgetter
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from vitdense.findings import Finding

from ..coco_fields import FLAGS, categories_by_name, flag, is_id, parse
from ..garbage import no_collection
from . import rules
from .official import is_official


class FileFault(ValueError):
    """Nothing of the file can be used."""


@dataclass
class CocoFile:
    """Images (I), annotations (A) and categories (K) of a COCO file.

    Attributes:
        path: the file.
        images, annotations, categories: the dicts of the file; those with missing fields are in ``findings``.
        official: whether it is a file of the COCO release.
        wh: (I, 2) width and height, NaN where they are unknown.
        image_of: (A,) index of the image of each annotation, -1 for none.
        category_of: (A,) index of its category, -1 for none.
        boxes: (A, 4) xywh in pixels, NaN where ``malformed``.
        malformed: (A,) whether a box is not four numbers.
        areas: (A,) NaN where there is none.
        crowd, ignored: (A,) flags.
        unreadable: (A,) whether one of these says neither yes nor no.
        names: (K,) of the categories.
        findings: faults of the structure.
    """

    path: str | Path
    images: list[dict]
    annotations: list[dict]
    categories: list[dict]
    official: bool
    wh: np.ndarray = field(init=False)
    image_of: np.ndarray = field(init=False)
    category_of: np.ndarray = field(init=False)
    boxes: np.ndarray = field(init=False)
    malformed: np.ndarray = field(init=False)
    areas: np.ndarray = field(init=False)
    crowd: np.ndarray = field(init=False)
    ignored: np.ndarray = field(init=False)
    unreadable: np.ndarray = field(init=False)
    names: list[str] = field(init=False)
    findings: list[Finding] = field(default_factory=list)
    _columns: dict[str, list] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.boxes, self.malformed = _boxes(self.column('bbox'))
        self.areas = _numbers(self.column('area'))
        (self.crowd, no_crowd), (self.ignored, no_ignored) = (_flags(self.column(key)) for key in FLAGS)
        self.unreadable = no_crowd | no_ignored
        self.wh = np.stack([_numbers([image.get(key) for image in self.images]) for key in ('width', 'height')], 1)
        index = self._check_images()
        self.image_of = _lookup(self.column('image_id'), index)
        self.category_of = self._check_categories(self.column('category_id'))
        self.names = [str(category['name']) for category in self.categories]
        self._check_annotation_ids()

    def column(self, key: str) -> list:
        """A field of all annotations, ``None`` where it is missing."""
        if key not in self._columns:
            try:
                self._columns[key] = list(map(itemgetter(key), self.annotations))
            except KeyError:
                self._columns[key] = [annotation.get(key) for annotation in self.annotations]
        return self._columns[key]

    def name(self, annotation: int) -> str:
        """Annotation and image, for people; of a converted file, where the annotation was written."""
        found = self.annotations[annotation]
        if isinstance(found.get('source'), str):
            return found['source']
        image = self.image_of[annotation]
        file = f' ({self.images[image]["file_name"]})' if image >= 0 else ''
        return f'annotation {found.get("id")!r} of image {found.get("image_id")!r}{file}'

    def about(
        self,
        kind: str,
        mask: np.ndarray,
        message: Callable[[int], str],
        leave_out: str = 'annotation',
        fatal: bool = True,
    ) -> None:
        """Note a finding for each annotation of ``mask`` (A,), with ``message(annotation index)``."""
        self.findings += [
            Finding(kind, self.name(i), message(i), fatal, leave_out if fatal else '', i)
            for i in np.flatnonzero(mask).tolist()
        ]

    def left_by(self, leave_out: str) -> np.ndarray:
        """Mask of the annotations or images that no fatal finding of this ``leave_out`` speaks of."""
        mask = np.ones(len(self.annotations if leave_out == 'annotation' else self.images), bool)
        mask[[finding.index for finding in self.findings if finding.fatal and finding.leave_out == leave_out]] = False
        return mask

    def _check_categories(self, ids: list) -> np.ndarray:
        """Index of the category of each annotation; categories that share a name with one in use are left out."""
        used = {value for value in ids if is_id(value)}
        by_name = categories_by_name(self.categories, used)
        again = [one for one in self.categories if by_name[str(one['name'])] is not one]
        for category in again:
            name, kept = category['name'], by_name[str(category['name'])]['id']
            if category['id'] in used:
                raise FileFault(f'{self.path}: annotations have several categories of the name {name!r}')
            where, what = f'category {category["id"]!r} ({name})', f'category {kept!r} has the same name'
            self.findings.append(Finding(rules.SAME_CATEGORY, where, what, False))
        self.categories = [one for one in self.categories if not any(one is other for other in again)]
        return _lookup(ids, {category['id']: k for k, category in enumerate(self.categories)})

    def _check_images(self) -> dict:
        """Index of the image that has an id; faults of the images are noted."""
        index: dict = {}
        files: dict = {}
        files_of = defaultdict(list)
        for image in self.images:
            if is_id(image.get('id')):
                files_of[image['id']].append(image.get('file_name'))
        sized = (np.isfinite(self.wh) & (self.wh > 0)).all(1)
        for i, image in enumerate(self.images):
            identity, file = image.get('id'), image.get('file_name')
            where = f'image {identity!r} ({file})'
            if not is_id(identity) or not isinstance(file, str) or not file or not sized[i]:
                found = {key: image.get(key) for key in ('id', 'file_name', 'width', 'height')}
                self.findings.append(Finding(rules.NO_FIELDS, where, str(found), True, 'image', i))
                self.wh[i] = np.nan
                if is_id(identity):
                    index.setdefault(identity, i)  # its annotations are not to blame
                continue
            first = index.setdefault(identity, i)
            same = files_of[identity]
            if len(same) > 1 and (first != i or any(other != file for other in same)):  # whose are the annotations?
                message = f'{len(same)} images have this id'
                self.findings.append(Finding(rules.SAME_IMAGE_ID, where, message, True, 'image', i))
            elif files.setdefault(file, i) != i:
                message = f'the file is that of image {self.images[files[file]]["id"]!r} as well'
                self.findings.append(Finding(rules.SAME_FILE_NAME, where, message, True, 'image', i))
        return index

    def _check_annotation_ids(self) -> None:
        ids = self.column('id')
        plain = _kinds(ids) <= {int, str}
        if plain and len(set(ids)) == len(ids):
            return
        usable = np.array([is_id(identity) for identity in ids], bool)
        self.about(rules.NO_ID, ~usable, lambda i: f'id is {ids[i]!r}', 'id')
        first: dict = {}
        again = np.zeros(len(ids), bool)
        again[usable] = [first.setdefault(ids[i], i) != i for i in np.flatnonzero(usable).tolist()]
        self.about(rules.SAME_ID, again, lambda i: f'{self._told(first[ids[i]])} and {self._told(i)}', 'id')

    def _told(self, annotation: int) -> str:
        """Place, image, category and box of an annotation whose id does not tell it."""
        found = self.annotations[annotation]
        return (
            f'annotations[{annotation}] (image {found.get("image_id")!r}, category {found.get("category_id")!r}, '
            f'bbox {str(found.get("bbox"))[:60]})'
        )


@no_collection()
def read_coco(path: str | Path, content: bytes, needs_annotations: bool = True) -> CocoFile:
    """Read the bytes of a COCO file.

    Raises:
        FileFault: it is no json, or no COCO file.
    """
    try:
        data = parse(content)
    except (ValueError, RecursionError) as error:
        raise FileFault(f'{path} is no JSON file: {error}') from None
    no_file = f'{path} is no COCO file, a dict with lists of dicts "images", "annotations", "categories"'
    if not isinstance(data, dict):
        raise FileFault(f'{no_file}: found a {type(data).__name__}')
    if not needs_annotations:
        data.setdefault('annotations', [])
    for key in ('images', 'annotations', 'categories'):
        if key not in data:
            raise FileFault(f'{no_file}: found the keys {sorted(data)[:8]}')
        if not isinstance(data[key], list) or not all(isinstance(entry, dict) for entry in data[key]):
            raise FileFault(f'{no_file}: "{key}" is something else')
    _check_categories(path, data['categories'])
    return CocoFile(path, data['images'], data['annotations'], data['categories'], is_official(data))


def _check_categories(path: str | Path, categories: list[dict]) -> None:
    for category in categories:
        if not is_id(category.get('id')) or type(category.get('name')) not in (str, int, float):
            raise FileFault(f'{path}: a category needs an id and a name, found {category}')
    counts = Counter(category['id'] for category in categories)
    again = [value for value, count in counts.items() if count > 1]
    if again:
        raise FileFault(f'{path}: several categories have the id {again[0]!r}')


def _kinds(values: Iterable) -> set[type]:
    return set(map(type, values))


def _lookup(values: list, index: dict) -> np.ndarray:
    if _kinds(values) <= {int, str}:
        return np.array([index.get(value, -1) for value in values], np.int64)
    return np.array([index.get(value, -1) if is_id(value) else -1 for value in values], np.int64)


def _flags(values: list) -> tuple[np.ndarray, np.ndarray]:
    """Flags as (N,) truth values, and a mask (N,) of those that say neither yes nor no."""
    if _kinds(values) <= {int, bool, float, str, NoneType}:
        said = {value: flag(value) for value in set(values)}
        flags = list(map(said.__getitem__, values))
    else:
        flags = list(map(flag, values))
    return np.array([bool(one) for one in flags], bool), np.array([one is None for one in flags], bool)


def _numbers(values: list) -> np.ndarray:
    """Values as (N,) floats, NaN for what is no number."""
    try:
        if _kinds(values) <= {int, float}:
            return np.array(values, np.float64)
    except OverflowError:
        pass
    return np.array([_number(value) for value in values], np.float64)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return np.nan
    try:
        return float(value)
    except OverflowError:
        return np.inf


def _boxes(values: list) -> tuple[np.ndarray, np.ndarray]:
    """Boxes as (N, 4) floats, and a mask (N,) of those that are not four numbers."""
    lengths = np.array([len(value) if isinstance(value, list) else -1 for value in values], np.int64)
    regular = lengths == 4
    flat = list(chain.from_iterable(compress(values, regular)))
    boxes = np.full((len(values), 4), np.nan)
    boxes[regular] = _numbers(flat).reshape(-1, 4)
    malformed = ~regular
    if not _kinds(flat) <= {int, float}:
        numeric = np.array([type(number) in (int, float) for number in flat], bool).reshape(-1, 4).all(1)
        malformed[np.flatnonzero(regular)[~numeric]] = True
    boxes[malformed] = np.nan
    return boxes, malformed
