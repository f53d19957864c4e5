"""Opening image files as the pipeline would."""

import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import mmcv
import numpy as np
from PIL import Image
from rich.progress import track

from vitdense.console import CONSOLE
from vitdense.findings import Finding
from vitdense.registry import bare_type
from vitdense.untrusted.files import NoFileError, check_regular, read_regular
from vitdense.untrusted.pictures import TooLargeError, check_pixels

from . import rules

T = TypeVar('T')
ORIENTATION = 0x0112
ENOUGH_LEVELS = 64
"""Of 256: fewer are left of pictures whose values use a small part of their 16 bits."""


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
        deep: lowest and highest value in a file of more than 8 bits a channel, and as loaded; empty for others.
    """

    path: str
    error: str = ''
    digest: str = ''
    stored_wh: tuple[int, int] = (0, 0)
    loaded_wh: tuple[int, int] = (0, 0)
    orientation: int = 1
    turns: bool = False
    deep: tuple[float, ...] = ()


def find_loader(pipeline: Sequence[Any]) -> Loader | None:
    """The loader of a pipeline config, ``None`` if it is one that this module does not know."""
    kinds = {bare_type(step): step for step in pipeline if isinstance(step, dict)}
    if 'LoadImageFromFile' in kinds:
        step = kinds['LoadImageFromFile']
        loader = Loader(step.get('color_type', 'color'), step.get('imdecode_backend', 'cv2'))
        return None if loader.backend == 'tifffile' else loader
    return None if any(kind.startswith('Load') and 'Image' in kind for kind in kinds) else Loader()


def look(path: str, loader: Loader) -> Picture:
    """Open a file and decode it as the pipeline does.

    JPEG is decoded by PIL at an eighth of its size, which costs a tenth and finds a missing end; OpenCV fills it with
    grey and says nothing.
    """
    try:
        content = read_regular(path)
    except NoFileError as error:
        return Picture(path, error.what)
    except OSError as error:
        return Picture(path, f'cannot be read: {error.strerror}')
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    if not content:
        return Picture(path, 'is empty', digest)
    stored, kind, orientation = (0, 0), 'JPEG' if content.startswith(b'\xff\xd8') else '', 1
    with suppress(Exception), Image.open(io.BytesIO(content)) as image:  # what PIL cannot read the loader may
        stored, kind = image.size, image.format or ''
        orientation = image.getexif().get(ORIENTATION, 1)
    try:
        check_pixels(*stored)
    except TooLargeError as error:
        return Picture(path, str(error), digest)
    if orientation not in range(1, 9):
        orientation = 1
    if kind == 'JPEG':
        try:
            _decode_small(content)
        except Exception as error:  # decoders raise whatever they like
            return Picture(path, f'is truncated or damaged: {error}', digest)
        if orientation == 1:
            return Picture(path, '', digest, stored, stored)
    try:
        loaded = loader.decode(content)
    except Exception as error:
        return Picture(path, f'is truncated, damaged or no image: {error}', digest)
    wh = loaded.shape[1::-1]
    turns = loader.backend in (None, 'cv2', 'pillow') and loader.flag in ('color', 'grayscale')
    return Picture(path, '', digest, stored if kind else wh, wh, orientation, turns, _depth(content, kind, loaded))


def _decode_small(content: bytes) -> None:
    with Image.open(io.BytesIO(content)) as image:
        image.draft('L', (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()


def _depth(content: bytes, kind: str, loaded: np.ndarray) -> tuple[float, ...]:
    """Range of the values in a file whose depth the loading has cut, and their range as loaded; else empty."""
    if loaded.dtype != np.uint8 or kind == 'JPEG' or (kind == 'PNG' and content[24] <= 8):
        return ()
    raw = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.dtype == np.uint8:
        return ()
    return tuple(float(value) for value in (raw.min(), raw.max(), loaded.min(), loaded.max()))


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


def missing_files(paths: Sequence[str]) -> dict[str, str]:
    """Those of ``paths`` that are no files, and what is there, '' for nothing; by one listing of each folder."""
    folders = defaultdict(list)
    for path in paths:
        folder, name = os.path.split(path)
        folders[folder].append((name, path))
    missing: dict[str, str] = {}
    for folder, entries in folders.items():
        there: dict[str, bool] = {}
        with suppress(OSError), os.scandir(folder or '.') as listing:
            there = {entry.name: _is_file(entry) for entry in listing}
        missing.update((path, _what_is(path)) for name, path in entries if not there.get(name))
    return missing


def _is_file(entry: os.DirEntry) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _what_is(path: str) -> str:
    """What is at a path in the place of a file, '' for nothing."""
    try:
        check_regular(path)
    except NoFileError as error:
        return error.what
    except (OSError, ValueError):
        return ''
    return 'is a folder' if os.path.isdir(path) else ''


def in_threads(work: Callable[[Any], T], items: Sequence[Any], title: str) -> Iterator[T]:
    """Results of ``work`` in the order of ``items``, with a progress bar on a terminal."""
    with _huge_images(), ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        shown = CONSOLE.is_interactive
        yield from track(
            pool.map(work, items), title, total=len(items), console=CONSOLE, transient=True, disable=not shown
        )


@contextmanager
def _huge_images() -> Iterator[None]:
    """Let PIL open what OpenCV opens; :func:`look` has the same limit for both."""
    most, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = most


def spread(items: Sequence[T], most: int | None) -> list[T]:
    """At most this many of ``items``, evenly spread; ``None`` is all."""
    if most is None or len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def compare_pictures(pictures: Sequence[Picture]) -> list[Finding]:
    """What the opened pictures of a data set have in common: depth, and the same content."""
    return _deep_pictures(pictures) + same_pictures(pictures)


def _deep_pictures(pictures: Sequence[Picture]) -> list[Finding]:
    """One finding about all pictures of more than 8 bits, fatal if few of their levels are left."""
    deep = [picture for picture in pictures if picture.deep]
    if not deep:
        return []
    low, high, dark, light = np.array([picture.deep for picture in deep]).T
    message = (
        f'{len(deep)} of {len(pictures)} opened images have 16 bits or more, and the pipeline makes 8 of them: '
        f'{low.min():g} to {high.max():g} become {dark.min():g} to {light.max():g}'
    )
    return [Finding(rules.DEPTH, deep[0].path, message, bool(light.max() - dark.min() < ENOUGH_LEVELS))]


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
