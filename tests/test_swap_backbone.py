"""``--backbone`` on configs of mmdet and mmseg as they are."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope

from vitdense.engine.config import load_config
from vitdense.engine.swap_backbone import BACKBONES, NORMALISATION, matching_stages, swap_backbone
from vitdense.engine.wiring import channel_fields, check_channels

PVT_CHANNELS = [64, 128, 320, 512]


def swapped(name: str, backbone: str = 'pvt_tiny'):
    cfg = load_config(name)
    return cfg, swap_backbone(cfg, backbone, pretrained=False)


@pytest.mark.parametrize(
    ('name', 'path', 'expected', 'out_indices'),
    [
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'neck.in_channels', PVT_CHANNELS, None),
        ('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'neck.in_channels', PVT_CHANNELS, None),
        ('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 'neck.in_channels', PVT_CHANNELS, None),
        ('mmdet::libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py', 'neck[0].in_channels', PVT_CHANNELS, None),
        ('mmdet::detr/detr_r50_8xb2-150e_coco.py', 'neck.in_channels', [512], (3,)),
        ('mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', 'neck.in_channels', PVT_CHANNELS[1:],
         (1, 2, 3)),
        ('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', 'neck.in_channels', [128, 320, 512], (1, 2, 3)),
        ('mmdet::hrnet/faster-rcnn_hrnetv2p-w18-1x_coco.py', 'neck.in_channels', PVT_CHANNELS, None),
        ('mmdet::maskformer/maskformer_r50_ms-16xb1-75e_coco.py', 'panoptic_head.in_channels', PVT_CHANNELS, None),
        ('mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py', 'neck.in_channels', PVT_CHANNELS, None),
        ('mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py', 'decode_head.in_channels', PVT_CHANNELS, None),
        ('mmseg::pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512.py', 'decode_head.in_channels', [512], None),
        ('mmseg::ocrnet/ocrnet_r101-d8_8xb2-40k_cityscapes-512x1024.py', 'decode_head[1].in_channels', [512], None),
    ],
)  # fmt: skip
def test_channels_are_set_where_the_config_states_them(name, path, expected, out_indices):
    cfg, changes = swapped(name)
    fields = {field.path: field.stated for field in channel_fields(cfg.model)}
    assert fields[path] == expected
    assert cfg.model.backbone.get('out_indices') == out_indices
    assert cfg.model.backbone.type == 'vitdense.PVT'
    assert any(path in change for change in changes)
    check_channels(cfg.model, [PVT_CHANNELS[i] for i in out_indices or range(4)])


def test_auxiliary_heads_follow_their_own_map():
    cfg, _ = swapped('mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-160k_ade20k-512x512.py')
    assert cfg.model.decode_head.in_channels == 512
    assert cfg.model.decode_head.c1_in_channels == 64
    assert cfg.model.auxiliary_head.in_channels == 320


@pytest.mark.parametrize(
    ('name', 'backbone'),
    [
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'pvt_v2_b0'),
        ('mmseg::pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512.py', 'pvt_v2_b0'),
        ('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', 'pvt_tiny'),
    ],
)
def test_swapped_models_run(name, backbone):
    cfg, _ = swapped(name, backbone)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        out = model(torch.zeros(1, 3, 64, 96), mode='tensor')
    tensors = out if torch.is_tensor(out) else [t for level in out for t in level]
    assert all(t.isfinite().all() for t in tensors)


def test_sgd_becomes_adamw_without_decay_on_norms_biases_and_positions():
    cfg, changes = swapped('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    from mmengine.optim import build_optim_wrapper

    init_default_scope('mmdet')
    model = MODELS.build(cfg.model.backbone)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    decay = {id(p): g['weight_decay'] for g in wrapper.optimizer.param_groups for p in g['params']}
    for name, parameter in model.named_parameters():
        bare = 'norm' in name or name.endswith('bias') or 'pos_embed' in name
        assert decay[id(parameter)] == (0 if bare else 1e-4), name
    assert any('SGD -> AdamW' in change for change in changes)


def test_an_adam_of_the_config_keeps_its_rates():
    cfg, _ = swapped('mmdet::detr/detr_r50_8xb2-150e_coco.py')
    assert cfg.optim_wrapper.optimizer.lr == 0.0001
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult == 0.1


def test_normalisation_of_caffe_weights_becomes_that_of_imagenet():
    cfg, changes = swapped('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py')
    assert {key: cfg.model.data_preprocessor[key] for key in NORMALISATION} == NORMALISATION
    assert any('data_preprocessor' in change for change in changes)
    _, changes = swapped('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    assert not any('data_preprocessor' in change for change in changes)


def test_pretrained_weights_are_the_official_release():
    cfg = load_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    swap_backbone(cfg, 'pvt_v2_b2_li')
    assert cfg.model.backbone == dict(
        type='vitdense.PVTv2', arch='b2_li', init_cfg=dict(type='vitdense.Pretrained', checkpoint='pvt_v2_b2_li')
    )
    assert 'vitdense' in cfg.custom_imports['imports']


def test_names_are_all_variants():
    assert set(BACKBONES) == {
        *(f'pvt_{size}' for size in ('tiny', 'small', 'medium', 'large')),
        *(f'pvt_v2_{size}' for size in ('b0', 'b1', 'b2', 'b2_li', 'b3', 'b4', 'b5')),
    }


@pytest.mark.parametrize(
    ('strides', 'old', 'expected'),
    [
        ([4, 8, 16, 32], (0, 1, 2, 3), (0, 1, 2, 3)),
        ([8, 16, 32], (2, 3, 4), (1, 2, 3)),
        ([4, 8, 8, 8], (0, 1, 2, 3), (0, 1, 2, 3)),
        ([16], (3,), (2,)),
        ([32], None, (3,)),
    ],
)
def test_stages_are_matched_by_stride(strides, old, expected):
    assert matching_stages(strides, old, (4, 8, 16, 32)) == expected


def test_what_cannot_be_told_is_an_error():
    with pytest.raises(ValueError, match=r"--backbone 'pvt_smal': did you mean 'pvt_small'"):
        swapped('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'pvt_smal')
    with pytest.raises(ValueError, match='shared_head'):
        swapped('mmdet::faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py')
    with pytest.raises(ValueError, match=r'strides \[2, 4\]'):
        matching_stages([2, 4], None, (4, 8, 16, 32))


def test_channels_that_do_not_fit_are_named_with_both_numbers():
    model = ConfigDict(backbone=dict(type='vitdense.PVT'), neck=dict(type='FPN', in_channels=[256, 512, 1024, 2048]))
    with pytest.raises(ValueError, match=r'neck.in_channels is \[256, 512, 1024, 2048\].* have \[64, 128, 320, 512\]'):
        check_channels(model, PVT_CHANNELS)
    model = ConfigDict(backbone=dict(type='vitdense.PVT'), decode_head=dict(in_channels=512, in_index=3))
    with pytest.raises(ValueError, match=r'maps \[3\], but the backbone vitdense.PVT returns 2 maps'):
        check_channels(model, PVT_CHANNELS[:2])
