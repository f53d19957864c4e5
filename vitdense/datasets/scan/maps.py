"""Semantic maps and the labels in them, as mmseg sees them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import UnidentifiedImageError

from vitdense.untrusted.files import read_regular

from . import rules
from .pictures import Loader

IGNORED = 255
"""What mmseg's loader makes of 0 with ``reduce_zero_label``, and of classes that a config leaves out."""

ALL_BITS = (-1, 0xFFFF, 0xFFFFFFFF)
"""Values that stand for no class in maps of more bits; a cast to 8 bits makes 255 of them."""


@dataclass(frozen=True)
class SemanticMap:
    """One opened map: (width, height), and the pixels of each value in it; or rule and message of why it is no map."""

    wh: tuple[int, int] = (0, 0)
    values: dict[int, int] = field(default_factory=dict)
    kind: str = ''
    error: str = ''


def look_at_map(path: str, loader: Loader) -> SemanticMap:
    """Open a semantic map as mmseg does, without its cast to 8 bits."""

    def fault(kind: str, message: str) -> SemanticMap:
        return SemanticMap(kind=kind, error=message)

    try:
        content = read_regular(path)
        array = loader.decode(content).squeeze() if content else None
    except UnidentifiedImageError:
        return fault(rules.UNREADABLE_MAP, 'is no image')
    except Exception as error:  # decoders raise whatever they like
        return fault(rules.UNREADABLE_MAP, f'cannot be loaded: {error}')
    if array is None:
        return fault(rules.UNREADABLE_MAP, 'is empty')
    if array.ndim == 3:
        same = ', all of them equal' if (array == array[..., :1]).all() else ''
        return fault(rules.CHANNELS, f'{array.shape[2]} channels{same}')
    if array.ndim != 2 or array.dtype.kind not in 'biuf':
        return fault(rules.UNREADABLE_MAP, f'is an array of {array.dtype} with {array.ndim} axes')
    if array.dtype.kind == 'f':
        with np.errstate(invalid='ignore'):
            odd = array[array != np.floor(array)]  # NaN among them
        if odd.size or np.isinf(array).any():
            return fault(rules.FRACTIONS, f'{array.dtype} with values such as {odd[0] if odd.size else np.inf:g}')
        array = array.astype(np.int64)
    if array.dtype == np.uint8:
        pixels = np.bincount(array.ravel())
        values = np.flatnonzero(pixels)
        pixels = pixels[values]
    else:
        values, pixels = np.unique(array, return_counts=True)
    height, width = array.shape
    return SemanticMap((width, height), dict(zip(values.astype(int).tolist(), pixels.tolist(), strict=True)))


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
    def of(cls, dataset: Any, by_heads: Iterable[int] = (), reduce_zero_label: bool | None = None) -> 'LabelRule':
        """The rule of ``dataset`` and of labels that heads ignore; ``reduce_zero_label`` may be another one."""
        reduce_zero_label = bool(dataset.reduce_zero_label if reduce_zero_label is None else reduce_zero_label)
        label_map = dataset.label_map
        ignored = {dataset.ignore_index} | ({0, IGNORED} if reduce_zero_label else set())
        number = len(label_map) if label_map else len(dataset.metainfo['classes'])
        ignored |= {label + reduce_zero_label for label in by_heads if label >= number}
        return cls(number, reduce_zero_label, frozenset(ignored), label_map)

    @property
    def valid(self) -> range:
        """Values that are classes."""
        first = int(self.reduce_zero_label)
        return range(first, first + self.number)

    def wrong(self, values: Iterable[int]) -> list[int]:
        """Those of the ``values`` that are neither a class nor ignored, as themselves or cast to 8 bits."""

        def known(value: int) -> bool:
            return value in self.valid or value in self.ignored

        return [value for value in values if not known(value) and not (value in ALL_BITS and known(IGNORED))]

    def labels(self, values: Iterable[int]) -> set[int]:
        """The labels among the ``values``."""
        labels = {value - self.valid.start for value in values if value in self.valid and value not in self.ignored}
        return {self.label_map[label] for label in labels} - {IGNORED} if self.label_map else labels

    def others(self, values: Iterable[int]) -> set[int]:
        """What mmseg's loader makes of those of the ``values`` that are no class: labels, as losses and metrics see."""
        of_classes = set(self.label_map.values()) - {IGNORED} if self.label_map else range(self.number)
        return {label for label in map(self._loaded, values) if label not in of_classes}

    def _loaded(self, value: int) -> int:
        """The label that mmseg's loader makes of a value."""
        label = value & 0xFF
        if self.reduce_zero_label:
            label = IGNORED if label in (0, IGNORED) else label - 1
        return self.label_map.get(label, label) if self.label_map else label

    def __str__(self) -> str:
        return f'{self.valid.start} to {self.valid.stop - 1} are classes, {sorted(self.ignored)} ignored'


def loads_8_bits(kind: Any) -> bool:
    """Whether a step of a pipeline is mmseg's ``LoadAnnotations``, which casts maps to 8 bits."""
    if isinstance(kind, type):
        return vars(kind).get('_load_seg_map') is not None and kind.__module__.startswith('mmseg.')
    return str(kind) in ('LoadAnnotations', 'mmseg.LoadAnnotations')


def beyond_8_bits(values: Iterable[int]) -> list[int]:
    """Those of the ``values`` that a cast to 8 bits makes another class of."""
    return [value for value in values if not 0 <= value <= 0xFF and value not in ALL_BITS]


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
