"""What can be an image: files, folders, patterns, URLs, pictures in memory, videos and cameras."""

import glob
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image

from vitdense.names import listed
from vitdense.untrusted.files import check_regular, read_regular

from .decoding import ImageError, decode, from_array, from_pillow, from_tensor

IMAGES = ('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.dib', '.tif', '.tiff', '.webp', '.gif', '.ppm', '.pgm',
          '.pbm', '.pnm', '.jp2', '.avif')  # fmt: skip
VIDEOS = ('.mp4', '.m4v', '.avi', '.mov', '.mkv', '.webm', '.mpg', '.mpeg', '.wmv', '.flv', '.ts', '.3gp')
STREAMS = ('rtsp', 'rtmp', 'rtp', 'udp', 'tcp')
TIMEOUT = 30
"""Seconds that a server has for each part of its answer."""

LONGEST = 600
"""Seconds that it has for all of it."""

LARGEST = 2**29
"""Bytes of an answer."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        path: file, URL, or what else it came from; ``image_0``, ``image_1``, ... for pictures in memory.
        number: of the frame of a video or camera, from 0; ``None`` for images.
    """

    image: np.ndarray
    path: str
    number: int | None = None


@dataclass(frozen=True, eq=False)
class Origin:
    """Something with one picture, or with many: a video.

    Attributes:
        path: see :class:`Frame`.
        value: what to read: a file, a URL, the number of a camera, or a picture in memory.
        is_video: whether it has many.
    """

    path: str
    value: Any
    is_video: bool = False

    def read(self) -> np.ndarray:
        """The picture, (H, W, 3) uint8 BGR.

        Raises:
            ImageError: it is none.
        """
        if isinstance(self.value, str):
            return decode(_content(self.value), self.path)
        try:
            if isinstance(self.value, Image.Image):
                return from_pillow(self.value)
            return from_array(self.value) if isinstance(self.value, np.ndarray) else from_tensor(self.value)
        except ImageError as error:
            raise ImageError(f'{self.path}: {error}') from None

    def frames(self) -> Iterator[Frame]:
        """All pictures of a video, or of a camera until it is switched off.

        Raises:
            ImageError: it cannot be opened, or has none.
            ImportError: OpenCV, which reads videos, is missing.
        """
        with opened_video(self.value, self.path) as video:
            number = -1
            for number, image in enumerate(_images_of(video)):
                yield Frame(image, self.path, number)
            if number < 0:
                raise ImageError(f'{self.path} cannot be read: no video, or one without pictures')


@contextmanager
def opened_video(value: str | int, name: str) -> Iterator[Any]:
    """A ``cv2.VideoCapture`` of a file, a URL or a camera, released afterwards.

    Raises:
        ImageError: it cannot be opened.
        ImportError: OpenCV is missing.
    """
    try:
        import cv2
    except ImportError:
        raise ImportError('videos and cameras need OpenCV: pip install opencv-python-headless') from None
    if isinstance(value, str) and '://' not in value:
        try:
            check_regular(value)
        except OSError as error:
            raise ImageError(f'{name} cannot be opened: {error.strerror}') from None
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')  # silent, as is OpenCV now: the error below says it
    level = cv2.setLogLevel(0)
    video = cv2.VideoCapture(value)
    cv2.setLogLevel(level)
    try:
        if not video.isOpened():
            what = 'there is no such camera' if isinstance(value, int) else 'it is no video that OpenCV can read'
            raise ImageError(f'{name} cannot be opened: {what}')
        yield video
    finally:
        video.release()


def _images_of(video: Any) -> Iterator[np.ndarray]:
    while True:
        there, image = video.read()
        if not there:
            return
        yield image


def find(source: Any) -> Iterator[Origin]:
    """What a source consists of; nothing is read yet, but folders and patterns are looked through.

    Args:
        source: a path of an image or video; a folder, whose images and videos are taken, those in its folders as well;
            a pattern such as ``photos/*.jpg``; a URL; a picture of Pillow; an array (H, W, 3), BGR as everywhere in
            OpenMMLab, or (H, W) or (H, W, 4); a tensor (C, H, W), RGB as in torchvision, or (B, C, H, W); the number of
            a camera; or any iterable of these.

    Raises:
        FileNotFoundError: no such file or folder, or nothing goes with the pattern.
        ValueError: a folder without images.
        TypeError: something else.
    """
    yield from _find(source, count())


def _find(source: Any, numbers: Iterator[int]) -> Iterator[Origin]:
    if isinstance(source, str | os.PathLike):
        yield from _named(os.fspath(source))
    elif isinstance(source, Image.Image):
        yield Origin(getattr(source, 'filename', '') or f'image_{next(numbers)}', source)
    elif (isinstance(source, np.ndarray) or hasattr(source, 'is_floating_point')) and source.ndim != 4:
        yield Origin(f'image_{next(numbers)}', source)
    elif isinstance(source, int | np.integer) and not isinstance(source, bool):
        yield Origin(f'camera {source}', int(source), True)
    elif isinstance(source, Iterable) and not isinstance(source, bytes | Mapping):
        for one in source:
            yield from _find(one, numbers)
    else:
        raise TypeError(
            f'{type(source).__name__} is no source of images: expected a path, a URL, a picture, an array, a tensor, '
            'the number of a camera, or an iterable of these'
        )


def _named(name: str) -> Iterator[Origin]:
    scheme = urlparse(name).scheme
    if scheme in ('http', 'https', *STREAMS):
        yield Origin(name, name, scheme in STREAMS or urlparse(name).path.lower().endswith(VIDEOS))
        return
    path = Path(name.removeprefix('file://')).expanduser()
    if path.is_dir():
        yield from _folder(path)
    elif path.is_file():
        yield Origin(name, str(path), path.suffix.lower() in VIDEOS)
    elif any(sign in name for sign in '*?['):
        root = next(folder for folder in path.parents if folder.is_dir())  # whose name may have such signs
        pattern = str(Path(glob.escape(str(root))) / path.relative_to(root))
        found = sorted(file for file in glob.glob(pattern, recursive=True) if os.path.isfile(file))
        if not found:
            raise FileNotFoundError(f'no file goes with the pattern {name!r}')
        yield from (Origin(file, file, file.lower().endswith(VIDEOS)) for file in found)
    else:
        raise FileNotFoundError(f'there is no image, video or folder {name!r}')


def _folder(path: Path) -> Iterator[Origin]:
    files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names if not name.startswith('.')]
    found = sorted(file for file in files if file.suffix.lower() in IMAGES + VIDEOS)
    if not found:
        there = listed(sorted(file.name for file in files), 3) or 'nothing'
        raise ValueError(f'the folder {str(path)!r} has no images: there is {there}')
    yield from (Origin(str(file), str(file), file.suffix.lower() in VIDEOS) for file in found)


def _content(name: str) -> bytes:
    try:
        if urlparse(name).scheme in ('http', 'https'):
            with urlopen(Request(name, headers={'User-Agent': 'vitdense'}), timeout=TIMEOUT) as answer:
                return _received(answer, name)
        return read_regular(name)
    except (URLError, OSError) as error:
        reason = getattr(error, 'strerror', None) or getattr(error, 'reason', None) or error
        raise ImageError(f'{name} cannot be read: {reason}') from None


def _received(answer: Any, name: str) -> bytes:
    """All that a server sends, if it is not too much and does not take too long."""
    end, content = time.monotonic() + LONGEST, bytearray()
    while part := answer.read1(2**16):
        content += part
        if len(content) > LARGEST:
            raise ImageError(f'{name} cannot be read: it has more than {LARGEST} bytes')
        if time.monotonic() > end:
            raise ImageError(f'{name} cannot be read: after {LONGEST} seconds it has not ended')
    return bytes(content)
