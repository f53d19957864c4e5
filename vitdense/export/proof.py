"""Does an exported file find what its model finds?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitdense.names import counted
from vitdense.predict.predictor import Predictor
from vitdense.predict.sources import Frame

BOXES = 0.01
"""Pixels that boxes may differ by."""
SCORES = 1e-4
"""That scores may differ by."""
OTHER = 0.01
"""Share of the detections that only one of both may have: NMS decides between boxes that overlap by just as much."""
PIXELS = 1e-4
"""Share of the pixels of a map, or of a mask, that may have another class."""


@dataclass
class Differences:
    """The largest differences over some pictures.

    Attributes:
        pictures: how many.
        detections: how many of PyTorch were compared.
        boxes: pixels.
        scores: of detections.
        pixels: share of those of a map, or of the masks, that differ.
        other: detections that only one of both has, or with another class, beyond those of nearly equal scores.
        of_maps: whether they are of maps, and not of detections.
    """

    pictures: int = 0
    detections: int = 0
    boxes: float = 0.0
    scores: float = 0.0
    pixels: float = 0.0
    other: int = 0
    of_maps: bool = False

    @property
    def is_small(self) -> bool:
        """Whether all of them are within the tolerances."""
        return (
            self.boxes <= BOXES
            and self.scores <= SCORES
            and self.pixels <= PIXELS
            and self.other <= OTHER * self.detections
        )

    def __str__(self) -> str:
        pictures = counted(self.pictures, 'picture')
        if self.of_maps:
            return f'{pictures}; {self.pixels:.2g} of the pixels differ (at most {PIXELS:g})'
        if not self.detections:
            more = f', but the file {counted(self.other, "detection")}' if self.other else ', which shows little'
            return f'{pictures}, in which the model finds nothing{more}; --images names others'
        parts = [f'boxes by {self.boxes:.2g} pixels ({BOXES:g})', f'scores by {self.scores:.2g} ({SCORES:g})']
        if self.pixels:
            parts.append(f'masks by {self.pixels:.2g} of the pixels ({PIXELS:g})')
        found = f'{pictures} with {self.detections} detections, {self.other} of which one alone has'
        return f'{found}; they differ (at most) in {", ".join(parts)}'


def compare(model: Predictor, exported: Predictor, frames: Sequence[Frame]) -> Differences:
    """Predict the same pictures with both, all detections that either gives, one batch of all equal sizes."""
    found = Differences()
    for frame in frames:
        add(found, model, exported, frame)
    return found


def add(found: Differences, model: Predictor, exported: Predictor, frame: Frame) -> None:
    """Add what both predict of one more picture."""
    results: list[Any] = [one.infer_frames([frame], 0.0)[0] for one in (model, exported)]
    expected, result = results
    found.pictures += 1
    if expected.semantic_map is not None:
        found.of_maps = True
        found.pixels = max(found.pixels, float((expected.semantic_map != result.semantic_map).mean()))
        return
    found.detections += len(expected)
    left = list(range(len(result)))
    wrong, area = 0, 0
    for i in range(len(expected)):
        near = [k for k in left if _same(expected, i, result, k)]
        if not near:
            found.other += not _is_last(expected, i)
            continue
        k = min(near, key=lambda k: float(np.abs(expected.boxes[i] - result.boxes[k]).max()))
        left.remove(k)
        found.boxes = max(found.boxes, float(np.abs(expected.boxes[i] - result.boxes[k]).max()))
        found.scores = max(found.scores, abs(float(expected.scores[i] - result.scores[k])))
        if expected.masks is not None and result.masks is not None:
            wrong += int((expected.masks[i] != result.masks[k]).sum())
            area += expected.masks[i].size
    found.other += sum(not _is_last(result, k) for k in left)
    found.pixels = max(found.pixels, wrong / max(area, 1))


def _same(expected: Any, i: int, result: Any, k: int) -> bool:
    """Whether two detections are of one class and of nearly one score."""
    return expected.labels[i] == result.labels[k] and abs(float(expected.scores[i] - result.scores[k])) <= 10 * SCORES


def _is_last(result: Any, i: int) -> bool:
    """Whether a detection may be there or not: its score is nearly that of the worst."""
    return float(result.scores[i] - result.scores[-1]) <= SCORES
