"""The course of a training as a picture."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vitdense.names import unknown

from .fonts import legible_letters, with_fonts
from .palette import distinct_colors, oklab

MOST = 8
"""Curves in one panel."""

PERCENT = ('aAcc', 'mIoU', 'mAcc', 'mDice', 'mFscore', 'mPrecision', 'mRecall')
"""Metrics of mmseg, which are percentages: a small one is no fraction."""

Curve = tuple[np.ndarray, np.ndarray]


@with_fonts
def draw_curves(rows: Sequence[Mapping[str, float]], title: str = '') -> Figure:
    """Losses, learning rate and validation metrics against the epoch, or where rows have none the iteration.

    Args:
        rows: at least one, as in ``results.csv``: ``iter``, ``epoch``, ``lr``, ``train/...``, ``val/...``; what is
            missing is skipped.
        title: at the top.

    Returns:
        A figure whose panels have the best value of each metric in the legend and as a star.
    """
    axis = 'epoch' if all('epoch' in row for row in rows) else 'iter'
    keys = dict.fromkeys(key for row in rows for key in row)
    curves = {key: _curve(rows, axis, key) for key in keys}
    metrics = {
        key: curve
        for key, curve in curves.items()
        if key.startswith('val/') and 'loss' not in key and len(curve[0]) and (curve[1] != -1).any()
    }
    large = {key for key, (_, values) in metrics.items() if values.max() > 1}
    percent = {key for key in metrics if key.rpartition('/')[2] in PERCENT}
    large |= percent if large & percent else set()
    panels = {
        'loss': {key: curve for key, curve in curves.items() if 'loss' in key and len(curve[0])},
        'learning rate': {key: curve for key, curve in curves.items() if key.endswith('lr') and len(curve[0])},
        'validation': {key: curve for key, curve in metrics.items() if key not in large},
        'validation, above 1': {key: curve for key, curve in metrics.items() if key in large},
    }
    panels = {name: panel for name, panel in panels.items() if panel}
    lines = max((min(len(panel), MOST + 1) for panel in panels.values()), default=0)
    width, height, legend = 5.4 * max(len(panels), 1), 3.4, 0.6 + 0.19 * lines
    span = rows[0][axis], rows[-1][axis]
    margin = 0.03 * (span[1] - span[0]) or 0.5
    figure = Figure(figsize=(width, 0.7 + height + legend), dpi=100)
    FigureCanvasAgg(figure)
    figure.suptitle(_text(title), fontsize=12, x=0.2 / width, ha='left')
    for i, (name, panel) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), i)
        _draw_panel(axes, panel, axis, name)
        axes.set_xlim(span[0] - margin, span[1] + margin)
    bottom, top = legend / figure.get_figheight(), (legend + height) / figure.get_figheight()
    figure.subplots_adjust(left=0.6 / width, right=1 - 0.2 / width, bottom=bottom, top=top, wspace=0.18)
    return figure


@with_fonts
def draw_comparison(runs: Mapping[str, Sequence[Mapping[str, float]]], metric: str) -> Figure:
    """One metric of several runs against the epoch, or the iteration if one has no epochs, and against the time.

    Args:
        runs: rows of each run by its name, as :func:`draw_curves` takes them, with ``seconds``.
        metric: column to draw, e.g. ``val/coco/bbox_mAP``.

    Raises:
        ValueError: a run without a value of ``metric``; the message lists the columns that it has, nearest first.
    """
    for name, rows in runs.items():
        known = dict.fromkeys(key for row in rows for key in row)
        if not len(_curve(rows, 'iter', metric)[0]):
            raise ValueError(f'run {name}: ' + unknown('metric', metric, known))
    legend, height = 0.35 + 0.19 * len(runs), 3.4
    figure = Figure(figsize=(10.8, 0.7 + height + legend), dpi=100)
    FigureCanvasAgg(figure)
    figure.suptitle(_text(metric), fontsize=12, x=0.02, ha='left')
    colors = _dark_colors(len(runs))
    progress = 'epoch' if all('epoch' in row for rows in runs.values() for row in rows) else 'iter'
    for i, (axis, unit, label) in enumerate(((progress, 1, progress), ('seconds', 60, 'minutes')), 1):
        axes = figure.add_subplot(1, 2, i)
        for (name, rows), color in zip(runs.items(), colors, strict=True):
            x, y = _curve(rows, axis, metric)
            axes.plot(x / unit, y, label=f'{_text(name)}: best {y.max():.4g}', color=color, lw=1.6, marker='o', ms=3.5)
        axes.set_xlabel(label, fontsize=9, labelpad=1)
        axes.set_xlim(left=0)
        _tidy(axes)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='lower left', fontsize=8.5, frameon=False)
    bottom, top = legend / figure.get_figheight(), (legend + height) / figure.get_figheight()
    figure.subplots_adjust(left=0.075, right=0.98, bottom=bottom + 0.06, top=top, wspace=0.14)
    return figure


def _curve(rows: Sequence[Mapping[str, float]], axis: str, key: str) -> Curve:
    """Finite values of a column and where they are."""
    points = [(row[axis], row[key]) for row in rows if math.isfinite(row.get(key, math.nan))]
    return np.array([x for x, _ in points], float), np.array([y for _, y in points], float)


def _draw_panel(axes: Axes, panel: Mapping[str, Curve], axis: str, name: str) -> None:
    unit = 'iteration' if axis == 'iter' else 'epoch'
    metrics = name.startswith('validation')
    shown = list(panel.items())[:MOST]
    for (key, (x, y)), color in zip(shown, _dark_colors(len(shown)), strict=True):
        label = key.removeprefix('val/' if metrics else 'train/')
        if metrics:
            top = int(y.argmax())
            label += f': best {y[top]:.4g} at {unit} {x[top]:.0f}'
            axes.plot(x[top], y[top], '*', color=color, ms=13, mec='black', mew=0.6, zorder=3)
        style = '--' if key == f'val/{label}' else '-'
        axes.plot(x, y, style, label=_text(label), color=color, lw=1.6, marker='o' if len(x) <= 30 else None, ms=3.5)
    if len(panel) > MOST:
        axes.plot([], [], ' ', label=f'and {len(panel) - MOST} more in results.csv')
    values = np.concatenate([y for _, (_, y) in shown])
    if name == 'loss' and values.min() > 0 and values.max() > 30 * values.min():
        axes.set_yscale('log')
    axes.set_title(name, fontsize=11)
    axes.set_xlabel(unit, fontsize=9, labelpad=1)
    _tidy(axes)
    axes.locator_params(axis='x', integer=True)
    offset = -45 / axes.bbox.height  # pixels of the figure
    axes.legend(loc='upper left', bbox_to_anchor=(0, offset), fontsize=8.5, frameon=False, borderpad=0)


def _text(name: str) -> str:
    """A name for a figure: letters that there is a font for, without the markup of matplotlib or a leading ``_``."""
    name = legible_letters(name).replace('$', r'\$')
    return f' {name}' if name.startswith('_') else name


def _tidy(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(labelsize=9)


def _dark_colors(count: int) -> list[tuple[float, ...]]:
    """Distinct colours that can be seen as thin lines on white; black first."""
    dark = [color for color in distinct_colors(4 * count + 8) if oklab(np.array(color))[0] < 0.72]
    return [(0.0, 0.0, 0.0), *(tuple(value / 255 for value in color) for color in dark)][:count]
