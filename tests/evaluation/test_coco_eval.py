"""COCO numbers beside pycocotools, the confusion matrix beside counting by hand."""

import contextlib
import copy
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.coco import make, sample

from vitdense.evaluation.coco_eval import GroundTruth, evaluate, predictions
from vitdense.evaluation.confusion import confusion_matrix

LAST_BIT = np.finfo(float).eps
IOU_THRS = np.linspace(0.5, 0.95, 10)


def reference(coco: dict, samples: list[dict], iou_type: str, max_dets=(100, 300, 1000), use_cats: int = 1) -> COCOeval:
    """pycocotools' evaluation of the same."""
    truth = COCO()
    truth.dataset = copy.deepcopy(coco)
    results = []
    for one in samples:
        pred = one['pred_instances']
        for i, (x1, y1, x2, y2) in enumerate(pred['bboxes'].double().tolist()):
            new = dict(
                image_id=one['img_id'], category_id=2 * int(pred['labels'][i]) + 1, score=float(pred['scores'][i])
            )
            new |= {'bbox': [x1, y1, x2 - x1, y2 - y1]} if iou_type == 'bbox' else {'segmentation': pred['masks'][i]}
            results.append(new)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(results), iou_type)
        evaluator.params.maxDets = list(max_dets)
        evaluator.params.useCats = use_cats
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def ours(coco: dict, samples: list[dict], iou_type: str, max_dets=(100, 300, 1000), use_classes: bool = True):
    api = COCO()
    api.dataset = copy.deepcopy(coco)
    with contextlib.redirect_stdout(io.StringIO()):
        api.createIndex()
    masks = iou_type == 'segm'
    truth = GroundTruth.read(api, {category['id']: k for k, category in enumerate(coco['categories'])}, masks)
    results = [
        {'img_id': s['img_id'], **{k: v if k == 'masks' else v.numpy() for k, v in s['pred_instances'].items()}}
        for s in samples
    ]
    return evaluate(truth, predictions(results, truth, masks), iou_type, IOU_THRS, max_dets, use_classes)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 8),
    classes=st.integers(1, 5),
    crowd=st.sampled_from([0.0, 0.3]),
    iou_type=st.sampled_from(['bbox', 'segm']),
    max_dets=st.sampled_from([(100, 300, 1000), (1, 10, 100), (1, 2, 3)]),
    use_classes=st.booleans(),
)
def test_numbers_of_pycocotools(seed, images, classes, crowd, iou_type, max_dets, use_classes):
    coco, samples = make(seed, images, [f'c{k}' for k in range(classes)], crowd, masks=iou_type == 'segm')
    theirs = reference(coco, samples, iou_type, max_dets, int(use_classes))
    result = ours(coco, samples, iou_type, max_dets, use_classes)
    np.testing.assert_allclose(result.precision, theirs.eval['precision'], rtol=0, atol=LAST_BIT)
    np.testing.assert_array_equal(result.recall, theirs.eval['recall'])
    np.testing.assert_array_equal(result.score, theirs.eval['scores'])
    np.testing.assert_allclose(list(result.stats().values()), theirs.stats, rtol=0, atol=LAST_BIT)


def test_numbers_of_pycocotools_on_blood_cells():
    path = Path(os.environ.get('VITDENSE_DATA', 'data')) / 'bccd/annotations/instances_val.json'
    if not path.is_file():
        pytest.skip(f'{path} is not there')
    coco = json.loads(path.read_text())
    old = [category['id'] for category in coco['categories']]
    for annotation in coco['annotations']:
        annotation['category_id'] = 2 * old.index(annotation['category_id']) + 1
    coco['categories'] = [dict(id=2 * k + 1, name=c['name']) for k, c in enumerate(coco['categories'])]
    rng, samples = np.random.default_rng(0), []
    for image in coco['images']:
        mine = [a for a in coco['annotations'] if a['image_id'] == image['id']]
        boxes = np.array([a['bbox'] for a in mine], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes += rng.normal(0, 8, boxes.shape)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        labels = [(a['category_id'] // 2 + (rng.random() < 0.1)) % 3 for a in mine]
        samples.append(sample(image['id'], boxes, labels, rng.random(len(mine))))
    theirs = reference(coco, samples, 'bbox')
    assert 0.2 < theirs.stats[0] < 0.9
    np.testing.assert_allclose(list(ours(coco, samples, 'bbox').stats().values()), theirs.stats, rtol=0, atol=LAST_BIT)


def test_object_with_id_0_counts():
    coco, _ = make(0, 1, ['a'], crowd=0)
    coco['annotations'] = [dict(id=0, image_id=3, category_id=1, bbox=[10, 10, 50, 50], area=2500, iscrowd=0)]
    samples = [sample(3, [[10, 10, 60, 60]], [0], [0.9])]
    assert reference(coco, samples, 'bbox').stats[0] == pytest.approx(0)
    assert ours(coco, samples, 'bbox').stats()['mAP'] == pytest.approx(1)


def boxes_of(*rows) -> list[dict]:
    """(x, y, w, h, label, crowd or score) of one image."""
    keys = ('score', 'iscrowd')
    return [dict(image_id=1, bbox=row[:4], category_id=row[4], **dict.fromkeys(keys, row[5])) for row in rows]


@pytest.mark.parametrize(
    ('objects', 'found', 'expected'),
    [
        ([(0, 0, 10, 10, 0, 0)], [(0, 0, 10, 10, 1, 0.3)], {(0, 1): 1}),
        ([(0, 0, 10, 10, 0, 0)], [(0, 0, 10, 10, 0, 0.25)], {(0, 0): 1}),
        ([(0, 0, 10, 10, 0, 0)], [(0, 0, 10, 10, 0, 0.24)], {(0, 2): 1}),
        ([(0, 0, 10, 10, 0, 0)], [(0, 0, 10, 5, 0, 0.9)], {(0, 0): 1}),
        ([(0, 0, 10, 10, 0, 0)], [(0, 0, 10, 4.9, 0, 0.9)], {(0, 2): 1, (2, 0): 1}),
        # the higher IoU first, whatever its score and class; the second detection goes to the other object
        (
            [(0, 0, 10, 10, 0, 0), (0, 0, 10, 8, 1, 0)],
            [(0, 0, 10, 9, 0, 0.9), (0, 0, 10, 10, 1, 0.3)],
            {(0, 1): 1, (1, 0): 1},
        ),
        # the same box as two classes: the higher score
        ([(0, 0, 10, 10, 0, 0)], [(0, 0, 10, 10, 1, 0.3), (0, 0, 10, 10, 0, 0.9)], {(0, 0): 1, (2, 1): 1}),
        # a detection in a crowd of its class does not count, one of another class does
        ([(0, 0, 50, 50, 0, 1)], [(5, 5, 5, 5, 0, 0.9), (5, 5, 5, 5, 1, 0.9)], {(2, 1): 1}),
        ([], [], {}),
    ],
)
def test_confusion_by_hand(objects, found, expected):
    counts = confusion_matrix(boxes_of(*objects), boxes_of(*found), 2)
    assert {(int(i), int(j)): int(counts[i, j]) for i, j in np.argwhere(counts)} == expected


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(1, 4), masks=st.booleans())
def test_confusion_counts_each_object_once(seed, classes, masks):
    names = [f'c{k}' for k in range(classes)]
    coco, samples = make(seed, 3, names, crowd=0.0, masks=masks)
    api = COCO()
    api.dataset = coco
    with contextlib.redirect_stdout(io.StringIO()):
        api.createIndex()
    truth = GroundTruth.read(api, {2 * k + 1: k for k in range(classes)}, masks)
    results = [
        {'img_id': s['img_id'], **{k: v if k == 'masks' else v.numpy() for k, v in s['pred_instances'].items()}}
        for s in samples
    ]
    found = predictions(results, truth, masks)
    counts = confusion_matrix(truth.objects, found, classes)
    labels = [o['category_id'] for o in truth.objects]
    np.testing.assert_array_equal(counts[:-1].sum(1), np.bincount(labels, minlength=classes))
    sure = [d['category_id'] for d in found if d['score'] >= 0.25]
    np.testing.assert_array_equal(counts[:, :-1].sum(0), np.bincount(sure, minlength=classes))
    assert counts[-1, -1] == 0
    itself = confusion_matrix(truth.objects, [{**o, 'score': 1.0} for o in truth.objects], classes)
    np.testing.assert_array_equal(itself, np.diag([*np.bincount(labels, minlength=classes), 0]))
