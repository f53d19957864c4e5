"""Opening image files as the pipeline would."""

import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import mmcv
import numpy as np
from PIL import Image, UnidentifiedImageError
from rich.progress import track

from vitdense.console import CONSOLE
from vitdense.findings import Finding
from vitdense.registry import bare_type

from . import rules

T = TypeVar('T')
ORIENTATION = 0x0112
PLAIN_FORMATS = ('JPEG', 'PNG')  # of which PIL loads nothing that OpenCV does not


@dataclass(frozen=True)
class Loader:
    """How the pipeline decodes images: arguments of ``mmcv.imfrombytes``."""

    flag: str = 'color'
    backend: str | None = 'cv2'

    def decode(self, content: bytes) -> np.ndarray:
        """Image (H, W) or (H, W, C).

        Raises:
            ValueError: it cannot be decoded.
        """
        image = mmcv.imfrombytes(content, flag=self.flag, backend=self.backend)
        if image is None:
            raise ValueError(f'{self.backend} cannot decode it')
        return image


@dataclass(frozen=True)
class Picture:
    """One opened image file.

    Attributes:
        path: the file.
        error: why it cannot be used, or ''.
        digest: hash of its content.
        stored_wh: width and height in the file.
        loaded_wh: width and height as loaded, after what EXIF says about turning.
        orientation: of EXIF; 1 is upright.
        turns: whether the loader goes by EXIF.
    """

    path: str
    error: str = ''
    digest: str = ''
    stored_wh: tuple[int, int] = (0, 0)
    loaded_wh: tuple[int, int] = (0, 0)
    orientation: int = 1
    turns: bool = False


def find_loader(pipeline: Sequence[Any]) -> Loader | None:
    """The loader of a pipeline config, ``None`` if it is one that this module does not know."""
    kinds = {bare_type(step): step for step in pipeline if isinstance(step, dict)}
    if 'LoadImageFromFile' in kinds:
        step = kinds['LoadImageFromFile']
        loader = Loader(step.get('color_type', 'color'), step.get('imdecode_backend', 'cv2'))
        return None if loader.backend == 'tifffile' else loader
    return None if any(kind.startswith('Load') and 'Image' in kind for kind in kinds) else Loader()


def look(path: str, loader: Loader) -> Picture:
    """Open a file and decode it whole (JPEG at an eighth of its size, which finds a missing end as well)."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        return Picture(path, f'cannot be read: {error.strerror}')
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    if not content:
        return Picture(path, 'is empty', digest)
    try:
        with Image.open(io.BytesIO(content)) as image:
            stored, kind = image.size, image.format
            orientation = image.getexif().get(ORIENTATION, 1)
            image.draft('L', (max(1, stored[0] // 8), max(1, stored[1] // 8)))
            image.load()
        if kind == 'PNG' and not 0 <= content.rfind(b'IEND') <= len(content) - 8:  # OpenCV insists on it, PIL does not
            raise OSError('the end is missing')
        if orientation not in range(1, 9):
            orientation = 1
    except UnidentifiedImageError:
        stored, kind, orientation = None, '', 1
    except Exception as error:  # decoders raise whatever they like
        return Picture(path, f'is truncated or damaged: {error}', digest)
    loaded = stored
    if orientation != 1 or kind not in PLAIN_FORMATS:
        try:
            loaded = loader.decode(content).shape[1::-1]
        except Exception as error:
            return Picture(path, f'is no image that the pipeline can load: {error}', digest)
    turns = loader.backend in (None, 'cv2', 'pillow') and loader.flag in ('color', 'grayscale')
    return Picture(path, '', digest, tuple(stored or loaded), tuple(loaded), orientation, turns)


def size_fault(picture: Picture, wh: tuple[int, int], what: str) -> tuple[str, str, bool] | None:
    """Compare an image with the size that its annotations have: kind, message and whether it is fatal, or ``None``.

    Args:
        wh: width and height as annotated.
        what: what has this size, e.g. 'the json'.
    """
    width, height = picture.loaded_wh
    said = f'{what} says {wh[0]} x {wh[1]}'
    is_turned = picture.orientation != 1 and picture.turns
    if picture.loaded_wh != wh and not (is_turned and picture.loaded_wh == wh[::-1]):
        return rules.WRONG_SIZE, f'it is {width} x {height}, {said}', True
    if not is_turned:
        return None
    exif = f'EXIF orientation {picture.orientation} turns it when it is loaded'
    if picture.loaded_wh != wh:
        message = f'{exif} to {width} x {height}, {said}: the labels are those of the unturned image'
        return rules.TURNED, message, True
    if picture.loaded_wh == picture.stored_wh:
        message = f'{exif} and nothing tells whether the labels are those of the turned image; save it upright'
        return rules.TURNED, message, True
    return rules.TURNED, f'{exif} to {width} x {height}, which is what {what} says', False


def missing_files(paths: Sequence[str]) -> set[str]:
    """Those of ``paths`` that are not there, by one listing of each folder."""
    folders = defaultdict(list)
    for path in paths:
        folder, name = os.path.split(path)
        folders[folder].append((name, path))
    missing: set[str] = set()
    for folder, entries in folders.items():
        try:
            there = set(os.listdir(folder or '.'))
        except OSError:
            there = set()
        missing.update(path for name, path in entries if name not in there)
    return missing


def in_threads(work: Callable[[Any], T], items: Sequence[Any], title: str) -> Iterator[T]:
    """Results of ``work`` in the order of ``items``, with a progress bar on a terminal."""
    with _huge_images(), ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        shown = CONSOLE.is_interactive
        yield from track(
            pool.map(work, items), title, total=len(items), console=CONSOLE, transient=True, disable=not shown
        )


@contextmanager
def _huge_images() -> Iterator[None]:
    """Let PIL open what OpenCV opens, up to 2**30 pixels."""
    most, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, 2**30
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = most


def spread(items: Sequence[T], most: int | None) -> list[T]:
    """At most this many of ``items``, evenly spread; ``None`` is all."""
    if most is None or len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def same_pictures(pictures: Sequence[Picture]) -> list[Finding]:
    """A remark for each picture whose content another file before it has."""
    files: dict[str, dict[str, None]] = defaultdict(dict)
    for picture in pictures:
        if not picture.error:
            files[picture.digest].setdefault(picture.path)
    return [
        Finding(rules.SAME_PICTURE, other, f'the content is that of {paths[0]}', False)
        for paths in map(list, files.values())
        for other in paths[1:]
    ]
