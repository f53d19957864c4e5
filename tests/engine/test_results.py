"""The table of a run: what is in a row, and that it goes on over a resume."""

import math
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.toy_run import Spy, toy_runner

from vitdense.engine.hooks.output import Harmless, Occasional
from vitdense.engine.hooks.results import ResultsHook, read_rows, resumed_rows, write_rows
from vitdense.files import replacing
from vitdense.visualization.curves import draw_comparison, draw_curves

EPOCHS = dict(by_epoch=True, max_epochs=4, val_interval=2)


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    return tmp_path_factory.mktemp('data') / 'shapes'


@pytest.fixture(scope='module')
def finished(data_root, tmp_path_factory):
    """Work dir and spy of four epochs of two iterations, with a validation after the second and the fourth."""
    work_dir, spy = tmp_path_factory.mktemp('run'), Spy()
    metrics = [{'AP': 0.25, 'per_class': [1, 2]}, {'AP': float('nan'), 'AR': np.float32(0.5)}]
    toy_runner(work_dir, data_root, [ResultsHook(), spy], metrics, EPOCHS).train()
    return work_dir, spy


def without_time(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key != 'seconds'} for row in rows]


@pytest.mark.slow
def test_rows_are_those_of_the_run(finished):
    work_dir, spy = finished
    rows = read_rows(work_dir / 'results.csv')
    assert [(row['epoch'], row['iter']) for row in rows] == [(1, 2), (2, 4), (3, 6), (4, 8)]
    for i, row in enumerate(rows):
        part = spy.losses[2 * i : 2 * i + 2]
        assert {key for key in row if key.startswith('train/')} == {f'train/{key}' for key in part[0]}
        for key in part[0]:
            assert row[f'train/{key}'] == pytest.approx(np.mean([losses[key] for losses in part]), rel=1e-5)
        assert row['lr'] == pytest.approx(spy.rates[2 * i + 1], rel=1e-5)
    assert rows[0]['train/loss'] == pytest.approx(rows[0]['train/loss_a'] + rows[0]['train/loss_b'], rel=1e-4)
    assert [row.get('val/toy/AP') for row in rows[:3]] == [None, 0.25, None]
    assert math.isnan(rows[3]['val/toy/AP'])
    assert rows[3]['val/toy/AR'] == 0.5
    assert 'val/toy/per_class' not in rows[1]
    seconds = [row['seconds'] for row in rows]
    assert 0 <= seconds[0] <= seconds[-1]
    assert seconds == sorted(seconds)
    assert (work_dir / 'results.png').stat().st_size > 10_000
    assert not list(work_dir.glob('.*'))


def test_columns_are_in_the_order_people_read(finished):
    header = (finished[0] / 'results.csv').read_text().splitlines()[0]
    assert header.startswith('epoch,iter,')
    assert [name.split('/')[0] for name in header.split(',')[4:]] == ['train'] * 3 + ['val'] * 2


@pytest.mark.slow
def test_a_resumed_run_gives_the_rows_of_one_that_was_not_stopped(finished, data_root, tmp_path):
    work_dir, _ = finished
    resumed = tmp_path / 'run'
    shutil.copytree(work_dir, resumed)
    metrics = [{'AP': float('nan'), 'AR': 0.5}]
    hooks = [ResultsHook()]
    toy_runner(
        resumed, data_root, hooks, metrics, EPOCHS, load_from=str(resumed / 'epoch_2.pth'), resume=True
    ).train()  # fmt: skip
    before, after = read_rows(work_dir / 'results.csv'), read_rows(resumed / 'results.csv')
    assert str(without_time(after)) == str(without_time(before))
    assert after[:2] == before[:2]
    assert after[2]['seconds'] >= before[1]['seconds']


@pytest.mark.slow
def test_a_longer_run_adds_rows_and_columns(finished, data_root, tmp_path):
    work_dir, _ = finished
    resumed = tmp_path / 'run'
    shutil.copytree(work_dir, resumed)
    cfg = dict(EPOCHS, max_epochs=6)
    toy_runner(
        resumed, data_root, [ResultsHook()], [{'mIoU': 70}], cfg, load_from=str(resumed / 'epoch_4.pth'), resume=True
    ).train()  # fmt: skip
    before, after = read_rows(work_dir / 'results.csv'), read_rows(resumed / 'results.csv')
    assert str(after[:4]) == str(before)
    assert [row['iter'] for row in after[4:]] == [10, 12]
    assert after[5]['val/toy/mIoU'] == 70
    assert 'val/toy/AP' not in after[5]


@pytest.mark.slow
def test_rows_that_are_gone_come_from_the_checkpoint(finished, data_root, tmp_path):
    work_dir, spy = finished
    resumed = tmp_path / 'run'
    shutil.copytree(work_dir, resumed)
    write_rows(resumed / 'results.csv', read_rows(resumed / 'results.csv')[:1])
    toy_runner(
        resumed, data_root, [ResultsHook()], [{'AP': 0}], EPOCHS, load_from=str(resumed / 'epoch_2.pth'), resume=True
    ).train()  # fmt: skip
    rows = read_rows(resumed / 'results.csv')
    assert [row['iter'] for row in rows] == [2, 4, 6, 8]
    for i, row in enumerate(rows):
        losses = [losses['loss'] for losses in spy.losses[2 * i : 2 * i + 2]]
        assert row['train/loss'] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('seg', [False, True])
def test_training_by_iterations(data_root, tmp_path, seg):
    spy = Spy()
    cfg = dict(by_epoch=False, max_iters=8, val_interval=3)
    metrics = [{'mIoU': 10}, {'mIoU': 30}, {'mIoU': 20}]
    toy_runner(tmp_path / 'run', data_root, [ResultsHook(), spy], metrics, cfg, seg).train()
    rows = read_rows(tmp_path / 'run' / 'results.csv')
    assert [row['iter'] for row in rows] == [3, 6, 8]
    assert [row['val/toy/mIoU'] for row in rows] == [10, 30, 20]
    for row, (start, end) in zip(rows, [(0, 3), (3, 6), (6, 8)], strict=True):
        assert row['train/loss'] == pytest.approx(np.mean([step['loss'] for step in spy.losses[start:end]]), rel=1e-5)
        assert 'epoch' not in row


@pytest.mark.slow
def test_a_run_without_validation_has_a_row_at_the_end(data_root, tmp_path):
    cfg = dict(by_epoch=False, max_iters=5, val_begin=100, val_interval=100)
    runner = toy_runner(tmp_path / 'run', data_root, [ResultsHook()], [], cfg)
    runner._val_dataloader = runner._val_evaluator = runner._val_cfg = runner._val_loop = None
    runner.train()
    assert [row['iter'] for row in read_rows(tmp_path / 'run' / 'results.csv')] == [5]


def test_the_table_of_another_run_is_kept(finished, tmp_path):
    path = tmp_path / 'results.csv'
    shutil.copy(finished[0] / 'results.csv', path)
    content = path.read_text()
    (tmp_path / 'results_1.csv').write_text('mine')
    assert resumed_rows(path, 0) == []
    assert (tmp_path / 'results_2.csv').read_text() == content
    path.write_text('name,size\nhouse,3\n')
    assert resumed_rows(path, 4) == []
    assert (tmp_path / 'results_3.csv').read_text() == 'name,size\nhouse,3\n'
    assert not path.exists()
    shutil.copy(finished[0] / 'results.csv', path)
    assert [row['iter'] for row in resumed_rows(path, 5)] == [2, 4]
    assert path.read_text() == content


@pytest.mark.parametrize(('text', 'message'), [('a,b\n1,2\n', 'column "iter".*a.*b'), ('iter,a\n1,x\n', 'line 2')])
def test_what_is_no_table_is_named(tmp_path, text, message):
    (tmp_path / 'results.csv').write_text(text)
    with pytest.raises(ValueError, match=message):
        read_rows(tmp_path / 'results.csv')


value = st.one_of(st.floats(-1e6, 1e6).map(lambda x: float(f'{x:.6g}')), st.just(float('inf')))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.dictionaries(st.sampled_from(['lr', 'train/loss', 'val/a', 'val/b, c']), value), max_size=5))
def test_what_is_written_is_read(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp('table') / 'results.csv'
    rows = [{'iter': float(i + 1), **row} for i, row in enumerate(rows)] or [{'iter': 1.0}]
    write_rows(path, rows)
    assert read_rows(path) == rows


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / 'results.csv'
    path.write_text('whole')

    def write() -> None:
        with replacing(path) as part:
            part.write_text('half')
            raise OSError('disk full')

    with pytest.raises(OSError, match='disk full'):
        write()
    assert path.read_text() == 'whole'
    assert [p.name for p in tmp_path.iterdir()] == ['results.csv']


@pytest.mark.slow
def test_a_table_that_cannot_be_written_stops_no_training(data_root, tmp_path, monkeypatch):
    def full(*_) -> None:
        raise OSError('no space left')

    monkeypatch.setattr('vitdense.engine.hooks.results.write_rows', full)
    runner = toy_runner(tmp_path / 'run', data_root, [ResultsHook()], [{}, {}], EPOCHS)
    warnings = []
    monkeypatch.setattr(runner.logger, 'warning', lambda message, **_: warnings.append(message))
    runner.train()
    assert runner.iter == 8
    assert [message for message in warnings if 'results.csv' in message] == [
        "Writing results.csv failed, the run goes on: OSError('no space left')"
    ]


def test_an_occasional_action_stays_below_its_share(monkeypatch):
    now, spent = 0.0, 0.0
    monkeypatch.setattr('vitdense.engine.hooks.output.time.perf_counter', lambda: now)
    action = Occasional()
    for _ in range(10_000):
        now += 0.1
        if action.due():
            with action.timed():
                now += 0.5
                spent += 0.5
    assert 0.8 * Occasional.SHARE * now < spent <= Occasional.SHARE * now + 0.5


def test_each_kind_of_failure_is_logged_once():
    messages = []

    class Logger:
        def warning(self, message: str, **_) -> None:
            messages.append(message)

    class FakeRunner:
        logger = Logger()

    harmless = Harmless()
    for action in ('A', 'A', 'B'):
        with harmless(FakeRunner, action):
            raise RuntimeError('x')
    assert [message[0] for message in messages] == ['A', 'B']
    with pytest.raises(KeyboardInterrupt), harmless(FakeRunner, 'C'):
        raise KeyboardInterrupt


def rows_of(count: int, **columns: list) -> list[dict]:
    return [
        {'epoch': i + 1, 'iter': 10 * (i + 1), **{key: values[i] for key, values in columns.items()}}
        for i in range(count)
    ]


@pytest.mark.parametrize('count', [1, 2, 300])
def test_curves_are_the_columns_with_the_best_value_marked(count):
    values = np.random.default_rng(0).random(count).tolist()
    rows = rows_of(count, **{'train/loss': values, 'lr': values, 'val/AP': values, 'val/empty': [-1] * count})
    loss, rate, metric = draw_curves(rows).axes
    for axes in (loss, rate):
        line = axes.lines[0]
        assert line.get_xdata().tolist() == [row['epoch'] for row in rows]
        assert line.get_ydata().tolist() == values
    star, line = metric.lines
    assert line.get_ydata().tolist() == values
    best = int(np.argmax(values))
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (best + 1, values[best])
    legend = [text.get_text() for text in metric.get_legend().get_texts()]
    assert legend == [f'AP: best {values[best]:.4g} at epoch {best + 1}']


def test_curves_skip_what_is_missing_and_keep_percent_apart():
    rows = rows_of(3, **{'val/AP': [0.1, math.nan, 0.3], 'val/mIoU': [50, 60, 55], 'val/loss': [3, 2, 1]})
    del rows[0]['epoch']
    del rows[1]['val/mIoU']
    loss, fraction, percent = draw_curves(rows).axes
    assert loss.lines[0].get_xdata().tolist() == [10, 20, 30]
    assert fraction.lines[1].get_ydata().tolist() == [0.1, 0.3]
    assert percent.lines[1].get_xdata().tolist() == [10, 30]
    assert percent.get_xlabel() == 'iteration'


def test_a_poor_percentage_stays_with_the_others():
    rows = rows_of(2, **{'val/mIoU': [0.5, 0.6], 'val/aAcc': [1.8, 2.4], 'val/AP': [0.2, 0.3]})
    fraction, percent = draw_curves(rows).axes
    assert [line.get_ydata()[-1] for line in fraction.lines if len(line.get_ydata()) == 2] == [0.3]
    assert [line.get_ydata()[-1] for line in percent.lines if len(line.get_ydata()) == 2] == [0.6, 2.4]


def test_all_of_a_picture_of_curves_is_within_it():
    columns = {f'val/metric_with_a_long_name_{i}': [0.05 * i, 0.2] for i in range(12)}
    figure = draw_curves(rows_of(2, **columns, **{'train/loss': [1, 2]}), 'title')
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    texts = [text for axes in figure.axes for text in axes.get_legend().get_texts()]
    assert 'and 4 more in results.csv' in [text.get_text() for text in texts]
    for artist in (*texts, *(axes.title for axes in figure.axes), *(axes.xaxis.label for axes in figure.axes)):
        box = artist.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y0 >= 0
        assert box.y1 <= figure.bbox.height


def test_comparison_of_runs_has_a_curve_of_each_against_epoch_and_minutes():
    runs = {
        name: [{**row, 'seconds': 60.0 * speed * row['epoch']} for row in rows_of(3, **{'val/mAP': values})]
        for name, speed, values in (('slow', 4, [0.1, 0.2, 0.3]), ('fast', 1, [0.2, 0.5, 0.4]))
    }
    figure = draw_comparison(runs, 'val/mAP')
    epochs, minutes = ([line.get_xydata().tolist() for line in axes.get_lines()] for axes in figure.axes)
    assert epochs == [[[1, 0.1], [2, 0.2], [3, 0.3]], [[1, 0.2], [2, 0.5], [3, 0.4]]]
    assert minutes == [[[4, 0.1], [8, 0.2], [12, 0.3]], [[1, 0.2], [2, 0.5], [3, 0.4]]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ['slow: best 0.3', 'fast: best 0.5']
    with pytest.raises(ValueError, match="run slow: unknown metric 'val/mIoU': did you mean 'val/mAP'"):
        draw_comparison(runs, 'val/mIoU')
