"""Semantic maps and the labels in them, as mmseg sees them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .pictures import Loader


@dataclass(frozen=True)
class SemanticMap:
    """One opened map: why it cannot be used or '', (width, height), and the values in it."""

    error: str = ''
    wh: tuple[int, int] = (0, 0)
    values: tuple[int, ...] = ()


def look_at_map(path: str, loader: Loader) -> SemanticMap:
    """Open a semantic map as mmseg does, without its cast to 8 bits."""
    try:
        array = loader.decode(Path(path).read_bytes()).squeeze()
    except Exception as error:  # decoders raise whatever they like
        return SemanticMap(f'cannot be loaded: {error}')
    if array.ndim != 2 or array.dtype.kind not in 'biu':
        mode = f'{array.shape[2]} channels' if array.ndim == 3 else f'{array.ndim} axes of {array.dtype}'
        return SemanticMap(f'it has {mode}, expected one channel of class numbers (a palette is fine)')
    small = array.dtype == np.uint8
    values = np.flatnonzero(np.bincount(array.ravel(), minlength=256)) if small else np.unique(array)
    return SemanticMap('', array.shape[::-1], tuple(values.astype(int).tolist()))


@dataclass(frozen=True)
class LabelRule:
    """How mmseg turns the values of a map into labels.

    Attributes:
        number: values that are classes, after ``reduce_zero_label``.
        reduce_zero_label: value 0 is ignored, 1 is the first class.
        ignored: values that are ignored.
        label_map: from the values to the labels, where the config has a part of the classes only.
    """

    number: int
    reduce_zero_label: bool
    ignored: frozenset[int]
    label_map: dict[int, int] | None

    @classmethod
    def of(cls, dataset: Any) -> 'LabelRule':
        label_map = dataset.label_map
        ignored = {dataset.ignore_index} | ({0, 255} if dataset.reduce_zero_label else set())
        number = len(label_map) if label_map else len(dataset.metainfo['classes'])
        return cls(number, bool(dataset.reduce_zero_label), frozenset(ignored), label_map)

    @property
    def valid(self) -> range:
        """Values that are classes."""
        first = int(self.reduce_zero_label)
        return range(first, first + self.number)

    def wrong(self, values: tuple[int, ...]) -> list[int]:
        """Those of the ``values`` that are neither a class nor ignored."""
        return [value for value in values if value not in self.valid and value not in self.ignored]

    def labels(self, values: tuple[int, ...]) -> set[int]:
        """The labels among the ``values``."""
        labels = {value - self.valid.start for value in values if value in self.valid and value not in self.ignored}
        return {self.label_map[label] for label in labels} - {255} if self.label_map else labels

    def __str__(self) -> str:
        return f'{self.valid.start} to {self.valid.stop - 1} are classes, {sorted(self.ignored)} ignored'
