"""Figures of an evaluation and of a data set's labels, for any number of classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from vitdense.evaluation.confusion import LEAST_IOU, LEAST_SCORE
from vitdense.evaluation.report import EvaluationReport

from .fonts import legible_names, with_fonts

# Okabe and Ito's colours for colour-blind readers, without black (the mean) and yellow (too light on white)
COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9')
RED = '#b3001b'
BLUES = colormaps['Blues'].with_extremes(bad='#f0f0f0')  # grey: rows without objects, and what is not counted
MOST_CURVES = 12
MOST_ROWS = 50
MOST_BARS = 200
MOST_CELLS = 160
LETTERS = 26


@with_fonts
def draw_pr_curves(report: EvaluationReport) -> Figure:
    """Precision over recall, a line a class, with AP50 and the score of the best F1.

    With more than 12 classes the lines are grey, and the three best and three worst classes have colours.

    Raises:
        ValueError: the report has no curves.
    """
    curves = report.curves
    if curves is None:
        raise ValueError(f'the report ({report.task}) has no precision-recall curves')
    names = legible_names(report.classes)
    known = np.flatnonzero(~np.isnan(curves.precision[:, 0]))
    ranked = known[np.argsort(-curves.precision[known].mean(1), kind='stable')]
    few = len(ranked) <= MOST_CURVES
    named = ranked if few else np.concatenate([ranked[:3], ranked[-3:]])
    figure = _figure(6.6 + 0.075 * max((len(plain(names[k])) + 26 for k in named), default=30), 5.6)
    axes = _axes(figure, 0.75, 0.65, 5.0, 4.4)
    entries: list[tuple[Line2D, str]] = []
    if not few:
        axes.plot(curves.recall, curves.precision[ranked].T, color='#b8b8b8', lw=0.6, alpha=0.7)
    for i, k in enumerate(named):
        color, dashes = COLORS[i % len(COLORS)], '--' if i >= len(COLORS) else '-'
        [curve] = axes.plot(curves.recall, curves.precision[k], color=color, ls=dashes, lw=1.8)
        line, recall, precision = _entry(names[k], curves.recall, curves.precision[k], curves.score[k])
        axes.plot(recall, precision, 'o', color=color, ms=6, mec='white', mew=0.8, zorder=4)
        entries.append((curve, line))
    if len(ranked):
        average = curves.precision[ranked].mean(0)
        [curve] = axes.plot(curves.recall, average, color='black', lw=3)
        entries.insert(0, (curve, f'{average.mean():.3f}  mean of {len(ranked)} classes'))
    if not few:
        entries.insert(4, (Line2D([], [], ls=''), f'...  {len(ranked) - 6} more in grey'))
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel='recall', ylabel='precision')
    axes.grid(alpha=0.25)
    axes.legend(
        *zip(*entries, strict=True) if entries else ((), ()),
        title='AP50  class, best F1 at score (dot)',
        alignment='left',
        loc='upper left',
        bbox_to_anchor=(1.01, 1.02),
        frameon=False,
        fontsize=9,
    )
    kind = 'masks' if report.task == 'segm' else 'boxes'
    _title(figure, f'Precision and recall of {kind} at an IoU of {curves.iou:g}')
    return figure


def _entry(name: str, recall: np.ndarray, precision: np.ndarray, score: np.ndarray) -> tuple[str, float, float]:
    """Legend of a curve, and recall and precision where F1 is best."""
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(f1.argmax())
    found = f', F1 {f1[best]:.2f} at {score[best]:.2f}' if f1[best] > 0 else ''
    return f'{precision.mean():.3f}  {plain(name)}{found}', recall[best], precision[best]


@with_fonts
def draw_confusion_matrix(report: EvaluationReport) -> Figure:
    """What became of the objects or pixels of each class, as shares of its row.

    Cells have numbers as long as these can be read (30 classes). Of more than 160 classes those with the most
    confusions are shown.
    """
    counts, names = report.confusion, [plain(name) for name in legible_names(report.confusion_names)]
    detection = report.task != 'semantic'
    shown = _most_confused(counts, MOST_CELLS)
    count, part, totals = len(shown), counts[np.ix_(shown, shown)], counts.sum(1)[shown]
    with np.errstate(invalid='ignore'):
        shares = part / totals[:, None]
    if detection:
        shares[-1, -1] = np.nan  # neither an object nor a detection: nothing to count
    rows = [f'{names[k]}  {_short(total)}' for k, total in zip(shown, totals, strict=True)]
    columns = [names[k] for k in shown]
    if detection:
        rows[-1], columns[-1] = f'no object  {_short(totals[-1])}', 'missed'
    frequent = _most_frequent(counts, names, detection) if count > 12 else ''
    cell, font = (
        (0.66, 9.5) if count <= 12 else (0.4, 8) if count <= 31 else (0.2, 7.5) if count <= 61 else (0.125, 6.2)
    )
    side, letter = max(cell * count, 1.7), 0.62 * font / 72
    left, below = 0.55 + letter * max(map(len, rows)), 0.45 + letter * max(map(len, columns))
    bottom = below + (0.65 if frequent else 0.1)
    needed = 0.3 + 0.08 * max(map(len, frequent.split('\n')))
    figure = _figure(max(left + side + 1.1, 6.0, needed), bottom + side + 0.5)
    axes = _axes(figure, left, bottom, side, side)
    image = axes.imshow(shares, cmap=BLUES, norm=PowerNorm(0.5, 0, 1), aspect='auto', interpolation='nearest')
    axes.set_xticks(range(count), columns, rotation=90)
    axes.set_yticks(range(count), rows)
    axes.tick_params(labelsize=font, length=0 if count > 31 else 3)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which='minor', color='#e2e2e2', lw=0.6 if count <= 31 else 0.25)
    axes.tick_params(which='minor', length=0)
    _text(figure, 0.2, bottom + side / 2, f'truth ({"objects" if detection else "pixels"})', rotation=90, va='center')
    _text(figure, left + side / 2, bottom - below + 0.12, 'predicted', ha='center')
    for i, j in np.argwhere(part) if count <= 31 else ():
        text = f'{100 * shares[i, j]:.0f}' if shares[i, j] >= 0.005 else '<1'
        text += f'%\n{_short(part[i, j])}' if count <= 12 else ''
        axes.text(
            j, i, text, ha='center', va='center', fontsize=font, color='white' if shares[i, j] > 0.36 else 'black'
        )
    height = min(side, 4.0)
    bar = _axes(figure, left + side + 0.2, bottom + (side - height) / 2, 0.18, height)
    figure.colorbar(image, cax=bar, ticks=[0, 0.02, 0.1, 0.25, 0.5, 1], format=lambda share, _: f'{share:.0%}')
    bar.tick_params(labelsize=9)
    title = 'Confusion matrix, % of each row'
    if detection:
        title += f' (IoU ≥ {LEAST_IOU}, score ≥ {LEAST_SCORE})'
    if count < len(counts):
        title += f', the {count - detection} of {len(report.classes)} classes with the most confusions'
    _title(figure, title)
    _text(figure, 0.15, 0.12, frequent, fontsize=9.5)
    return figure


def _most_frequent(counts: np.ndarray, names: Sequence[str], detection: bool, most: int = 6) -> str:
    """The confusions with the highest counts, in words, on two lines."""
    wrong = counts - np.diag(np.diag(counts))
    background = len(names) - 1 if detection else None
    texts = []
    for place in np.argsort(-wrong, axis=None, kind='stable')[:most]:
        i, j = np.unravel_index(place, wrong.shape)
        if not wrong[i, j]:
            break
        kind = f'false {names[j]}' if i == background else f'{names[i]} missed' if j == background else ''
        texts.append(f'{kind or f"{names[i]} as {names[j]}"} {_short(wrong[i, j])}')
    if not texts:
        return 'No confusions, nothing missed, nothing false.' if detection else 'No confusions.'
    half = most // 2
    return 'Most frequent: ' + ', '.join(texts[:half]) + (',\n' + ', '.join(texts[half:]) if texts[half:] else '')


def _most_confused(counts: np.ndarray, most: int) -> np.ndarray:
    """Sorted indices of at most ``most`` classes, the last always among them."""
    if len(counts) <= most:
        return np.arange(len(counts))
    wrong = (counts - np.diag(np.diag(counts)))[:-1, :-1]
    worst = np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind='stable')[: most - 1]
    return np.array([*sorted(worst), len(counts) - 1])


@with_fonts
def draw_label_histogram(counts: Mapping[str, Mapping[str, tuple[int, int]]], what: str = 'objects') -> Figure:
    """How many objects each class has, and in how many images; the most frequent class of the first split first.

    Args:
        counts: split -> class -> (images, instances); all splits have the same classes.
        what: the instances are, 'objects' or 'pixels'; 'images' where there are none.
    """
    splits = list(counts)
    classes = list(counts[splits[0]])
    order, note = _ends(sorted(classes, key=lambda name: -counts[splits[0]][name][1]), 'most frequent', 'rarest')
    bars = {split: [counts[split][name][1] for name in order] for split in splits}
    marks = {split: [counts[split][name][0] for name in order] for split in splits}
    names = dict(zip(classes, legible_names(classes), strict=True))
    figure, columns = _class_columns([names[name] for name in order], len(splits))
    top = max(1, *(max(values) for values in bars.values()))
    height = 0.8 / len(splits)
    for axes, rows in columns:
        axes.set_xscale('log')
        axes.set_xlim(0.8, top * 4)
        for i, split in enumerate(splits):
            places = np.arange(len(rows)) + (i - (len(splits) - 1) / 2) * height
            values = np.array(bars[split])[rows]
            axes.barh(places, values, height * 0.92, color=COLORS[i])
            if what != 'images':
                size = 5 if len(splits) > 1 else 8
                axes.plot(np.array(marks[split])[rows], places, '|', color='white', ms=size, mew=1.4)
            for place, value in zip(places, values.tolist(), strict=True):
                text, color = (f' {value:,}', 'black') if value else (' none', RED)
                axes.text(max(value, 0.8), place, text, va='center', fontsize=7.5, color=color)
        axes.xaxis.set_major_formatter('{x:,.0f}')
        axes.set_xlabel(f'{what} (logarithmic)')
    keys: list[Artist] = [Patch(color=COLORS[i], label=f'{split}: {what}') for i, split in enumerate(splits)]
    if what != 'images':
        keys.append(Line2D([], [], ls='', marker='|', color='black', ms=9, mew=1.4, label='line in the bar: images'))
    _legend(figure, keys)
    _title(figure, f'Labels of {len(classes)} classes{note}')
    return figure


@with_fonts
def draw_per_class(report: EvaluationReport) -> Figure:
    """A bar a class, the best first: AP with AP50 as a mark, or IoU with accuracy."""
    main, second = report.columns[:2]
    values, marks = report.column(main), report.column(second)
    names = legible_names(report.classes)
    order, note = _ends(sorted(range(len(values)), key=lambda k: -np.nan_to_num(values[k], nan=-1)), 'best', 'worst')
    full = 100 if report.task == 'semantic' else 1
    figure, columns = _class_columns([names[k] for k in order], 1)
    average = np.nanmean(values) if not np.isnan(values).all() else np.nan
    for axes, rows in columns:
        kept = np.array(order)[rows]
        places = np.arange(len(rows))
        axes.barh(places, np.nan_to_num(values[kept]), 0.74, color=COLORS[0])
        axes.plot(marks[kept], places, '|', color='black', ms=8, mew=1.4)
        style: dict[str, Any] = dict(va='center', fontsize=7.5)
        for place, (value, mark) in enumerate(zip(values[kept], marks[kept], strict=True)):
            if np.isnan(value):
                axes.text(0.01 * full, place, 'no objects', color=RED, **style)
            elif value > 0.2 * full:
                axes.text(value - 0.01 * full, place, _value(value, full), ha='right', color='white', **style)
            else:
                axes.text(np.nanmax([value, mark]) + 0.02 * full, place, _value(value, full), **style)
        axes.axvline(average, color=COLORS[1], lw=1.2, zorder=0.5)
        axes.set_xlim(0, 1.02 * full)
        axes.set_xticks(np.linspace(0, full, 6))
        axes.set_xlabel(f'{main}{", %" if full == 100 else ""}')
    keys = [
        Patch(color=COLORS[0], label=main),
        Line2D([], [], ls='', marker='|', color='black', ms=9, mew=1.4, label=second),
        Line2D([], [], color=COLORS[1], lw=1.2, label=f'mean {main} {_value(average, full)}'),
    ]
    _legend(figure, keys)
    _title(figure, f'{main} of {len(values)} classes{note}')
    return figure


def _ends(order: list, first: str, last: str) -> tuple[list, str]:
    """Both ends of a list that is too long to draw, and what to say of it."""
    half = MOST_BARS // 2
    if len(order) <= MOST_BARS:
        return order, ''
    return order[:half] + order[-half:], f', the {half} {first} and {half} {last}'


def plain(name: str) -> str:
    """A class name for a figure: one line of at most 26 letters, without the markup of matplotlib."""
    name = ' '.join(str(name).split())
    if len(name) > LETTERS:
        name = f'{name[: LETTERS - 1]}…'
    return name.replace('$', r'\$')


def _class_columns(names: Sequence[str], bars: int) -> tuple[Figure, list[tuple[Axes, np.ndarray]]]:
    """Axes side by side of at most 50 rows each, with the names beside the rows."""
    count = len(names)
    panels = max(1, -(-count // MOST_ROWS))
    rows = -(-count // panels)
    labels = 0.25 + 0.078 * max((min(len(name), LETTERS) for name in names), default=0)
    row, width = 0.2 if bars == 1 else 0.15 * bars, 3.4 if panels > 1 else 5.0
    height = max(row * rows, 0.8)
    figure = _figure(max(panels * (labels + width) + 0.2, 6.0), 0.95 + height + 0.6)
    columns = []
    for panel in range(panels):
        part = np.arange(panel * rows, min((panel + 1) * rows, count))
        axes = _axes(figure, labels + panel * (labels + width), 0.6, width - 0.15, height)
        shown = [plain(names[k]) for k in part.tolist()]
        axes.set_yticks(range(len(shown)), shown, fontsize=9)
        axes.set_ylim(rows - 0.4, -0.6)
        axes.grid(axis='x', alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[['top', 'right']].set_visible(False)
        axes.tick_params(axis='y', length=0)
        columns.append((axes, part))
    return figure, columns


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=110, facecolor='white')
    FigureCanvasAgg(figure)
    return figure


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def _text(figure: Figure, left: float, bottom: float, text: str, **style: Any) -> None:
    """A text at a place given in inches."""
    across, up = figure.get_size_inches()
    figure.text(left / across, bottom / up, text, **style)


def _title(figure: Figure, text: str) -> None:
    _text(figure, 0.15, figure.get_figheight() - 0.12, text, va='top', fontsize=12)


def _legend(figure: Figure, keys: Sequence[Artist]) -> None:
    across, up = figure.get_size_inches()
    place = (0.05 / across, 1 - 0.38 / up)
    figure.legend(handles=keys, loc='upper left', bbox_to_anchor=place, ncols=len(keys), frameon=False, fontsize=9)


def _value(value: float, full: int) -> str:
    return f'{value:.1f}' if full == 100 else f'{value:.3f}'


def _short(number: int) -> str:
    """12345 as 12.3k."""
    for size, letter in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if number >= 9999.5 and number >= 0.9995 * size:
            return f'{number / size:.3g}{letter}'
    return str(int(number))
