"""Operators that exported graphs have, in PyTorch and in onnxruntime."""

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
from mmcv.ops import batched_nms
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import nn
from torch.nn import functional as F

from vitdense.export.exported import paste
from vitdense.export.nms import nms
from vitdense.export.onnx import translate
from vitdense.export.record import record
from vitdense.export.recordable import AveragePool, Enlarge
from vitdense.export.two_stage import pool
from vitdense.ops.ms_deform_attn import ms_deform_attn, use_backend

FREE = torch.export.Dim.DYNAMIC


def exported(module: nn.Module, inputs: tuple, shapes: tuple, path) -> onnxruntime.InferenceSession:
    onnx_ir.save(translate(record(module, inputs, shapes)), path)
    return onnxruntime.InferenceSession(path)


def run(session: onnxruntime.InferenceSession, *inputs: torch.Tensor) -> list[np.ndarray]:
    return session.run(None, {one.name: value.numpy() for one, value in zip(session.get_inputs(), inputs, strict=True)})


def candidates(batch: int, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch)
    low = torch.rand(batch, number, 2, generator=generator) * 40
    boxes = torch.cat([low, low + 5 + torch.rand(batch, number, 2, generator=generator) * 20], -1)
    return (
        boxes,
        torch.rand(batch, number, generator=generator),
        torch.randint(0, 3, (batch, number), generator=generator),
    )


class Nms(nn.Module):
    def forward(self, boxes, scores, labels):
        return nms(boxes, scores, labels, 0.5, 0.3, 10)


@pytest.mark.slow
def test_nms_is_that_of_mmcv_in_both(tmp_path):
    session = exported(Nms(), candidates(2, 50), ({0: FREE, 1: FREE},) * 3, tmp_path / 'nms.onnx')
    for batch, number in ((1, 50), (3, 80), (2, 12)):
        boxes, scores, labels = inputs = candidates(batch, number)
        ours, theirs = Nms()(*inputs), run(session, *inputs)
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(mine.numpy(), other)
        for i in range(batch):
            good = scores[i] > 0.3
            expected, keep = batched_nms(
                boxes[i, good], scores[i, good], labels[i, good], dict(type='nms', iou_threshold=0.5)
            )
            there = ours[1][i] > 0
            assert there.sum() == min(10, len(keep))
            torch.testing.assert_close(ours[0][i, there], boxes[i, good][keep[:10]])
            torch.testing.assert_close(ours[1][i, there], expected[:10, 4])
            torch.testing.assert_close(labels[i, ours[2][i, there]], labels[i, good][keep[:10]])


class Sample(nn.Module):
    def forward(self, one, two, locations, weights):
        value = torch.cat([x.flatten(2).transpose(1, 2) for x in (one, two)], 1).unflatten(2, (4, 8))
        return ms_deform_attn(value, [tuple(one.shape[2:]), tuple(two.shape[2:])], locations, weights)


@pytest.mark.slow
def test_deformable_attention_is_that_of_the_reference(tmp_path):
    def inputs(batch, h, w, queries):
        generator = torch.Generator().manual_seed(h)
        places = batch, queries, 4, 2, 3
        return (
            torch.rand(batch, 32, h, w, generator=generator),
            torch.rand(batch, 32, (h + 1) // 2, w // 2 + 1, generator=generator),
            torch.rand(*places, 2, generator=generator) * 1.4 - 0.2,
            torch.rand(*places, generator=generator),
        )

    maps, tokens = {0: FREE, 2: FREE, 3: FREE}, {0: FREE, 1: FREE}
    session = exported(Sample(), inputs(2, 8, 9, 5), (maps, maps, tokens, tokens), tmp_path / 'sample.onnx')
    for sizes in ((2, 8, 9, 5), (1, 8, 9, 1), (3, 4, 20, 7)):
        given = inputs(*sizes)
        with use_backend('reference'):
            expected = Sample()(*given)
        np.testing.assert_allclose(run(session, *given)[0], expected, atol=1e-5)


def test_operators_have_fakes_that_agree():
    torch.library.opcheck(nms, (*candidates(2, 30), 0.5, 0.3, 10), test_utils=('test_schema', 'test_faketensor'))


@pytest.mark.slow
def test_regions_of_a_pyramid_are_those_of_mmdet(tmp_path):
    extractor = SingleRoIExtractor(
        dict(type='RoIAlign', output_size=(5, 7), sampling_ratio=0), out_channels=4, featmap_strides=[4, 8, 16]
    )

    class Pool(nn.Module):
        def forward(self, one, two, three, boxes):
            return pool(extractor, [one, two, three], boxes)

    def inputs(batch, side):
        generator = torch.Generator().manual_seed(side)
        maps = [torch.rand(batch, 4, side // s, side // s, generator=generator) for s in (4, 8, 16)]
        low = torch.rand(batch, 9, 2, generator=generator) * side * 0.4
        size = torch.rand(batch, 9, 2, generator=generator) ** 2 * side
        return [*maps, torch.cat([low, low + 2 + size], -1)]

    maps = {0: FREE, 2: FREE, 3: FREE}
    session = exported(Pool(), tuple(inputs(2, 320)), (maps, maps, maps, {0: FREE}), tmp_path / 'pool.onnx')
    for batch, side in ((1, 320), (3, 480)):
        *levels, boxes = given = inputs(batch, side)
        images = torch.arange(batch).float().view(-1, 1, 1).expand(-1, 9, 1)
        expected = extractor(levels, torch.cat([images, boxes], -1).flatten(0, 1))
        torch.testing.assert_close(Pool()(*given), expected)
        np.testing.assert_allclose(run(session, *given)[0], expected, atol=1e-5)


@pytest.mark.parametrize('size', [(2, 2), (3, 3), (6, 6), (1, 4)])
@pytest.mark.parametrize('hw', [(7, 9), (13, 6), (3, 4)])
def test_average_pool(size, hw):
    x = torch.rand(2, 3, *hw)
    torch.testing.assert_close(AveragePool(size)(x), F.adaptive_avg_pool2d(x, size))


@pytest.mark.parametrize('align_corners', [False, True])
def test_enlarge(align_corners):
    from mmseg.models.utils import Upsample

    x = torch.rand(2, 3, 5, 7)
    expected = Upsample(scale_factor=2, mode='bilinear', align_corners=align_corners)(x)
    torch.testing.assert_close(Enlarge(2.0, 'bilinear', align_corners)(x), expected)


def test_masks_are_pasted_as_in_mmdet():
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(30, 28, 28, generator=generator)
    low = torch.rand(30, 2, generator=generator) * 50 - 3
    boxes = torch.cat([low, low + 0.3 + torch.rand(30, 2, generator=generator) * 45], -1)
    expected, _ = _do_paste_mask(shares[:, None], boxes, 60, 90, skip_empty=False)
    found = paste(shares.numpy(), boxes.numpy(), (60, 90), 0.5)
    clear = (expected - 0.5).abs() > 1e-4
    np.testing.assert_array_equal(found[clear], (expected >= 0.5)[clear])
    assert clear.float().mean() > 0.99
