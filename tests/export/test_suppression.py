"""NMS of a test as exported graphs have it, against mmcv's."""

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
from mmcv.ops import batched_nms
from torch import nn

from vitdense.export.onnx import translate
from vitdense.export.record import record
from vitdense.export.suppression import Suppression, suppression_of

FREE = torch.export.Dim.DYNAMIC
SOFT = dict(type='soft_nms', iou_threshold=0.4, min_score=0.05)
TESTS = {
    'linear': dict(nms=dict(SOFT), score_thr=0.2, max_per_img=12),
    'gaussian': dict(nms=dict(SOFT, method='gaussian', sigma=0.3), score_thr=0.2, max_per_img=12),
    'naive': dict(nms=dict(SOFT, method='naive'), score_thr=0.2, max_per_img=12),
    'agnostic': dict(nms=dict(type='nms', iou_threshold=0.5, class_agnostic=True), score_thr=0.2, max_per_img=12),
    'large': dict(nms=dict(type='nms', iou_threshold=0.5), score_thr=0.2, max_per_img=12, min_bbox_size=12),
}


class Suppressed(nn.Module):
    def __init__(self, suppression: Suppression) -> None:
        super().__init__()
        self.suppression = suppression

    def forward(self, boxes, scores, labels):
        return self.suppression(boxes, scores, labels)


def candidates(batch: int, number: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(number)
    low = torch.rand(batch, number, 2, generator=generator) * 40 - 5  # some heads do not cut boxes at the picture
    boxes = torch.cat([low, low + 5 + torch.rand(batch, number, 2, generator=generator) * 20], -1)
    scores = torch.rand(batch, number, generator=generator)
    return boxes, scores, torch.randint(0, 3, (batch, number), generator=generator)


@pytest.mark.slow
@pytest.mark.parametrize('test_cfg', TESTS.values(), ids=TESTS)
def test_equals_mmcv(test_cfg, tmp_path):
    module = Suppressed(suppression_of(test_cfg))
    shapes = ({0: FREE, 1: FREE},) * 3
    onnx_ir.save(translate(record(module, candidates(2, 50), shapes)), tmp_path / 'nms.onnx')
    session = onnxruntime.InferenceSession(tmp_path / 'nms.onnx')
    for batch, number in ((1, 50), (3, 80), (2, 6)):
        inputs = candidates(batch, number)
        found = session.run(None, {x.name: y.numpy() for x, y in zip(session.get_inputs(), inputs, strict=True)})
        for mine, other in zip(module(*inputs), found, strict=True):
            np.testing.assert_allclose(mine.numpy(), other, atol=1e-5)
        for i, (boxes, scores, labels) in enumerate(zip(*inputs, strict=True)):
            size = boxes[:, 2:] - boxes[:, :2]
            good = (scores > 0.2) & (size > test_cfg.get('min_bbox_size', 0)).all(-1)
            dets, keep = batched_nms(boxes[good], scores[good], labels[good], test_cfg['nms'])
            there = min(12, len(keep))
            assert there > 1
            np.testing.assert_allclose(found[0][i, :there], boxes[good][keep[:there]], atol=1e-5)
            np.testing.assert_allclose(found[1][i, :there], dets[:there, 4], atol=1e-5)
            np.testing.assert_array_equal(found[2][i, :there], labels[good][keep[:there]])
            assert (found[1][i, there:] == 0).all()
            assert (found[2][i, there:] == -1).all()


@pytest.mark.parametrize(
    ('nms', 'message'),
    [
        (dict(type='nms_match', iou_threshold=0.5), 'known are nms and soft_nms'),
        (dict(type='nms', iou_threshold=0.5, max_num=7), 'test_cfg.nms with max_num cannot be exported'),
        (dict(type='soft_nms', offset=1), 'test_cfg.nms with offset cannot be exported'),
    ],
)
def test_what_cannot_be_exported(nms, message):
    with pytest.raises(ValueError, match=message):
        suppression_of(dict(nms=nms, max_per_img=5))
