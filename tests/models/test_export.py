"""Models as ONNX: recorded once, they compute the same as PyTorch for other batches and images."""

from collections.abc import Sequence

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch
from mmengine.registry import DefaultScope
from support.backbones import image, randomize_
from support.sweep import but_for_the_sweep
from torch import Tensor, nn

from vitdense.export.onnx import translate
from vitdense.export.record import record
from vitdense.models.backbones import PVT, YOLOS, HybridViT, PVTv2, Swin, SwinV2, ViT, ViTAdapter
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

SIZES = [(2, 128, 160), (1, 128, 160), (3, 96, 224), (1, 150, 333), (2, 45, 67)]
"""Batch, height and width: those of the record, and others, which no patch or window divides in the last two."""
TOLERANCE = 1e-4
DYNAMIC = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)

NARROW = dict(depths=(1, 1, 1, 1), embed_dims=(16, 32, 40, 64), num_heads=(1, 2, 5, 4))
NARROW_SWIN = dict(arch='tiny', depths=(2, 1, 1, 1), embed_dims=16, num_heads=(1, 2, 4, 8))
NARROW_VIT = dict(arch='tiny', depth=2, embed_dims=48, num_heads=3, img_size=96)
WINDOWS = dict(class_token=False, rel_pos='decomposed', window_size=3, global_blocks=(1,))
NARROW_ADAPTER = dict(NARROW_VIT, depth=4, conv_inplane=8, use_extra_extractor=False)

BACKBONES = {
    'PVT': lambda: PVT('tiny', **NARROW),
    'PVTv2': lambda: PVTv2('b0', **NARROW),
    'PVTv2-linear': lambda: PVTv2('b2_li', **NARROW),
    'Swin': lambda: Swin(**NARROW_SWIN),
    'SwinV2': lambda: SwinV2(**NARROW_SWIN),
    'ViT': lambda: ViT(**NARROW_VIT),
    'DeiT': lambda: ViT(**NARROW_VIT, dist_token=True, reg_tokens=2, layer_scale=0.1, pos_resize='bicubic'),
    'BEiT': lambda: ViT(**NARROW_VIT, pos_embed=None, rel_pos='bias_table'),
    'ViTDet': lambda: ViT(**NARROW_VIT, **WINDOWS),
    'HybridViT': lambda: HybridViT(
        **dict(NARROW_VIT, arch='base', depth=1, layers=(1, 1, 1), out_indices=(0, 1, 2, 3))
    ),
    'ViTAdapter': lambda: ViTAdapter(**NARROW_ADAPTER, window_size=3, global_blocks=(1,)),
    'YOLOS': lambda: YOLOS(**dict(NARROW_VIT, arch='small', depth=3, img_size=(96, 128), det_tokens=5)),
}


class WithStems(nn.Module):
    """A neck or a head behind maps (B, C, H / stride, W / stride) of an image, rounded up."""

    def __init__(self, head: nn.Module, stems: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.head = head
        self.stems = nn.ModuleList(nn.Conv2d(3, channels, 3, stride, padding=1) for channels, stride in stems)

    def forward(self, image: Tensor) -> Sequence[Tensor]:
        return self.head([stem(image) for stem in self.stems])


def deformable_detr(**options) -> nn.Module:
    sizes = dict(num_queries=7, num_heads=4, feedforward_channels=32, encoder_layers=1, decoder_layers=2, num_levels=2)
    return WithStems(DeformableDETRHead(3, 32, **sizes, **options), [(32, 16), (32, 32)])


def segmentation(family: type, stems: Sequence[tuple[int, int]], **options) -> nn.Module:
    channels = [width for width, _ in stems]
    maps = (
        dict(in_channels=channels, in_index=list(range(len(stems))))
        if len(stems) > 1
        else dict(in_channels=channels[0])
    )
    options = dict(num_classes=4, norm_cfg=dict(type='BN')) | maps | options
    return WithStems(family(**options), stems)


HEADS = {
    'DETR': lambda: WithStems(
        DETRHead(
            3, 16, channels=32, num_queries=7, num_heads=4, feedforward_channels=32, encoder_layers=1, decoder_layers=2
        ),
        [(16, 32)],
    ),
    'DeformableDETR': deformable_detr,
    'DeformableDETR-refining': lambda: deformable_detr(with_box_refine=True),
    'DeformableDETR-two-stage': lambda: deformable_detr(with_box_refine=True, two_stage=True),
    'YOLOS': lambda: nn.Sequential(BACKBONES['YOLOS'](), YOLOSHead(3, 48)),
    'SimpleFeaturePyramid': lambda: WithStems(SimpleFeaturePyramid(16, 16), [(16, 16)]),
    'MLANeck': lambda: WithStems(MLANeck((16, 16), 8, norm_cfg=dict(type='BN')), [(16, 16)] * 2),
    'SETR-PUP': lambda: segmentation(SETRUPHead, [(16, 16)], channels=16, num_convs=2, up_scale=2, in_index=0),
    'SETR-MLA': lambda: segmentation(SETRMLAHead, [(16, 16)] * 2, channels=16),
    'Trans2Seg': lambda: segmentation(
        Trans2SegHead, [(16, 4), (32, 32)], channels=16, embed_dim=32, depth=2, map_size=6, num_heads=4
    ),
    'TransUNet': lambda: segmentation(
        CascadedUpsamplerHead, [(8, 4), (16, 8), (32, 16)], hidden_channels=16, block_channels=(16, 16)
    ),
}

PARTS = BACKBONES | {f'{name}-head': make for name, make in HEADS.items()}
LONG = ['PVT', 'PVTv2-linear', 'Swin', 'SwinV2', 'HybridViT', 'ViTAdapter']
LONG += ['DeformableDETR-refining-head', 'DeformableDETR-two-stage-head', 'Trans2Seg-head']


def build(make) -> nn.Module:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):  # whose heads build their losses
        model = make()
    randomize_(model)
    return model


def tensors(outputs) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else [x for part in outputs for x in tensors(part)]


def outputs_of(model: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return tensors(model(x))


@pytest.mark.slow
@pytest.mark.parametrize('name', but_for_the_sweep(PARTS, PARTS.keys() - LONG))
def test_one_file_serves_all_batches_and_sizes(name, tmp_path):
    model, path = build(PARTS[name]), tmp_path / 'model.onnx'
    first = image(SIZES[0][1:], SIZES[0][0])
    assert any(
        (a - b).abs().max() > 1e-2 for a, b in zip(outputs_of(model, first), outputs_of(model, -first), strict=True)
    )
    onnx_ir.save(translate(record(model, (first,), DYNAMIC)), path)
    session = onnxruntime.InferenceSession(path)
    (name,) = (argument.name for argument in session.get_inputs())
    for batch, *hw in SIZES:
        x = image(tuple(hw), batch)
        for found, expected in zip(session.run(None, {name: x.numpy()}), outputs_of(model, x), strict=True):
            np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize('name', but_for_the_sweep(['Swin', 'SwinV2', 'ViT', 'ViTDet'], ['Swin', 'ViTDet']))
def test_an_exported_program_computes_other_sizes(name):
    model = build(BACKBONES[name])
    with torch.no_grad(), torch.fx.experimental._config.patch(backed_size_oblivious=True):  # no size is unlike one
        program = torch.export.export(model, (image((128, 160), 2),), dynamic_shapes=DYNAMIC, strict=False)
    for batch, *hw in SIZES:
        x = image(tuple(hw), batch)
        found = outputs_of(program.module(check_guards=False), x)
        torch.testing.assert_close(found, outputs_of(model, x), rtol=0, atol=TOLERANCE)
