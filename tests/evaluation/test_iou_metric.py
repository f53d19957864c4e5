"""``vitdense.IoUMetric`` beside mmseg's metric and counting by hand."""

import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.logging import MMLogger
from mmseg.evaluation import IoUMetric as MMSegIoUMetric
from support import ROOT

from vitdense.evaluation import IoUMetric
from vitdense.registry import METRICS


def make(seed: int, images: int, classes: int, outside: bool = False) -> list[dict]:
    """Label maps and predictions of which about half are right, with ignored pixels."""
    rng, samples = np.random.default_rng(seed), []
    for _ in range(images):
        height, width = rng.integers(3, 12, 2)
        truth = rng.integers(0, classes + 2 * outside, (1, height, width))
        found = np.where(rng.random(truth.shape) < 0.5, truth % classes, rng.integers(0, classes, truth.shape))
        truth[rng.random(truth.shape) < 0.1] = 255
        truth, found = torch.as_tensor(truth).to(torch.uint8), torch.as_tensor(found)
        samples.append(dict(gt_sem_seg=dict(data=truth), pred_sem_seg=dict(data=found)))
    return samples


def run(metric, samples: list[dict], classes: int) -> dict[str, float]:
    metric.dataset_meta = dict(classes=tuple(f'c{k}' for k in range(classes)))
    metric.process({}, samples)
    return metric.evaluate(len(samples))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 5),
    classes=st.integers(1, 8),
    outside=st.booleans(),
    metrics=st.sampled_from([['mIoU'], ['mDice'], ['mFscore'], ['mIoU', 'mDice', 'mFscore'], 'mIoU']),
    nan_to_num=st.sampled_from([None, 0]),
)
def test_drop_in_for_mmseg(seed, images, classes, outside, metrics, nan_to_num):
    # with one class mmseg calls every label that one, see torch.histc(min=0, max=0)
    samples = make(seed, images, classes, outside and classes > 1)
    arguments = dict(iou_metrics=metrics, nan_to_num=nan_to_num, beta=2)
    theirs = run(MMSegIoUMetric(**arguments), samples, classes)
    metric = METRICS.build(dict(type='vitdense.IoUMetric', **arguments))
    result = run(metric, samples, classes)
    assert list(result) == list(theirs)
    assert list(result.values()) == pytest.approx(list(theirs.values()), abs=0, nan_ok=True)
    for key, value in result.items():
        if key != 'aAcc':
            values = metric.report.column(key.removeprefix('m'))
            if not np.isnan(values).all():
                assert value == pytest.approx(np.nanmean(values), abs=0.0051)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(1, 4), classes=st.integers(1, 6), outside=st.booleans())
def test_report_counts_pixels(seed, images, classes, outside):
    samples = make(seed, images, classes, outside)
    metric = IoUMetric()
    run(metric, samples, classes)
    expected = np.zeros((classes, classes), int)
    unions, pixels = np.zeros(classes, int), np.zeros(classes, int)
    for sample in samples:
        truth, found = (sample[key]['data'].numpy().ravel() for key in ('gt_sem_seg', 'pred_sem_seg'))
        for t, f in zip(truth[truth != 255], found[truth != 255], strict=True):
            if t < classes:
                expected[t, f] += 1
        for k in range(classes):
            unions[k] += (((truth == k) | (found == k)) & (truth != 255)).sum()
            pixels[k] += (truth == k).sum()
    report = metric.report
    np.testing.assert_array_equal(report.confusion, expected)
    np.testing.assert_array_equal(report.column('pixels'), pixels)
    assert report.columns == ['IoU', 'Acc', 'pixels']
    assert report.confusion_names == report.classes
    with np.errstate(invalid='ignore'):
        np.testing.assert_allclose(report.column('IoU'), 100 * np.diag(expected) / unions, rtol=1e-6)
        np.testing.assert_allclose(report.column('Acc'), 100 * np.diag(expected) / pixels, rtol=1e-6)


def test_exact_above_24_bits():
    """Twenty thousand images of 1023 pixels each: float32 sums stop adding single pixels at 2**24."""
    metric, theirs = IoUMetric(), MMSegIoUMetric()
    truth = torch.zeros(31, 33, dtype=torch.long)
    found = truth.clone()
    found[0, :100] = 1
    one = metric.intersect_and_union(found, truth, 2, 255)
    metric.dataset_meta = theirs.dataset_meta = dict(classes=('a', 'b'))
    metric.compute_metrics([one] * 20000)
    assert metric.report.per_class['a']['pixels'] == 1023 * 20000
    np.testing.assert_array_equal(metric.report.confusion, [[990 * 20000, 33 * 20000], [0, 0]])
    sums = sum([theirs.intersect_and_union(found, truth, 2, 255)[3]] * 20000)
    assert int(sums[0]) != 1023 * 20000


def test_collected_results_are_small():
    rng = np.random.default_rng(0)
    truth = torch.as_tensor(np.kron(rng.integers(0, 150, (4, 4)), np.ones((128, 128), int)))
    indices, counts = IoUMetric.intersect_and_union(truth.roll(5), truth, 150, 255)
    assert indices.nbytes + counts.nbytes < 2000
    assert counts.sum() == truth.numel()


def test_labels_outside_the_classes_are_named(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        run(IoUMetric(), make(0, 2, 3, outside=True), 3)
    finally:
        logger.removeHandler(caplog.handler)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any('pixels have labels outside the 3 classes' in warning for warning in warnings)


def test_files_only(tmp_path):
    samples = [dict(sample, img_path=f'{i}.jpg') for i, sample in enumerate(make(1, 2, 3))]
    metric = IoUMetric(format_only=True, output_dir=str(tmp_path))
    assert run(metric, samples, 3) == {}
    assert metric.report is None
    assert sorted(os.listdir(tmp_path)) == ['0.png', '1.png']


TWO_PROCESSES = """
import os, sys
sys.path[:0] = [{root!r}, {root!r} + '/tests', {root!r} + '/tests/evaluation']
import torch.distributed, torch.multiprocessing

def work(rank):
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT='{port}')
    torch.distributed.init_process_group('gloo', rank=rank, world_size=2)
    from test_iou_metric import make
    from vitdense.evaluation import IoUMetric
    samples = make(3, 5, 4)
    mine = samples[rank::2] + samples[:1] * (rank == 1)  # the sampler repeats an image to make the shares equal
    metric = IoUMetric()
    metric.dataset_meta = dict(classes=('c0', 'c1', 'c2', 'c3'))
    for sample in mine:
        metric.process({{}}, [sample])
    result = metric.evaluate(5)
    report = None if metric.report is None else metric.report.confusion.tolist()
    with open(f'rank{{rank}}.txt', 'w') as file:
        file.write(f'{{result}} {{report}}')
    torch.distributed.barrier()
    os._exit(0)  # threads of gloo abort some processes that end by themselves

if __name__ == '__main__':
    torch.multiprocessing.spawn(work, nprocs=2)
"""


@pytest.mark.slow
def test_two_processes(tmp_path):
    metric = IoUMetric()
    result = run(metric, make(3, 5, 4), 4)
    script = tmp_path / 'two.py'
    script.write_text(TWO_PROCESSES.format(root=str(ROOT), port=20000 + os.getpid() % 20000))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / 'rank0.txt').read_text() == f'{result} {metric.report.confusion.tolist()}'
    assert (tmp_path / 'rank1.txt').read_text() == f'{result} None'


@pytest.mark.parametrize('names', [['IoU'], ['mIoU', 'miou'], 'Dice', [None]])
def test_metrics_that_are_none_are_told_before_the_first_step(names):
    """mmseg's fails at the end of the first evaluation."""
    with pytest.raises(ValueError, match=r"unknown iou_metrics '.*': did you mean 'm"):
        IoUMetric(iou_metrics=names)
    assert IoUMetric(iou_metrics='mDice').metrics == 'mDice'
