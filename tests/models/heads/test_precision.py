"""Heads and necks whose weights are of another type than float32: what they compute, and that they learn."""

import copy
import math

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from vitdense.models.heads import (
    CascadedUpsamplerHead,
    DeformableDETRHead,
    DETRHead,
    SETRMLAHead,
    SETRUPHead,
    Trans2SegHead,
    YOLOSHead,
)
from vitdense.models.necks import MLANeck, SimpleFeaturePyramid

HW = (6, 8)
NARROW = dict(num_heads=2, encoder_layers=1, decoder_layers=2, feedforward_channels=24)
LEVELS = dict(NARROW, num_classes=3, in_channels=16, num_levels=2, num_points=2, num_queries=5)
SEG = dict(num_classes=3, norm_cfg=dict(type='BN'))
QUERY_HEADS = {
    'DETR': lambda: DETRHead(3, 16, channels=16, num_queries=5, **NARROW),
    'Deformable DETR': lambda: DeformableDETRHead(**LEVELS),
    'Deformable DETR with refined boxes': lambda: DeformableDETRHead(**LEVELS, with_box_refine=True),
    'YOLOS': lambda: YOLOSHead(3, 16),
}
OTHERS = {
    'SETR-PUP': lambda: SETRUPHead(**SEG, in_channels=16, channels=8, in_index=0, align_corners=False),
    'SETR-MLA': lambda: SETRMLAHead(**SEG, in_channels=[16, 16], channels=8, in_index=(0, 1), align_corners=False),
    'Trans2Seg': lambda: Trans2SegHead(
        **SEG, in_channels=(16, 16), channels=8, embed_dim=16, depth=2, num_heads=2, map_size=4, in_index=(0, 1)
    ),
    'TransUNet': lambda: CascadedUpsamplerHead(
        **SEG, in_channels=(16, 16), in_index=(0, 1), hidden_channels=8, block_channels=(8, 8)
    ),
    'MLA': lambda: MLANeck([16, 16], 8, norm_cfg=dict(type='BN')),
    'ViTDet': lambda: SimpleFeaturePyramid(16, 8),
}
ROUNDING = {torch.float16: 1e-2, torch.bfloat16: 6e-2, torch.float64: 1e-5}
"""Relative distance that a result may have from that in float32."""
every_type = pytest.mark.parametrize('dtype', ROUNDING, ids=str)


def inputs_of(name: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    if name == 'YOLOS':
        return [torch.randn(2, 5, 16, generator=generator)]
    first = tuple(2 * side for side in HW) if name in ('Trans2Seg', 'TransUNet') else HW
    second = tuple(side // 2 for side in HW) if 'Deformable' in name else HW
    return [torch.randn(2, 16, *hw, generator=generator) for hw in (first, second)]


def pair(build, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """A module in float32, and the same in ``dtype``."""
    torch.manual_seed(0)
    module = build()
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    module.eval()  # mmseg's returns None
    return module, copy.deepcopy(module).to(dtype)


def distance(found: Tensor, expected: Tensor) -> float:
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


@every_type
@pytest.mark.parametrize(('name', 'build'), (QUERY_HEADS | OTHERS).items(), ids=QUERY_HEADS | OTHERS)
def test_results_are_those_of_float32_but_for_rounding(name, build, dtype):
    exact, other = pair(build, dtype)
    feats = inputs_of(name)
    with torch.no_grad():
        expected, found = exact(feats), other([x.to(dtype) for x in feats])
    expected, found = ([x] if isinstance(x, Tensor) else x for x in (expected, found))
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert distance(a, b) < ROUNDING[dtype]
        assert name in QUERY_HEADS or a.dtype == dtype


def samples() -> list[DetDataSample]:
    """Two images, the second one without objects."""
    meta = dict(img_shape=(48, 64), batch_input_shape=(48, 64), scale_factor=(1.0, 1.0))
    boxes, labels = torch.tensor([[4.0, 4, 30, 20], [20, 10, 60, 44]]), torch.tensor([0, 2])
    return [
        DetDataSample(metainfo=meta, gt_instances=InstanceData(bboxes=boxes[:n], labels=labels[:n])) for n in (2, 0)
    ]


@every_type
@pytest.mark.parametrize(('name', 'build'), QUERY_HEADS.items(), ids=QUERY_HEADS)
def test_query_heads_learn_and_predict(name, build, dtype):
    exact, other = pair(build, dtype)
    feats, found = inputs_of(name), {}
    for head in (exact, other):
        inputs = [x.to(next(head.parameters()).dtype) for x in feats]
        losses = head.loss(inputs, samples())
        sum(losses.values()).backward()
        assert all(p.grad.isfinite().all() for p in head.parameters() if p.grad is not None)
        found[head] = losses
        for result in head.predict(inputs, samples()):
            assert result.bboxes.shape == (15 if name.startswith('Deformable') else 5, 4)
            assert (result.scores.diff() <= 0).all()
    for key, loss in found[exact].items():
        assert math.isclose(found[other][key], loss, rel_tol=5 * ROUNDING[dtype]), key


@every_type
def test_the_first_of_two_stages_has_the_logits_of_float32_but_for_rounding(dtype):
    exact, other = pair(lambda: DeformableDETRHead(**LEVELS, with_box_refine=True, two_stage=True), dtype)
    feats = inputs_of('Deformable DETR')
    expected, found = exact.run(feats)[1], other.run([x.to(dtype) for x in feats])[1]
    assert distance(found.logits, expected.logits) < ROUNDING[dtype]
    assert distance(found.boxes, expected.boxes) < ROUNDING[dtype]
