"""What the figures show, and that it can be read."""

import csv
import io
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.text import Text
from rich.console import Console
from support.sweep import but_for_the_sweep

from vitdense.engine.hooks.evaluation_files import EvaluationFilesHook, per_class_table, write_per_class
from vitdense.evaluation import Curves, EvaluationReport
from vitdense.visualization.plots import (
    draw_confusion_matrix,
    draw_label_histogram,
    draw_per_class,
    draw_pr_curves,
    plain,
)

COUNTS = (1, 3, 12, 20, 40, 80, 150, 250)


def report(count: int, task: str = 'bbox', empty: bool = False) -> EvaluationReport:
    """Random values; the second class has no objects; some names are long."""
    rng = np.random.default_rng(count)
    classes = tuple(f'Class {k}' + ' of the wider world' * (k % 7 == 3) for k in range(count))
    instances = rng.integers(1, 3000, count) * (not empty)
    instances[1:2] = 0
    side = count + (task != 'semantic')
    confusion = np.zeros((side, side), np.int64)
    for k in range(count):
        confusion[k] = rng.multinomial(instances[k], rng.dirichlet(np.where(np.arange(side) == k, 5, 0.05)))
    values = np.where(instances > 0, rng.random(count), np.nan)
    if task == 'semantic':
        rows = [
            dict(IoU=80 * value, Acc=100 * value, pixels=int(n)) for value, n in zip(values, instances, strict=True)
        ]
        return EvaluationReport(task, classes, dict(zip(classes, rows, strict=True)), confusion)
    recall = np.linspace(0, 1, 101)
    precision = np.where(recall <= values[:, None], 0.9, 0) + 0 * values[:, None]
    score = np.where(precision > 0, 1 - recall / 2, 0 * precision)
    rows = [
        dict(AP=value / 2, AP50=value, AP75=value / 3, APs=np.nan, APm=value, APl=value, AR=value, instances=int(n))
        for value, n in zip(values, instances, strict=True)
    ]
    curves = Curves(recall, precision, score)
    return EvaluationReport(task, classes, dict(zip(classes, rows, strict=True)), confusion, curves)


def tick_labels(axis) -> list[Text]:
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [label for tick in ticks for label in (tick.label1, tick.label2) if label.get_visible()]


def assert_readable(figure) -> None:
    """Nothing leaves the figure, and no two labels of an axis, texts on the axes, or axes cover each other."""
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    assert max(width, height) < 6000
    box = figure.get_tightbbox()
    assert box.x0 >= -0.01
    assert box.y0 >= -0.01
    assert box.x1 <= width / figure.dpi + 0.01
    assert box.y1 <= height / figure.dpi + 0.01
    for axes in figure.axes:
        for group in (tick_labels(axes.xaxis), tick_labels(axes.yaxis), axes.texts):
            assert_apart([text.get_window_extent() for text in group if text.get_text()])
    assert_apart([axes.get_tightbbox() for axes in figure.axes])
    assert_apart([text.get_window_extent() for text in figure.texts] + [axes.get_tightbbox() for axes in figure.axes])


def assert_apart(boxes: list) -> None:
    """No two boxes share more than half a pixel."""
    edges = np.array([[box.x0, box.x1, box.y0, box.y1] for box in boxes])
    if len(boxes) < 2:
        return
    x0, x1, y0, y1 = edges.T[:, :, None]
    overlap = np.minimum(x1, x1.T) - np.maximum(x0, x0.T), np.minimum(y1, y1.T) - np.maximum(y0, y0.T)
    both = np.argwhere((np.minimum(*overlap) > 0.5) & ~np.eye(len(boxes), dtype=bool))
    assert not len(both), [boxes[k] for k in both[0]]


@pytest.mark.slow
@pytest.mark.parametrize('count', but_for_the_sweep(COUNTS, COUNTS[:4] + COUNTS[-1:]))
@pytest.mark.parametrize('task', ['bbox', 'semantic'])
def test_readable(count, task):
    one = report(count, task)
    assert_readable(draw_confusion_matrix(one))
    assert_readable(draw_per_class(one))
    if one.curves:
        assert_readable(draw_pr_curves(one))
    train = {name: (k + 1, 10 * k) for k, name in enumerate(one.classes)}
    assert_readable(draw_label_histogram(dict(train=train)))
    assert_readable(draw_label_histogram(dict(train=train, val=train)))


@pytest.mark.slow
@pytest.mark.parametrize('task', ['bbox', 'segm', 'semantic'])
def test_nothing_to_show(task):
    for count in (1, 20):
        one = report(count, task, empty=True)
        figures = [draw_confusion_matrix(one), draw_per_class(one)]
        figures += [draw_pr_curves(one)] if one.curves else []
        figures.append(draw_label_histogram(dict(train=dict.fromkeys(one.classes, (0, 0)))))
        for figure in figures:
            assert_readable(figure)


def test_confusion_matrix_shows_shares():
    counts = np.array([[8, 2, 0], [0, 0, 0], [1, 1, 0]])
    one = EvaluationReport('bbox', ('a', 'b'), {'a': {}, 'b': {}}, counts)
    axes = draw_confusion_matrix(one).axes[0]
    shown = axes.images[0].get_array()
    np.testing.assert_allclose(shown.filled(-1), [[0.8, 0.2, 0], [-1, -1, -1], [0.5, 0.5, -1]])
    cells = {tuple(map(round, text.get_position()))[::-1]: text.get_text() for text in axes.texts}
    assert cells == {(0, 0): '80%\n8', (0, 1): '20%\n2', (2, 0): '50%\n1', (2, 1): '50%\n1'}
    assert [t.get_text() for t in axes.get_yticklabels()] == ['a  10', 'b  0', 'no object  2']
    assert [t.get_text() for t in axes.get_xticklabels()] == ['a', 'b', 'missed']


def test_a_matrix_without_confusions_says_so():
    names = tuple(f'class {i}' for i in range(13))
    for task, size, text in (('bbox', 14, 'No confusions, nothing missed'), ('semantic', 13, 'No confusions.')):
        one = EvaluationReport(task, names, {}, np.diag([3] * 13 + [0] * (size - 13)))
        assert any(found.get_text().startswith(text) for found in draw_confusion_matrix(one).texts)


def test_numbers_in_cells_can_be_read_on_their_colour():
    """The contrast of text and cell is at least 3 (WCAG's bound for graphics) for every share."""
    one = report(20)
    axes = draw_confusion_matrix(one).axes[0]
    image = axes.images[0]
    blues = colormaps['Blues']
    for text in axes.texts:
        column, row = map(round, text.get_position())
        rgb = np.array(blues(image.norm(image.get_array()[row, column]))[:3])
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)
        light, dark = sorted((linear, float(text.get_color() == 'white')), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3, text


def test_most_frequent_confusions_in_words():
    counts = np.diag(np.full(14, 50))
    counts[13, 13] = 0
    counts[2, 3], counts[4, 13], counts[13, 5] = 30, 20, 10
    names = tuple('abcdefghijklm')
    figure = draw_confusion_matrix(EvaluationReport('bbox', names, {name: {} for name in names}, counts))
    assert 'Most frequent: c as d 30, e missed 20, false f 10' in [text.get_text() for text in figure.texts]


@pytest.mark.slow
def test_only_the_most_confused_of_many_classes():
    one = report(400)
    one.confusion[7, 300] = 10**6
    figure = draw_confusion_matrix(one)
    rows = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(rows) == 160
    assert any(row.startswith(f'{plain(one.classes[7])}  ') for row in rows)
    assert any(row.startswith(f'{plain(one.classes[300])}  ') for row in rows)


def test_legend_of_few_curves():
    recall = np.linspace(0, 1, 101)
    precision = np.array([np.where(recall <= 0.5, 1, 0.4), np.full(101, np.nan), np.full(101, 0.5)])
    curves = Curves(recall, precision, np.where(np.isnan(precision), np.nan, 1 - recall / 4))
    figure = draw_pr_curves(EvaluationReport('bbox', ('a', 'b', 'c'), {}, np.zeros((4, 4)), curves))
    entries = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    a = (51 + 50 * 0.4) / 101
    assert entries == [
        f'{(a + 0.5) / 2:.3f}  mean of 2 classes',
        f'{a:.3f}  a, F1 0.67 at 0.88',
        '0.500  c, F1 0.67 at 0.75',
    ]
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 101]
    np.testing.assert_array_equal(lines[0].get_ydata(), precision[0])
    np.testing.assert_allclose(lines[-1].get_ydata(), precision[[0, 2]].mean(0))


def test_best_and_worst_of_many_curves_are_named():
    one = report(30)
    entries = [text.get_text() for text in draw_pr_curves(one).axes[0].get_legend().get_texts()]
    ap = np.nan_to_num(one.curves.precision.mean(1), nan=-1)
    ranked = [k for k in np.argsort(-ap, kind='stable') if ap[k] >= 0]
    named = [entry.split('  ')[1].split(', F1')[0] for entry in entries[1:]]
    assert named == [
        *(plain(one.classes[k]) for k in ranked[:3]),
        '23 more in grey',
        *(plain(one.classes[k]) for k in ranked[-3:]),
    ]


def test_no_curves():
    with pytest.raises(ValueError, match='no precision-recall curves'):
        draw_pr_curves(report(3, 'semantic'))


def test_histogram_shows_the_counts():
    counts = dict(train=dict(a=(2, 5), b=(3, 70)), val=dict(a=(0, 0), b=(1, 1)))
    axes = draw_label_histogram(counts).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ['b', 'a']
    assert [bar.get_width() for bar in axes.patches] == [70, 5, 1, 0]
    assert [text.get_text().strip() for text in axes.texts] == ['70', '5', '1', 'none']
    assert [list(line.get_xdata()) for line in axes.lines] == [[3, 2], [1, 0]]


def test_bars_are_sorted():
    one = report(5)
    axes = draw_per_class(one).axes[0]
    ap = one.column('AP')
    order = np.argsort(-np.nan_to_num(ap, nan=-1))
    assert [label.get_text() for label in axes.get_yticklabels()] == [plain(one.classes[k]) for k in order]
    assert axes.texts[-1].get_text() == 'no objects'


@pytest.mark.slow
def test_odd_names(tmp_path):
    names = ('$x^$', '_hidden', 'two\nlines', 'a' * 60, '')
    counts = np.diag([3, 3, 3, 3, 3, 0])
    recall = np.linspace(0, 1, 101)
    curves = Curves(recall, np.ones((5, 101)), np.ones((5, 101)))
    per_class = {name: dict(AP=0.5, AP50=0.6, instances=3) for name in names}
    one = EvaluationReport('segm', names, per_class, counts, curves)
    for number, draw in enumerate((draw_confusion_matrix, draw_per_class, draw_pr_curves)):
        figure = draw(one)
        assert_readable(figure)
        figure.savefig(tmp_path / f'{number}.png')
    entries = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert len(entries) == 6
    assert any('_hidden' in entry for entry in entries)
    write_per_class(tmp_path / 'per_class.csv', one)
    with open(tmp_path / 'per_class.csv', newline='') as file:
        assert [row['class'] for row in csv.DictReader(file)] == list(names)


def fake_runner(folder: Path, *reports: EvaluationReport | None) -> SimpleNamespace:
    metrics = [SimpleNamespace() if one is None else SimpleNamespace(report=one) for one in reports]
    evaluator = SimpleNamespace(metrics=metrics)
    warnings = []
    logger = SimpleNamespace(warning=lambda message, **_: warnings.append(message))
    return SimpleNamespace(
        work_dir=str(folder), val_evaluator=evaluator, test_evaluator=evaluator, logger=logger, warnings=warnings
    )


@pytest.mark.slow
def test_files_of_masks_beside_boxes(tmp_path):
    runner = fake_runner(tmp_path, report(3))
    runner.val_evaluator.metrics += [
        SimpleNamespace(reports=[]),
        SimpleNamespace(reports=[report(2), report(4, 'segm')]),
    ]
    hook = EvaluationFilesHook()
    hook.after_test_epoch(runner)
    names = {path.name for path in tmp_path.glob('*.csv')}
    assert names == {'per_class.csv', 'per_class_2.csv', 'per_class_2_segm.csv'}
    assert (tmp_path / 'per_class_2_segm.csv').read_text().count('\n') == 5
    assert (tmp_path / 'confusion_matrix_2_segm.png').is_file()
    assert printed(per_class_table(report(3, 'segm')))


def test_files_of_a_run(tmp_path):
    one, runner = report(3), fake_runner(tmp_path, None, report(3), report(4, 'semantic'))
    hook = EvaluationFilesHook()
    hook.after_val_epoch(runner)
    hook.after_train(runner)
    names = ['per_class.csv', 'per_class.png', 'confusion_matrix.png']
    expected = {*names, 'pr_curves.png', *(name.replace('.', '_2.') for name in names)}
    assert {path.name for path in tmp_path.iterdir()} == expected
    with open(tmp_path / 'per_class.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['class'] for row in rows] == list(one.classes)
    assert rows[1]['AP'] == ''
    assert [float(rows[k]['AP50']) for k in (0, 2)] == pytest.approx(one.column('AP50')[[0, 2]], rel=1e-5)
    assert [int(row['instances']) for row in rows] == list(one.column('instances'))


@pytest.mark.slow
def test_pictures_are_those_of_the_last_validation(tmp_path):
    runner = fake_runner(tmp_path, report(3))
    hook = EvaluationFilesHook()
    hook.after_val_epoch(runner)
    first = (tmp_path / 'pr_curves.png').read_bytes()
    runner.val_evaluator.metrics[0].report = report(4)
    hook.after_val_epoch(runner)  # at once: no time for pictures yet
    assert (tmp_path / 'pr_curves.png').read_bytes() == first
    assert (tmp_path / 'per_class.csv').read_text().count('\n') == 5
    hook.after_train(runner)
    assert (tmp_path / 'pr_curves.png').read_bytes() != first


def test_a_folder_that_is_gone_does_not_stop_the_run(tmp_path):
    runner = fake_runner(tmp_path / 'gone', report(3))
    hook = EvaluationFilesHook()
    hook.after_test_epoch(runner)
    assert any('per_class.csv' in message for message in runner.warnings)


def printed(table) -> list[list[str]]:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    return [re.split(r' {2,}', line.strip()) for line in console.export_text().splitlines() if 'Class ' in line]


def test_table_of_few_classes():
    one = report(3)
    rows = printed(per_class_table(one))
    assert [row[0] for row in rows] == list(one.classes)
    assert rows[0][1] == f'{one.column("AP")[0]:.3f}'
    assert rows[1][1] == '-'
    assert rows[2][-1] == str(one.per_class[one.classes[2]]['instances'])


def test_table_of_many_classes_has_the_best_and_the_worst():
    one = report(30, 'semantic')
    table = per_class_table(one, most=5)
    rows = printed(table)
    iou = one.column('IoU')
    ranked = [k for k in np.argsort(-iou, kind='stable') if not np.isnan(iou[k])]
    assert [row[0] for row in rows] == [one.classes[k] for k in ranked[:3] + ranked[-2:]]
    assert '3 best and 2 worst of 30 classes' in table.title
