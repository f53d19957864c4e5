"""From sources to results: what a model in PyTorch and an exported one have in common."""

import os
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from vitdense.names import unknown

from .decoding import ImageError
from .results import IGNORED, RGB, Result
from .sources import Frame, Origin, find

In = TypeVar('In')
Out = TypeVar('Out')
Failed = Callable[[ImageError], None]
READERS = max(2, min(4, os.cpu_count() or 1))
"""Threads that decode and prepare pictures while the model computes, and as many that draw."""

THRESHOLD = 0.3
"""Lowest score of a detection, as in mmdet's tools."""


class Predictor(ABC):
    """A trained model that takes pictures.

    Attributes:
        names: names of the classes, in the order of the labels.
        palette: their colours.
        task: 'detection', 'instance segmentation', 'panoptic segmentation' or 'semantic segmentation'.
        iou_threshold: from which overlap on two detections of a class are one, where tiles are merged.
        device: where it computes, as PyTorch names it.
        engine: what computes.
    """

    names: tuple[str, ...]
    palette: tuple[RGB, ...]
    task: str
    iou_threshold: float = 0.5
    device: Any = 'cpu'
    engine: str = 'PyTorch'

    @abstractmethod
    def prepare(self, frame: Frame) -> Any:
        """A picture as the model takes it; called in several threads."""

    @abstractmethod
    def infer(self, frames: Sequence[Frame], inputs: Sequence[Any], threshold: float) -> list[Result]:
        """What is in a batch of pictures, each prepared; detections of at least a score, the highest first."""

    def fix_size(self, hw: tuple[int, int]) -> None:
        """Let all pictures be stretched to one height and width, whatever a test makes of them.

        Raises:
            ValueError: the model takes pictures of its own size alone.
        """
        raise ValueError(f'the size of the pictures cannot be changed to {hw[0]} x {hw[1]}')

    def giving_back(self) -> AbstractContextManager[None]:
        """Within it, no memory is kept from one batch for the next."""
        return nullcontext()

    def semantic_scores(self, frames: Sequence[Frame]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Label (H, W) and score (H, W) in [0, 1] of each pixel of a semantic map, for each picture.

        Raises:
            ValueError: the model gives no scores.
        """
        raise ValueError('tile: an exported segmentor gives no scores by which tiles are merged; its work dir does')

    @property
    def map_type(self) -> type:
        """The numbers of a semantic map."""
        return np.uint8 if len(self.names) <= IGNORED else np.int32

    def infer_frames(self, frames: Sequence[Frame], threshold: float) -> list[Result]:
        """What is in a batch of pictures."""
        return self.infer(frames, [self.prepare(frame) for frame in frames], threshold)

    def predict(
        self,
        source: Any,
        threshold: float = THRESHOLD,
        batch_size: int = 1,
        stream: bool = False,
        tile: int | tuple[int, int] | None = None,
        overlap: float = 0.2,
        classes: Collection[str] | None = None,
    ) -> list[Result] | Iterator[Result]:
        """Predict on whatever has pictures.

        Args:
            source: a path of an image or video; a folder, with the folders in it; a pattern such as ``photos/*.jpg``; a
                URL; a picture of Pillow; an array (H, W, 3), **BGR** as everywhere in OpenMMLab, or (H, W) or
                (H, W, 4); a tensor (C, H, W) or (B, C, H, W), RGB as in torchvision; the number of a camera; or a list
                or any other iterable of these. Pictures are seen as a person sees them: turned as EXIF says, of 8 bits,
                in colour, on white.
            threshold: lowest score of a detection.
            batch_size: pictures, or tiles, that the model gets at once.
            stream: return a generator, which holds a batch and what is read ahead in memory, instead of a list.
            tile: side of the tiles, or height and width, in which larger pictures are looked at. Of an object that two
                tiles have, NMS keeps one box, of a pixel the more certain class is taken.
            overlap: share of a tile that the next one covers again.
            classes: names of the classes to return; all by default. Semantic maps are left as they are.

        Returns:
            A :class:`Result` for each picture, in the order of the source.

        Raises:
            FileNotFoundError, TypeError, ValueError: the source is not there or is none, see :func:`.sources.find`; or
                an argument is out of its range.
            ImageError: a picture cannot be read.
        """
        results = self.stream(find(source), threshold, batch_size, tile, overlap, classes)
        return results if stream else list(results)

    def stream(
        self,
        origins: Iterable[Origin],
        threshold: float = THRESHOLD,
        batch_size: int = 1,
        tile: int | tuple[int, int] | None = None,
        overlap: float = 0.2,
        classes: Collection[str] | None = None,
        failed: Failed | None = None,
    ) -> Iterator[Result]:
        """The results of all pictures, one after the other, see :meth:`predict`.

        Args:
            failed: is told of a picture that cannot be read, which is passed over then.

        Raises:
            ImageError: a picture cannot be read, and there is no ``failed``.
        """
        classes = [classes] if isinstance(classes, str) else classes
        self._check(batch_size, tile, overlap, classes)
        if tile is None:
            results = self._batches(origins, threshold, batch_size, failed)
        else:
            results = self._tiled(origins, threshold, batch_size, _sides(tile), overlap, failed)
        return results if classes is None else (result.keep(classes=classes) for result in results)

    def _check(self, batch_size: int, tile: Any, overlap: float, classes: Collection[str] | None) -> None:
        if batch_size < 1:
            raise ValueError(f'batch_size is {batch_size}, expected 1 or more')
        if tile is not None and min(_sides(tile)) < 1:
            raise ValueError(f'tile is {tile}, expected pixels: one side, or height and width')
        if not 0 <= overlap < 1:
            raise ValueError(f'overlap is {overlap}, expected a share of a tile, from 0 to below 1')
        for name in classes or ():
            if name not in self.names:
                raise ValueError(unknown('class', name, self.names))

    def _batches(
        self, origins: Iterable[Origin], threshold: float, batch_size: int, failed: Failed | None
    ) -> Iterator[Result]:
        def read_and_prepare(read: Callable[[], Frame]) -> tuple[Frame, Any]:
            frame = read()
            return frame, self.prepare(frame)

        ready = ahead(read_and_prepare, readers_of(origins, failed), 2 * batch_size + READERS, failed)
        while batch := list(islice(ready, batch_size)):
            frames, inputs = zip(*batch, strict=True)
            yield from self.infer(frames, inputs, threshold)

    def _tiled(
        self,
        origins: Iterable[Origin],
        threshold: float,
        batch_size: int,
        tile: tuple[int, int],
        overlap: float,
        failed: Failed | None,
    ) -> Iterator[Result]:
        from .tiles import predict_tiles

        for frame in ahead(lambda read: read(), readers_of(origins, failed), READERS, failed):
            yield predict_tiles(self, frame, threshold, batch_size, tile, overlap)


def _sides(tile: int | tuple[int, int]) -> tuple[int, int]:
    return (tile, tile) if isinstance(tile, int) else tile


def readers_of(origins: Iterable[Origin], failed: Failed | None) -> Iterator[Callable[[], Frame]]:
    """A function for each picture that reads it; pictures of a video are read here, one after the other."""
    for origin in origins:
        if not origin.is_video:
            yield partial(_read, origin)
            continue
        try:
            for frame in origin.frames():
                yield partial(_same, frame)
        except ImageError as error:
            if failed is None:
                raise
            failed(error)


def _read(origin: Origin) -> Frame:
    return Frame(origin.read(), origin.path)


def _same(frame: Frame) -> Frame:
    return frame


def ahead(function: Callable[[In], Out], items: Iterable[In], most: int, failed: Failed | None) -> Iterator[Out]:
    """``function`` of each item, in order, by threads that are at most ``most`` items ahead."""
    pending: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(READERS) as pool:
        _compute_alone(pool)
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > most:
                    yield from _taken(pending.popleft(), failed)
            while pending:
                yield from _taken(pending.popleft(), failed)
        finally:
            for future in pending:
                future.cancel()


def _compute_alone(pool: ThreadPoolExecutor) -> None:
    """Start the threads of a pool, none of which gets the help of others in PyTorch: those belong to the model."""
    torch: Any = sys.modules.get('torch')
    if torch is None or torch.get_num_threads() == 1:
        return
    number, started = torch.get_num_threads(), threading.Barrier(READERS + 1)

    def settle() -> None:
        torch.get_num_threads()  # else the first operator of the thread would undo the next line
        torch.set_num_threads(1)
        started.wait()

    for _ in range(READERS):
        pool.submit(settle)
    started.wait()
    torch.set_num_threads(number)  # also what threads of others will begin with


def _taken(future: Future[Out], failed: Failed | None) -> Iterator[Out]:
    try:
        yield future.result()
    except ImageError as error:
        if failed is None:
            raise
        failed(error)
