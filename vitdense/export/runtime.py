"""An exported model in onnxruntime. Neither PyTorch nor the OpenMMLab packages are needed."""

import json
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from vitdense.predict.predictor import Predictor
from vitdense.predict.results import Result
from vitdense.predict.sources import Frame

from .preprocess import Preprocess


class OnnxModel(Predictor):
    """An ONNX file of ``vitdense export``, see :func:`vitdense.load`.

    Attributes:
        names, palette, task, iou_threshold: see :class:`Predictor`.
        path: of the file.
        session: of onnxruntime.
    """

    def __init__(self, path: str | os.PathLike, device: str | None = None) -> None:
        """Load ``path``.

        Raises:
            ImportError: onnxruntime is not installed.
            ValueError: it is no ONNX file, or not one of vitdense.
        """
        try:
            import onnxruntime
        except ImportError:
            raise ImportError('ONNX files need onnxruntime: pip install onnxruntime') from None
        self.path = path
        wanted = ['CUDAExecutionProvider'] if str(device or '').startswith('cuda') else []
        try:
            self.session = onnxruntime.InferenceSession(os.fspath(path), providers=[*wanted, 'CPUExecutionProvider'])
        except Exception as error:  # onnxruntime has its own classes
            raise ValueError(f'{path} is no ONNX file that onnxruntime can run: {error}') from None
        facts = self.session.get_modelmeta().custom_metadata_map.get('vitdense')
        if facts is None:
            raise ValueError(
                f'{path} is an ONNX file, but none of `vitdense export`: its metadata do not say what it is'
            )
        known = json.loads(facts)
        self.names, self.task, self.iou_threshold = tuple(known['names']), known['task'], known['iou_threshold']
        self.palette = tuple((r, g, b) for r, g, b in known['palette'])
        self.mask_threshold = known['mask_threshold']
        self.preprocess = Preprocess.from_json(known['preprocess'])

    def prepare(self, frame: Frame) -> np.ndarray:
        """(3, H', W') float32."""
        return self.preprocess(frame.image)

    def infer(self, frames: Sequence[Frame], inputs: Sequence[Any], threshold: float) -> list[Result]:
        """Predict a batch, one size after the other, see :class:`Predictor`."""
        sizes = [(one.shape, frame.image.shape[:2]) for one, frame in zip(inputs, frames, strict=True)]
        results: list[Any] = [None] * len(inputs)
        for size in dict.fromkeys(sizes):
            places = [i for i, other in enumerate(sizes) if other == size]
            feed: dict[str, np.ndarray] = {'image': np.stack([inputs[i] for i in places])}
            if self.task == 'semantic segmentation':
                feed['size'] = np.array(size[1], np.int64)
            outputs = self.session.run(None, feed)
            for k, i in enumerate(places):
                results[i] = self._result(frames[i], size[0], [output[k] for output in outputs], threshold)
        return results

    def _result(self, frame: Frame, shape: tuple[int, ...], outputs: Sequence[np.ndarray], threshold: float) -> Result:
        image, path, number = frame.image, frame.path, frame.number
        if self.task == 'semantic segmentation':
            semantic: np.ndarray = outputs[0].astype(self.map_type)
            return Result(image, path, self.names, self.palette, semantic_map=semantic, number=number)
        boxes, scores, labels, *shares = outputs
        keep = (scores >= threshold) & (labels >= 0)
        (h, w), (new_h, new_w) = image.shape[:2], shape[1:]
        factor = np.array([new_w / w, new_h / h] * 2, np.float32)
        found = dict(boxes=boxes[keep] / factor, scores=scores[keep], labels=labels[keep].astype(np.int64))
        if shares:
            found['masks'] = paste(shares[0][keep], found['boxes'], (h, w), self.mask_threshold)
        return Result(image, path, self.names, self.palette, number=number, **found)


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
