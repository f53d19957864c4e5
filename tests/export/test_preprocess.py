"""Exported files resize and normalise pictures as the pipelines do."""

import sys

import cv2
import numpy as np
import pytest
import torch
from mmdet.models import DetDataPreprocessor
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmseg.models import SegDataPreProcessor

from vitdense.export.preprocess import Preprocess, preprocess_of, resize

NORMAL = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
RESIZES = [
    dict(type='Resize', scale=(133, 80), keep_ratio=True),
    dict(type='Resize', scale=(80, 133), keep_ratio=True),
    dict(type='Resize', scale=(96, 64), keep_ratio=False),
    dict(type='Resize', scale_factor=1.37),
    dict(type='mmseg.ResizeShortestEdge', scale=(64, 64), max_size=90),
    dict(type='vitdense.DETRResize', scale=(80, 133)),
]
PADS = [
    dict(type='Pad', size=(220, 210), pad_val=dict(img=114)),
    dict(type='Pad', pad_to_square=True, pad_val=dict(img=(114, 7, 3))),
    dict(type='mmseg.ResizeToMultiple', size_divisor=32),
    dict(type='mmseg.ResizeToMultiple', size_divisor=7),
]
SHAPES = [(60, 80), (83, 61), (50, 150), (101, 101), (199, 31)]


@pytest.mark.parametrize(
    'step', RESIZES, ids=lambda step: f'{step["type"]}-{step.get("scale", step.get("scale_factor"))}'
)
@pytest.mark.parametrize('hw', SHAPES)
def test_equals_the_pipeline(step, hw):
    agrees([step], hw)


@pytest.mark.parametrize('pad', PADS, ids=lambda pad: list(pad)[1])
@pytest.mark.parametrize('hw', SHAPES)
def test_what_follows_a_resizing_equals_the_pipeline(pad, hw):
    agrees([RESIZES[0], pad], hw)


def agrees(steps, hw):
    image = np.random.default_rng(0).integers(0, 255, (*hw, 3), np.uint8)
    with DefaultScope.overwrite_default_scope('mmdet'):
        expected = Compose(steps)(dict(img=image.copy(), img_shape=hw, ori_shape=hw))['img']
    tensor = torch.from_numpy(expected).permute(2, 0, 1)
    expected = DetDataPreprocessor(**NORMAL)(dict(inputs=[tensor], data_samples=None))['inputs'][0]
    preprocess = preprocess_of([*steps, dict(type='PackDetInputs')], DetDataPreprocessor(**NORMAL))
    assert Preprocess.from_json(preprocess.to_json()) == preprocess
    found = preprocess(image)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_without_resizing_and_normalising():
    image = np.random.default_rng(0).integers(0, 255, (6, 7, 3), np.uint8)
    preprocess = preprocess_of([dict(type='PackSegInputs')], SegDataPreProcessor())
    np.testing.assert_array_equal(preprocess(image), image.transpose(2, 0, 1))


@pytest.mark.parametrize(
    'steps',
    [[dict(type='Pad', size_divisor=32)], [dict(type='Resize', scale=(4, 4)), dict(type='Resize', scale=(9, 9))]],
)
def test_what_a_file_cannot_describe(steps):
    with pytest.raises(ValueError, match=r'the test (pipeline has Pad|resizes pictures 2 times)'):
        preprocess_of([*steps, dict(type='PackDetInputs')], DetDataPreprocessor())


@pytest.mark.parametrize('wh', [(40, 33), (133, 101), (80, 60), (7, 200)])
def test_resizing_without_opencv(wh, monkeypatch):
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    expected = cv2.resize(image, wh, interpolation=cv2.INTER_LINEAR).astype(int)
    monkeypatch.setitem(sys.modules, 'cv2', None)
    assert np.abs(resize(image, wh) - expected).max() <= 1
