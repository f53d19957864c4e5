"""What exported models have in common, whatever runs them. Neither PyTorch nor the OpenMMLab packages are needed."""

import json
import math
import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vitdense.predict.predictor import Predictor
from vitdense.predict.results import Result
from vitdense.predict.sources import Frame
from vitdense.version import __version__

from .preprocess import Preprocess

KEY = 'vitdense'
"""Of the metadata of a file."""


class ExportedModel(Predictor):
    """A file of ``vitdense export`` that has the whole computation, see :func:`vitdense.load`.

    Attributes:
        names, palette, task, iou_threshold: see :class:`Predictor`.
    """

    def __init__(self, facts: str, path: str | os.PathLike) -> None:
        """Use what the file at ``path`` says of itself, a JSON text.

        Raises:
            ValueError: that cannot be understood.
        """
        try:
            known = json.loads(facts)
            self.names, self.task, self.iou_threshold = tuple(known['names']), known['task'], known['iou_threshold']
            self.palette = tuple((r, g, b) for r, g, b in known['palette'])
            self.mask_threshold = known['mask_threshold']
            self.preprocess = Preprocess.from_json(known['preprocess'])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(not_understood(path, error)) from None

    @abstractmethod
    def run(self, image: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
        """Outputs of the graph for pictures (B, 3, H', W'); a segmentor gives maps of the ``size``, (H, W)."""

    def fix_size(self, hw: tuple[int, int]) -> None:
        """Put one resizing in the place of that of the test, see :class:`Predictor`."""
        self.preprocess = replace(self.preprocess, rule='stretch', size=hw[::-1], multiple=1)

    def prepare(self, frame: Frame) -> np.ndarray:
        """(3, H', W') float32."""
        return self.preprocess(frame.image)

    def infer(self, frames: Sequence[Frame], inputs: Sequence[Any], threshold: float) -> list[Result]:
        """Predict a batch, one size after the other, see :class:`Predictor`."""
        sizes = [(one.shape, frame.image.shape[:2]) for one, frame in zip(inputs, frames, strict=True)]
        results: list[Any] = [None] * len(inputs)
        for size in dict.fromkeys(sizes):
            places = [i for i, other in enumerate(sizes) if other == size]
            outputs = self.run(np.stack([inputs[i] for i in places]), size[1])
            for k, i in enumerate(places):
                results[i] = self._result(frames[i], [output[k] for output in outputs], threshold)
        return results

    def _result(self, frame: Frame, outputs: Sequence[np.ndarray], threshold: float) -> Result:
        image, path, number = frame.image, frame.path, frame.number
        if self.task == 'semantic segmentation':
            semantic: np.ndarray = outputs[0].astype(self.map_type)
            return Result(image, path, self.names, self.palette, semantic_map=semantic, number=number)
        boxes, scores, labels, *shares = outputs
        keep = (scores >= threshold) & (labels >= 0)
        h, w = image.shape[:2]
        new_w, new_h = self.preprocess.new_wh(w, h)
        factor = np.array([new_w / w, new_h / h] * 2, np.float32)
        found = dict(boxes=boxes[keep] / factor, scores=scores[keep], labels=labels[keep].astype(np.int64))
        if shares:
            found['masks'] = paste(shares[0][keep], found['boxes'], (h, w), self.mask_threshold)
        return Result(image, path, self.names, self.palette, number=number, **found)


def not_understood(path: str | os.PathLike, error: Exception) -> str:
    """Message about a file whose description has not what this version expects."""
    return (
        f'{os.fspath(path)} does not say what it is as vitdense {__version__} does: another version has written it, or '
        f'it is damaged ({type(error).__name__}: {error})'
    )


def paste(shares: np.ndarray, boxes: np.ndarray, hw: tuple[int, int], threshold: float) -> np.ndarray:
    """Masks (G, H, W) of what is in boxes (G, 4): pixels whose share (G, h, w), interpolated, is high enough.

    As ``_do_paste_mask`` of mmdet, which takes 0 for what is beyond a box.
    """
    masks = np.zeros((len(boxes), *hw), bool)
    for mask, share, (x1, y1, x2, y2) in zip(masks, shares, boxes.tolist(), strict=True):
        rows, columns = _weights(y1, y2, share.shape[0], hw[0]), _weights(x1, x2, share.shape[1], hw[1])
        mask[rows[0] : rows[1], columns[0] : columns[1]] = rows[2] @ share @ columns[2].T >= threshold
    return masks


def _weights(low: float, high: float, number: int, length: int) -> tuple[int, int, np.ndarray]:
    """First and last pixel of a side that a box may reach, and the weights (pixels, number) of its samples there."""
    first, last = max(0, math.floor(low) - 1), min(length, math.ceil(high) + 1)
    place = (np.arange(first, last, dtype=np.float32) + 0.5 - np.float32(low)) / np.float32(max(high - low, 1e-6))
    distance = np.abs(place[:, None] * number - 0.5 - np.arange(number, dtype=np.float32))
    return first, last, np.maximum(1 - distance, 0).astype(np.float32)
