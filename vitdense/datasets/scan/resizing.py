"""What the first resizing of a pipeline makes of the sizes of its images."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vitdense.findings import Finding
from vitdense.registry import bare_type

from . import rules

LEAVES_SIZES = ('Load', 'Pack', 'RandomFlip', 'Photo', 'Filter', 'YOLOXHSV', 'Color', 'ImageToTensor', 'Normalize')
"""Beginnings of the names of transforms that leave the size of an image alone."""


def check_sizes(pipeline: Sequence[Any], wh: np.ndarray, names: Sequence[str], indices: Sequence[int]) -> list[Finding]:
    """A fault for each image of which nothing is left, a remark for each that gets a single pixel wide or high.

    Args:
        pipeline: steps of a config.
        wh: (N, 2) widths and heights.
        names: what the images are called.
        indices: their positions in the data set.
    """
    if not len(wh):
        return []
    found: dict[int, Finding] = {}
    for step, sizes in resized(pipeline, wh):
        small = np.flatnonzero((sizes.min(1) < 1) | ((sizes.min(1) < 2) & (wh.min(1) > 1))).tolist()
        for i in small:
            width, height = sizes[i].astype(int).tolist()
            fatal = min(width, height) < 1
            if i in found and (found[i].fatal or not fatal):
                continue
            message = f'{wh[i, 0]:.0f} x {wh[i, 1]:.0f}, of which {step} makes {width} x {height}'
            found[i] = Finding(rules.TOO_SMALL, names[i], message, fatal, 'image' if fatal else '', indices[i])
    return [found[i] for i in sorted(found)]


def resized(pipeline: Sequence[Any], wh: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The smallest sizes (N, 2) that each branch of a pipeline may resize images of ``wh`` (N, 2) to at first."""
    for step in pipeline:
        name = bare_type(step) if isinstance(step, dict) else ''
        if name == 'RandomChoice':
            for branch in step.get('transforms') or ():
                yield from resized([branch] if isinstance(branch, dict) else branch, wh)
            return
        if 'Resize' in name:
            sizes = [_to_scale(name, step, scale, wh) for scale in _scales(name, step)]
            yield from ((name, one) for one in sizes if one is not None)
            return
        if not name.startswith(LEAVES_SIZES):
            return


def _scales(name: str, step: dict) -> list:
    """The scales that a step may take, the smallest of a range."""
    scale = step.get('scales' if name == 'RandomChoiceResize' else 'scale')
    if name == 'RandomChoiceResize':
        return [] if scale is None else list(scale) if isinstance(scale, list) else [scale]
    if name == 'RandomResize' and scale is not None:
        if isinstance(scale[0], list | tuple):
            return [tuple(min(one[k] for one in scale) for k in (0, 1))]
        ratio = (step.get('ratio_range') or (1, 1))[0]
        return [tuple(int(side * ratio) for side in scale)]
    return [scale]


def _to_scale(name: str, step: dict, scale: Any, wh: np.ndarray) -> np.ndarray | None:
    """Sizes (N, 2) after a step with this scale; ``None`` if it gives all images one size, or is not known."""
    kind = bare_type(step.get('resize_type') or 'Resize') if name.startswith('Random') else name
    keeps_ratio = kind != 'Resize' or step.get('keep_ratio')
    short, long = wh.min(1), wh.max(1)
    if scale is None:
        factor = step.get('scale_factor')
        rough = np.floor(wh * np.asarray(factor) + 0.5) if factor and kind == 'Resize' else None
        if rough is None or not keeps_ratio:
            return rough
        edges = rough.min(1), rough.max(1)
    elif not keeps_ratio:
        return None
    else:
        edges = (min(scale), max(scale)) if isinstance(scale, list | tuple) else (scale, scale)
    if kind == 'DETRResize':
        from ..transforms import detr_sides  # needs mmdet

        sides = np.stack(detr_sides(short, long, edges), 1)
        return np.where(wh[:, :1] < wh[:, 1:], sides, sides[:, ::-1])
    if kind == 'ResizeShortestEdge':  # rounds, and hands the result to Resize
        factors = np.minimum(edges[0] / short, step.get('max_size', np.inf) / long)
        rough = np.floor(wh * factors[:, None] + 0.5)
        edges = rough.min(1), rough.max(1)
    elif kind != 'Resize':
        return None
    return np.floor(wh * np.minimum(edges[1] / long, edges[0] / short)[:, None] + 0.5)
