"""Colours of classes."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

RGB = tuple[int, int, int]
OTHER: RGB = (150, 150, 150)
"""Colour of a label outside the classes."""


def class_names(meta: Mapping | None) -> list[str]:
    """Names of the classes of a data set's ``metainfo``; empty where it has none."""
    classes = (meta or {}).get('classes') or ()
    return [classes] if isinstance(classes, str) else [str(name) for name in classes]


def class_colors(meta: Mapping | None) -> list[RGB]:
    """One colour for each class: the palette of a data set's ``metainfo`` where that is usable, else our own.

    Usable is a palette with one colour for each class of which nine in ten differ (two of ADE20K's are the same), and
    which mmseg has not made up.
    """
    count = len(class_names(meta))
    palette: Any = (meta or {}).get('palette')
    is_list = isinstance(palette, Sequence | np.ndarray) and not isinstance(palette, str)
    if is_list and len(palette) == count and all(len(color) == 3 for color in palette):
        colors = [(int(r), int(g), int(b)) for r, g, b in palette]
        valid = all(0 <= min(color) <= max(color) <= 255 for color in colors)
        if valid and len(set(colors)) >= 0.9 * count and colors != _made_up(count):
            return colors
    return distinct_colors(count)


def _made_up(count: int) -> list[RGB]:
    """Colours that mmseg draws for a data set without a palette; many of them are alike."""
    drawn = np.random.RandomState(42).randint(0, 255, size=(count, 3))
    return [(r, g, b) for r, g, b in drawn.tolist()]


def distinct_colors(count: int) -> list[RGB]:
    """``count`` colours that are as far from each other as they get; the first of them do not depend on ``count``.

    Each next colour is the one farthest from all before it in OKLab (Ottosson, 2020), among colours that are neither
    grey nor near black or white. They repeat after about 2000.
    """
    order = _color_order()
    return [order[i % len(order)] for i in range(count)]


@lru_cache(maxsize=1)
def _color_order(limit: int = 2048) -> list[RGB]:
    levels = np.arange(0, 256, 15)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing='ij'), -1).reshape(-1, 3)
    lab = oklab(candidates)
    colourful = (lab[:, 0] > 0.5) & (lab[:, 0] < 0.92) & (np.hypot(lab[:, 1], lab[:, 2]) > 0.1)
    candidates, lab = candidates[colourful], lab[colourful]
    distance = np.linalg.norm(lab - oklab(np.array([255, 60, 60])), axis=1)
    order = [int(distance.argmin())]
    distance[:] = np.inf
    for _ in range(min(limit, len(lab)) - 1):
        distance = np.minimum(distance, np.linalg.norm(lab - lab[order[-1]], axis=1))
        order.append(int(distance.argmax()))
    return [(r, g, b) for r, g, b in candidates[order].tolist()]


def oklab(rgb: np.ndarray) -> np.ndarray:
    """sRGB (..., 3) in [0, 255] to OKLab (..., 3); constants of https://bottosson.github.io/posts/oklab/."""
    to_lms = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return np.cbrt(_linear(rgb) @ to_lms.T) @ to_lab.T


def contrast(a: RGB, b: RGB) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.1)."""
    low, high = sorted(float(_linear(np.array(color)) @ (0.2126, 0.7152, 0.0722)) for color in (a, b))
    return (high + 0.05) / (low + 0.05)


@lru_cache
def text_color(background: RGB) -> RGB:
    """Black or white, whichever can be read better; the contrast is never below 4.5."""
    return max(((0, 0, 0), (255, 255, 255)), key=lambda color: contrast(color, background))


def _linear(rgb: np.ndarray) -> np.ndarray:
    value = np.asarray(rgb, float) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
