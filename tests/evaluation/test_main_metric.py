"""By which metric a checkpoint is the best one."""

import math

import pytest

from vitdense.evaluation.main_metric import direction, finite, main_metric

NAN = math.nan
COCO = {'coco/disc_precision': NAN, 'coco/mAP_precision': 0.9, 'coco/bbox_mAP': 0.3, 'coco/bbox_mAP_50': 0.5}
SEGM = {'coco/segm_mAP': 0.2, 'coco/segm_mAP_50': 0.4}
PANOPTIC = {'coco_panoptic/PQ': 40.0, 'coco_panoptic/SQ': 80.0, 'coco_panoptic/PQ_th': 41.0}
FSCORE = {'aAcc': 1.0, 'mFscore': 5.0, 'mPrecision': 6.0, 'mRecall': 7.0}


@pytest.mark.parametrize(
    ('metrics', 'expected'),
    [
        (COCO, 'coco/bbox_mAP'),
        (COCO | SEGM, 'coco/segm_mAP'),
        (COCO | SEGM | PANOPTIC, 'coco_panoptic/PQ'),
        ({'mine/boxes': 7.0} | COCO, 'coco/bbox_mAP'),
        ({'aAcc': 90.0, 'mIoU': 50.0, 'mAcc': 60.0}, 'mIoU'),
        ({'aAcc': 90.0, 'mDice': 50.0, 'mAcc': 60.0}, 'mDice'),
        (FSCORE, 'mFscore'),
        (FSCORE | {'mDice': 1.0, 'mIoU': 1.0}, 'mIoU'),
        ({'pascal_voc/AP50': 0.2, 'pascal_voc/mAP': 0.2}, 'pascal_voc/mAP'),
        ({'lvis/cat_precision': 0.2, 'lvis/bbox_AP': 0.1, 'lvis/bbox_AP50': 0.3}, 'lvis/bbox_AP'),
        ({'lvis_fixed_ap/AP': 0.1, 'lvis_fixed_ap/APr': 0.2}, 'lvis_fixed_ap/AP'),
        ({'cityscapes/mAP': 0.1, 'cityscapes/AP@50': 0.2}, 'cityscapes/mAP'),
        ({'crowd_human/mMR': 0.5, 'crowd_human/mAP': 0.4, 'crowd_human/JI': 0.1}, 'crowd_human/mAP'),
        ({'crowd_human/mMR': 0.5}, 'crowd_human/mMR'),
        ({'first/coco/bbox_mAP': 0.1, 'second/coco/bbox_mAP': 0.2}, 'first/coco/bbox_mAP'),
        ({'coco/AR@100': 0.1, 'coco/AR@300': 0.2}, 'coco/AR@100'),
        ({'coco/bbox_mAP_50': 0.1}, 'coco/bbox_mAP_50'),
        ({'coco/bbox_mAP': NAN, 'coco/bbox_mAP_50': 0.1}, 'coco/bbox_mAP'),
        ({'coco/bbox_mAP_copypaste': '0.1 0.2', 'mine/boxes': 3.0}, None),
        ({'d1': 0.1, 'rmse': 2.0, 'abs_rel': 0.4}, 'rmse'),
        ({'mine/boxes': 7.0, 'mine/cat_precision': 0.2}, None),
        ({'loss': 0.1}, 'loss'),
        ({}, None),
    ],
)  # fmt: skip
def test_the_main_metric(metrics, expected):
    assert main_metric(metrics) == expected


@pytest.mark.parametrize('metrics', [COCO, COCO | SEGM, COCO | SEGM | PANOPTIC, FSCORE])
def test_the_order_of_the_metrics_does_not_count(metrics):
    assert main_metric(dict(reversed(metrics.items()))) == main_metric(metrics)


@pytest.mark.parametrize(
    ('key', 'expected'),
    [
        *((key, 'greater') for key in ('coco/bbox_mAP', 'PQ', 'mFscore', 'AP50', 'AR_s@1000', 'top1_acc', 'mIoU')),
        *((key, 'less') for key in ('rmse', 'abs_rel', 'crowd_human/mMR', 'val/loss_cls', 'acc_loss', 'error')),
        *((key, None) for key in ('mine/boxes', 'stop_rate', 'maps', 'lapse', 'FLOPs')),
    ],
)
def test_the_direction_goes_by_whole_words(key, expected):
    assert direction(key) == expected


def test_numbers():
    assert [finite(value) for value in (1, '2', NAN, math.inf, None, [1])] == [1.0, None, None, None, None, None]
