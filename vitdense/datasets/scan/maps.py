"""Semantic maps and the labels in them, as mmseg sees them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .pictures import Loader


@dataclass(frozen=True)
class SemanticMap:
    """One opened map: why it cannot be used or '', (width, height), and the pixels of each value in it."""

    error: str = ''
    wh: tuple[int, int] = (0, 0)
    values: dict[int, int] = field(default_factory=dict)


def look_at_map(path: str, loader: Loader) -> SemanticMap:
    """Open a semantic map as mmseg does, without its cast to 8 bits."""
    try:
        array = loader.decode(Path(path).read_bytes()).squeeze()
    except Exception as error:  # decoders raise whatever they like
        return SemanticMap(f'cannot be loaded: {error}')
    if array.ndim != 2 or array.dtype.kind not in 'biu':
        mode = f'{array.shape[2]} channels' if array.ndim == 3 else f'{array.ndim} axes of {array.dtype}'
        return SemanticMap(f'it has {mode}, expected one channel of class numbers (a palette is fine)')
    if array.dtype == np.uint8:
        pixels = np.bincount(array.ravel())
        values = np.flatnonzero(pixels)
        pixels = pixels[values]
    else:
        values, pixels = np.unique(array, return_counts=True)
    height, width = array.shape
    return SemanticMap('', (width, height), dict(zip(values.astype(int).tolist(), pixels.tolist(), strict=True)))


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
    def of(cls, dataset: Any, reduce_zero_label: bool | None = None) -> 'LabelRule':
        """The rule of ``dataset``, or what it would be if its ``reduce_zero_label`` were as given."""
        reduce_zero_label = bool(dataset.reduce_zero_label if reduce_zero_label is None else reduce_zero_label)
        label_map = dataset.label_map
        ignored = {dataset.ignore_index} | ({0, 255} if reduce_zero_label else set())
        number = len(label_map) if label_map else len(dataset.metainfo['classes'])
        return cls(number, reduce_zero_label, frozenset(ignored), label_map)

    @property
    def valid(self) -> range:
        """Values that are classes."""
        first = int(self.reduce_zero_label)
        return range(first, first + self.number)

    def wrong(self, values: Iterable[int]) -> list[int]:
        """Those of the ``values`` that are neither a class nor ignored."""
        return [value for value in values if value not in self.valid and value not in self.ignored]

    def labels(self, values: Iterable[int]) -> set[int]:
        """The labels among the ``values``."""
        labels = {value - self.valid.start for value in values if value in self.valid and value not in self.ignored}
        return {self.label_map[label] for label in labels} - {255} if self.label_map else labels

    def __str__(self) -> str:
        return f'{self.valid.start} to {self.valid.stop - 1} are classes, {sorted(self.ignored)} ignored'


def histogram(maps: Sequence[SemanticMap], rule: LabelRule, classes: Sequence[str], most: int = 16) -> list[str]:
    """A line for each value in ``maps``: a bar, its share of the pixels, the maps that have it, and what it stands for.

    Of more than ``most`` values those that are no class come first, then those of most pixels.
    """
    pixels = sum((Counter(found.values) for found in maps), Counter())
    images = Counter(value for found in maps for value in found.values)
    wrong = set(rule.wrong(pixels))
    shown = sorted(pixels, key=lambda value: (value not in wrong, -pixels[value]))[:most]
    largest = max(pixels.values())

    def meaning(value: int) -> str:
        if value in wrong:
            return 'NO CLASS'
        labels = rule.labels([value])
        return classes[labels.pop()] if labels else 'ignored'

    lines = [f'values of the {len(maps)} maps opened: share of the pixels, number of maps, meaning']
    for value in sorted(shown):
        bar = '#' * max(1, round(20 * pixels[value] / largest))
        share = f'{100 * pixels[value] / pixels.total():.2f} %'
        lines.append(f'{value:>5} {bar:<20} {share:>8} {images[value]:>5}  {meaning(value)}')
    return lines + ([f'  and {len(pixels) - most} more values'] if len(pixels) > most else [])
