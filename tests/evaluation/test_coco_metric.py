"""``vitdense.CocoMetric`` beside mmdet's, and where they part."""

import json
import logging
import os

import numpy as np
import pytest
from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmengine.logging import MMLogger
from support.coco import make, perfect, random_boxes, run, sample

from vitdense.evaluation import CocoMetric
from vitdense.registry import METRICS


@pytest.fixture
def write(tmp_path):
    def to_file(coco: dict) -> str:
        path = tmp_path / f'{len(os.listdir(tmp_path))}.json'
        path.write_text(json.dumps(coco))
        return str(path)

    return to_file


@pytest.mark.slow
@pytest.mark.parametrize(
    'arguments',
    [
        dict(metric='bbox', classwise=True),
        dict(metric=['bbox', 'segm'], classwise=True),
        dict(metric=['segm', 'proposal'], metric_items=['mAP', 'AR@100', 'AR_s@1000']),
        dict(metric='bbox', proposal_nums=(1, 10, 100), iou_thrs=np.array([0.5, 0.6])),
        dict(metric='bbox', prefix='p', use_mp_eval=False, sort_categories=True),
    ],
)
@pytest.mark.parametrize('from_file', [True, False])
def test_drop_in_for_mmdet(arguments, from_file, write):
    names = ['a', 'b', 'c']
    coco, samples = make(1, 6, names, masks=True)
    if from_file:
        arguments = {**arguments, 'ann_file': write(coco)}
    for one in samples:
        one['instances'] = [
            dict(
                bbox_label=a['category_id'] // 2,
                bbox=[*a['bbox'][:2], a['bbox'][0] + a['bbox'][2], a['bbox'][1] + a['bbox'][3]],
                ignore_flag=a['iscrowd'],
                mask=a['segmentation'],
            )
            for a in coco['annotations']
            if a['image_id'] == one['img_id']
        ]
    theirs = run(MMDetCocoMetric(**arguments), samples, names)
    result = run(METRICS.build(dict(type='vitdense.CocoMetric', **arguments)), samples, names)
    assert list(result) == list(theirs)
    assert list(result.values()) == pytest.approx(list(theirs.values()), abs=0, nan_ok=True)


@pytest.mark.parametrize(
    ('metrics', 'task'), [(['proposal', 'segm', 'bbox'], 'segm'), (['bbox', 'segm'], 'bbox'), (['proposal'], None)]
)
def test_report_of_the_first_metric_with_classes(metrics, task, write):
    coco, samples = make(1, 6, ['a', 'b'], crowd=0, masks=True)
    metric = CocoMetric(write(coco), metric=metrics, classwise=True)
    result = run(metric, samples, 'ab')
    if task is None:
        assert metric.report is None
        return
    assert metric.report.task == task
    assert [one.task for one in metric.reports] == [name for name in metrics if name != 'proposal']
    for one in metric.reports:
        assert one.column('AP').mean() == pytest.approx(result[f'coco/{one.task}_mAP'], abs=0.0005)
    assert metric.report.column('AP').mean() == pytest.approx(result[f'coco/{task}_mAP'], abs=0.0005)
    assert metric.report.column('AP50').mean() == pytest.approx(metric.report.curves.precision.mean())


def test_files_of_mmdet(write, tmp_path):
    coco, samples = make(2, 3, ['a', 'b'], masks=True)
    arguments = dict(ann_file=write(coco), metric=['bbox', 'segm'], format_only=True)
    for kind, name in ((MMDetCocoMetric, 'theirs'), (CocoMetric, 'ours')):
        assert run(kind(outfile_prefix=str(tmp_path / name), **arguments), samples, 'ab') == {}
    for part in ('bbox', 'segm'):
        assert (tmp_path / f'ours.{part}.json').read_text() == (tmp_path / f'theirs.{part}.json').read_text()


def test_classes_in_another_order_than_the_file(write):
    coco, _ = make(3, 8, ['a', 'b', 'c'], crowd=0)
    names = ['c', 'a', 'b']
    samples = perfect(coco, names)
    path = write(coco)
    assert run(MMDetCocoMetric(path), samples, names)['coco/bbox_mAP'] < 0.1  # although all is right
    metric = CocoMetric(path, classwise=True)
    result = run(metric, samples, names)
    assert result == {**dict.fromkeys(result, 1.0), 'coco/bbox_mAP_l': result['coco/bbox_mAP_l']}
    counts = np.bincount([a['category_id'] // 2 for a in coco['annotations']])
    assert list(metric.report.column('instances')) == [counts[2], counts[0], counts[1]]
    np.testing.assert_array_equal(np.diag(metric.report.confusion), [counts[2], counts[0], counts[1], 0])


def test_ids_of_the_file_out_of_order(write):
    coco, _ = make(4, 8, ['a', 'b'], crowd=0)
    coco['categories'].reverse()
    names = ['b', 'a']
    samples = perfect(coco, names)
    for one in samples:  # 'a' is never found
        keep = one['pred_instances']['labels'] == 0
        one['pred_instances'] = {key: value[keep] for key, value in one['pred_instances'].items()}
    theirs = run(MMDetCocoMetric(write(coco), classwise=True), samples, names)
    assert (theirs['coco/a_precision'], theirs['coco/b_precision']) == (1, 0)  # the wrong way round
    result = run(CocoMetric(write(coco), classwise=True), samples, names)
    assert (result['coco/a_precision'], result['coco/b_precision']) == (0, 1)


def test_classes_and_categories_without_each_other(write):
    coco, _ = make(5, 8, ['a', 'b', 'c'], crowd=0)
    names = ['x', 'c', 'a']
    samples = perfect(coco, names)
    samples[0]['pred_instances']['labels'][:1] = 0  # an 'x'
    path = write(coco)
    with pytest.raises(IndexError):
        run(MMDetCocoMetric(path), samples, names)
    metric = CocoMetric(path, classwise=True)
    result = run(metric, samples, names)
    assert 'coco/x_precision' not in result
    assert 'coco/b_precision' not in result
    assert result['coco/bbox_mAP'] > 0.9
    assert list(metric.report.per_class) == names
    x = metric.report.per_class['x']
    assert x['instances'] == 0
    assert np.isnan(x['AP'])
    assert metric.report.confusion[:, 0].sum() == 1


def test_predictions_without_category_are_not_written(write, tmp_path):
    coco, _ = make(5, 8, ['a', 'b', 'c'], crowd=0)
    names = ['x', 'c', 'a']
    samples = perfect(coco, names)
    expected = sum(len(s['pred_instances']['labels']) for s in samples) - 1
    samples[0]['pred_instances']['labels'][:1] = 0
    run(CocoMetric(write(coco), outfile_prefix=str(tmp_path / 'out')), samples, names)
    written = json.loads((tmp_path / 'out.bbox.json').read_text())
    assert len(written) == expected
    assert {p['category_id'] for p in written} == {1, 5}


def test_no_predictions(write):
    coco, samples = make(6, 4, ['a', 'b'], crowd=0, masks=True)
    samples = [sample(s['img_id'], [], [], [], masks=True) for s in samples]
    path = write(coco)
    assert run(MMDetCocoMetric(path), samples, 'ab') == {}
    metric = CocoMetric(path, metric=['bbox', 'segm', 'proposal', 'proposal_fast'])
    result = run(metric, samples, 'ab')
    small = any(a['area'] < 32**2 for a in coco['annotations'])
    assert small
    assert result['coco/bbox_mAP'] == result['coco/segm_mAP'] == result['coco/bbox_mAP_s'] == 0
    assert result['coco/AR@100'] == 0
    assert result['coco/bbox_mAP_l'] == -1
    report = metric.report
    np.testing.assert_array_equal(report.confusion[:-1, -1], report.column('instances'))
    assert report.confusion.sum() == len(coco['annotations'])
    assert (report.curves.precision == 0).all()


def test_no_images(write):
    coco, _ = make(6, 2, ['a'])
    assert run(CocoMetric(write(coco)), [], 'a')['coco/bbox_mAP'] == 0
    coco.update(images=[], annotations=[])
    assert run(CocoMetric(write(coco)), [], 'a')['coco/bbox_mAP'] == -1


def test_images_that_were_not_predicted_are_named(write, caplog):
    coco, samples = make(7, 5, ['a'])
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        run(CocoMetric(write(coco)), samples[:3], 'a')
    finally:
        logger.removeHandler(caplog.handler)
    assert [
        r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and '2 of 5 images' in r.getMessage()
    ]


def test_recall_of_proposals_in_any_order(write):
    """mmdet's own only works with equally many objects and equally many proposals in all images."""
    coco, _ = make(8, 5, ['a'])
    rng, samples = np.random.default_rng(0), []
    coco['annotations'] = []
    for image in coco['images']:
        boxes = random_boxes(rng, 4)
        samples.append(sample(image['id'], np.repeat(boxes, 2, 0) + rng.normal(0, 3, (8, 4)), [0] * 8, [0.5] * 8))
        for x1, y1, x2, y2 in boxes.tolist():
            new = dict(id=len(coco['annotations']) + 1, image_id=image['id'], category_id=1, iscrowd=0)
            coco['annotations'].append({**new, 'bbox': [x1, y1, x2 - x1, y2 - y1], 'area': (x2 - x1) * (y2 - y1)})
    arguments = dict(ann_file=write(coco), metric='proposal_fast', proposal_nums=(1, 3, 8))
    expected = run(MMDetCocoMetric(**arguments), samples, 'a')
    assert 0.05 < expected['coco/AR@1'] < expected['coco/AR@3'] < expected['coco/AR@8'] < 0.9
    assert run(CocoMetric(**arguments), samples, 'a') == pytest.approx(expected)
    assert run(CocoMetric(**arguments), samples[::-1], 'a') == pytest.approx(expected)
    assert run(MMDetCocoMetric(**arguments), samples[::-1], 'a') != pytest.approx(expected, abs=0.05)
    with pytest.raises(ValueError, match='inhomogeneous'):
        run(MMDetCocoMetric(**arguments), [sample(samples[0]['img_id'], [], [], []), *samples[1:]], 'a')


def test_curves_and_table_of_one_class(write):
    """Two objects; found, a false one, found: precision 1 up to a recall of 1/2, then 2/3."""
    coco = dict(images=[dict(id='i', height=100, width=100)], categories=[dict(id=7, name='cell')], annotations=[])
    for number, x in enumerate((0, 50)):
        coco['annotations'].append(
            dict(id=number, image_id='i', category_id=7, bbox=[x, 0, 40, 40], area=1600, iscrowd=0)
        )
    metric = CocoMetric(write(coco))
    boxes = [[0, 0, 40, 40], [0, 60, 40, 100], [50, 0, 90, 32]]  # the last with an IoU of 0.8
    result = run(metric, [sample('i', boxes, [0, 0, 0], [0.9, 0.8, 0.7])], ['cell'])
    report = metric.report
    first, second = 51 / 101, 50 / 101 * 2 / 3
    expected = dict(AP50=first + second, AP75=first + second, AP=first + 0.7 * second, AR=(7 * 1 + 3 * 0.5) / 10)
    expected |= dict(APm=expected['AP'], APs=np.nan, APl=np.nan, instances=2)
    assert report.per_class['cell'] == pytest.approx(expected, nan_ok=True)
    assert result['coco/bbox_mAP'] == round(expected['AP'], 3)
    curves = report.curves
    np.testing.assert_allclose(curves.precision[0], np.where(curves.recall <= 0.5, 1, 2 / 3))
    np.testing.assert_allclose(curves.score[0], np.where(curves.recall <= 0.5, 0.9, 0.7), rtol=1e-6)
    np.testing.assert_array_equal(report.confusion, [[2, 0], [1, 0]])
    assert report.confusion_names == ('cell', 'background')


def test_prints_nothing(write, capfd):
    coco, samples = make(9, 4, ['a', 'b'], masks=True)
    logger = MMLogger.get_current_instance()
    levels = [(handler, handler.level) for handler in logger.handlers]
    for handler, _ in levels:
        handler.setLevel(logging.WARNING)
    try:
        path = write(coco)
        run(CocoMetric(path, metric=['bbox', 'segm', 'proposal', 'proposal_fast'], classwise=True), samples, 'ab')
        written = capfd.readouterr()
        run(MMDetCocoMetric(path), samples, 'ab')
        assert 'Average Precision' in capfd.readouterr().out
    finally:
        for handler, level in levels:
            handler.setLevel(level)
    assert written == ('', '')


def test_bad_input(write, tmp_path):
    coco, _ = make(10, 2, ['a', 'b'])
    path = write(coco)
    with pytest.raises(ValueError, match=r"classes \['x', 'y'\], categories of the file \['a', 'b'\]"):
        CocoMetric(path).dataset_meta = dict(classes=('x', 'y'))
    with pytest.raises(ValueError, match='predicts class 1, but the data set has 1 classes'):
        run(CocoMetric(path), [sample(3, [[0, 0, 5, 5]], [1], [0.5])], 'a')
    with pytest.raises(ValueError, match="image 'z' was predicted"):
        run(CocoMetric(path), [sample('z', [[0, 0, 5, 5]], [0], [0.5])], 'ab')
    with pytest.raises(ValueError, match=r'metric segm: \d+ annotations of .* have no segmentation, the first is 1'):
        CocoMetric(path, metric='segm').dataset_meta = dict(classes=('a', 'b'))
    with pytest.raises(KeyError, match='segm is not in results'):
        run(CocoMetric(write(make(10, 2, ['a'], masks=True)[0]), metric='segm'), [sample(3, [], [], [])], 'a')
    with pytest.raises(KeyError, match="'mAP_5': did you mean 'mAP_50'"):
        CocoMetric(path, metric_items=['mAP_5'])
    with pytest.raises(ValueError, match='three numbers'):
        CocoMetric(path, proposal_nums=(100,))
    with pytest.raises(TypeError, match='claswise'):
        CocoMetric(path, claswise=True)
    for text in ('[1]', '{"images": []}', 'no json', '{"images": 3, "categories": []}'):
        bad = tmp_path / 'bad.json'
        bad.write_text(text)
        with pytest.raises(ValueError, match=r'bad\.json is no COCO file'):
            CocoMetric(str(bad))
