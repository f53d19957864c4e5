"""What a file of annotations may ask for: the number and size of things, and where they lie."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from vitdense.findings import Finding
from vitdense.untrusted.files import outside
from vitdense.untrusted.pictures import most_pixels

from . import rules
from .coco_file import CocoFile

MOST_OBJECTS = 20_000
"""Of an image; the most crowded data sets, of heads, have 25 000 in a few."""


def elsewhere(dataset: Any, paths: Iterable[str]) -> list[Finding]:
    """A remark on images that lie outside of all folders that the config names; links are not followed."""
    prefixes = [prefix for prefix in dataset.data_prefix.values() if isinstance(prefix, str)]
    folders = [dataset.data_root, *prefixes, os.path.dirname(dataset.ann_file or '')]
    roots = [os.path.abspath(folder) for folder in folders if folder]
    begins = tuple(f'{folder.rstrip("/")}/' for folder in folders if folder)
    far = [path for path in paths if '..' in path or not path.startswith(begins)]
    far = [path for path in far if outside(path, roots or [os.getcwd()])]
    return [Finding(rules.ELSEWHERE, far[0], f'{len(far)} in all', False)] if far else []


def crowded(file: CocoFile) -> list[Finding]:
    """Images with more objects, or more pixels, than anything can work with, by their place in the file."""
    counts = np.bincount(file.image_of + 1, minlength=len(file.images) + 1)[1:]
    with np.errstate(invalid='ignore', over='ignore'):
        pixels = file.wh.prod(1) if len(file.wh) else np.empty(0)
    found = [
        Finding(rules.TOO_MANY, _name(file, i), f'{counts[i]} objects', True, 'image', i)
        for i in np.flatnonzero(counts > MOST_OBJECTS).tolist()
    ]
    return found + [
        Finding(rules.TOO_LARGE, _name(file, i), '{:.0f} x {:.0f}'.format(*file.wh[i]), True, 'image', i)
        for i in np.flatnonzero(pixels > most_pixels()).tolist()
    ]


def _name(file: CocoFile, image: int) -> str:
    return f'image {file.images[image].get("id")!r} ({file.images[image].get("file_name")})'
