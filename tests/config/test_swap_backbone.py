"""``--backbone`` on configs of mmdet and mmseg as they are."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from support import CONFIGS

from vitdense.checkpoint.layouts import RELEASES_OF, family_of
from vitdense.config.channels import channel_fields, misfits
from vitdense.config.load import load_config
from vitdense.config.swap.backbone import swap_backbone
from vitdense.config.swap.choices import BACKBONES, HALVES, IMAGENET, NO_CHOICES, WEIGHT_DECAY
from vitdense.config.swap.levels import matching_stages
from vitdense.models import backbones

RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
UPERNET = 'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py'
DEFORMABLE_DETR = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'
MAE = 'mmseg::mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py'
PVT_CHANNELS = [64, 128, 320, 512]


def swapped(name: str, backbone: str = 'pvt_tiny'):
    cfg = load_config(name)
    if cfg.model.backbone.get('img_size'):  # which they are run at
        cfg.model.backbone.img_size = (64, 64)
    for head in {'decode_head', 'auxiliary_head'} & cfg.model.keys():
        if 'channels' in cfg.model[head]:
            cfg.model[head].channels = 16
    return cfg, swap_backbone(cfg, backbone, pretrained=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'path', 'expected', 'out_indices'),
    [
        (RETINANET, 'neck.in_channels', PVT_CHANNELS[1:], (1, 2, 3)),
        ('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'neck.in_channels', PVT_CHANNELS, None),
        ('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 'neck.in_channels', PVT_CHANNELS[1:], (1, 2, 3)),
        ('mmdet::libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py', 'neck[0].in_channels', PVT_CHANNELS, None),
        ('mmdet::detr/detr_r50_8xb2-150e_coco.py', 'neck.in_channels', [512], (3,)),
        ('mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', 'neck.in_channels', PVT_CHANNELS[1:],
         (1, 2, 3)),
        ('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', 'neck.in_channels', [128, 320, 512], (1, 2, 3)),
        ('mmdet::hrnet/faster-rcnn_hrnetv2p-w18-1x_coco.py', 'neck.in_channels', PVT_CHANNELS, None),
        ('mmdet::maskformer/maskformer_r50_ms-16xb1-75e_coco.py', 'panoptic_head.in_channels', PVT_CHANNELS, None),
        ('mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py', 'neck.in_channels', PVT_CHANNELS, None),
        ('mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py', 'decode_head.in_channels', PVT_CHANNELS, None),
        ('mmseg::pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512.py', 'decode_head.in_channels', [512], (2, 3)),
        ('mmseg::ocrnet/ocrnet_hr18_4xb2-40k_cityscapes-512x1024.py', 'decode_head[1].in_channels', PVT_CHANNELS, None),
    ],
)  # fmt: skip
def test_channels_are_set_where_the_config_states_them(name, path, expected, out_indices):
    cfg, changes = swapped(name)
    fields = {field.path: field.stated for field in channel_fields(cfg.model)}
    assert fields[path] == expected
    assert cfg.model.backbone.get('out_indices') == out_indices
    assert cfg.model.backbone.type == 'vitdense.PVT'
    assert any(path in change for change in changes)
    assert list(misfits(cfg.model, [PVT_CHANNELS[i] for i in out_indices or range(4)])) == []


def test_auxiliary_heads_follow_their_own_map():
    cfg, _ = swapped('mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-160k_ade20k-512x512.py')
    assert cfg.model.decode_head.in_channels == 512
    assert cfg.model.decode_head.c1_in_channels == 64
    assert cfg.model.auxiliary_head.in_channels == 320


@pytest.mark.parametrize(
    ('name', 'backbone'),
    [
        (RETINANET, 'pvt_v2_b0'),
        (RETINANET, 'vit_tiny'),
        (RETINANET, 'swin_tiny'),
        ('mmseg::pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512.py', 'pvt_v2_b0'),
        ('mmseg::pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512.py', 'vit_tiny'),
        ('mmseg::fastfcn/fastfcn_r50-d32_jpu_psp_4xb4-80k_ade20k-512x512.py', 'pvt_v2_b0'),
        ('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', 'pvt_tiny'),
        ('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', 'vit_tiny'),
    ],
)
def test_swapped_models_run(name, backbone):
    cfg, _ = swapped(name, backbone)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model).eval()
    assert list(misfits(cfg.model, model.backbone.out_channels)) == []
    with torch.no_grad():
        out = model(torch.zeros(1, 3, 64, 96), mode='tensor')
    tensors = out if torch.is_tensor(out) else [t for level in out for t in level]
    assert all(t.isfinite().all() for t in tensors)


def test_sgd_becomes_adamw_without_decay_on_norms_biases_and_positions():
    cfg, changes = swapped(RETINANET)
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model.backbone)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    decay = {id(p): g['weight_decay'] for g in wrapper.optimizer.param_groups for p in g['params']}
    for name, parameter in model.named_parameters():
        bare = 'norm' in name or name.endswith('bias') or 'pos_embed' in name
        assert decay[id(parameter)] == (0 if bare else 1e-4), name
    assert any('SGD -> AdamW' in change for change in changes)


def test_vits_get_layer_decay_and_swins_do_not():
    rules = {}
    for backbone in ('vit_tiny', 'vit_large', 'vit_huge', 'swin_tiny'):
        cfg, _ = swapped(RETINANET, backbone)
        rules[backbone] = (cfg.optim_wrapper.optimizer.weight_decay, cfg.optim_wrapper.paramwise_cfg.get('decay_rate'))
    assert rules == {
        'vit_tiny': (0.1, 0.7),
        'vit_large': (0.1, 0.8),
        'vit_huge': (0.1, 0.9),
        'swin_tiny': (0.05, None),
    }


def test_layer_decay_reaches_the_optimizer():
    cfg, _ = swapped(RETINANET, 'vit_tiny')
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    rates = {id(p): group['lr'] for group in wrapper.optimizer.param_groups for p in group['params']}
    assert rates[id(model.neck.simfp_3[0].weight)] == rates[id(model.bbox_head.retina_cls.weight)] == 1e-4
    assert rates[id(model.backbone.blocks[11].attn.qkv.weight)] == pytest.approx(1e-4 * 0.7)
    assert rates[id(model.backbone.pos_embed)] == pytest.approx(1e-4 * 0.7**13)


def test_an_adam_of_the_config_keeps_its_rates():
    for backbone in ('pvt_tiny', 'vit_tiny'):
        cfg, _ = swapped('mmdet::detr/detr_r50_8xb2-150e_coco.py', backbone)
        assert cfg.optim_wrapper.optimizer.lr == 0.0001
        assert cfg.optim_wrapper.paramwise_cfg == dict(custom_keys=dict(backbone=dict(lr_mult=0.1)))


def test_a_config_of_ours_keeps_the_rates_that_it_states():
    cfg, changes = swapped(str(CONFIGS / 'deformable_detr/deformable-detr_r50_8xb4-50e_coco.py'))
    names = ('backbone', 'sampling_offsets', 'reference_points')
    assert cfg.optim_wrapper.paramwise_cfg == dict(custom_keys={name: dict(lr_mult=0.1) for name in names})
    assert not [change for change in changes if 'removed' in change]


def test_normalisation_of_caffe_weights_becomes_that_of_imagenet():
    cfg, changes = swapped('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py')
    assert {key: cfg.model.data_preprocessor[key] for key in IMAGENET} == IMAGENET
    assert any('data_preprocessor' in change for change in changes)
    _, changes = swapped(RETINANET)
    assert not any('data_preprocessor' in change for change in changes)


def test_pretrained_weights_are_the_official_release():
    cfg = load_config(RETINANET)
    swap_backbone(cfg, 'pvt_v2_b2_li')
    weights = dict(type='vitdense.Pretrained', checkpoint='pvt_v2_b2_li')
    assert cfg.model.backbone == dict(type='vitdense.PVTv2', arch='b2_li', out_indices=(1, 2, 3), init_cfg=weights)
    assert 'vitdense' in cfg.custom_imports['imports']


def test_names_are_all_variants_and_all_releases():
    classes = [getattr(backbones, name) for name in backbones.__all__ if name not in NO_CHOICES]
    variants = {f'{family_of(backbone)}_{arch}' for backbone in classes for arch in backbone.ARCHS}
    assert {'pvt_tiny', 'pvt_v2_b2_li', 'swin_large', 'swin_v2_base', 'vit_huge'} <= variants
    releases = {name for backbone in classes for name in RELEASES_OF[family_of(backbone)]}
    assert {'deit_base', 'swin_base_w12_22k'} <= releases
    assert set(BACKBONES) == variants | releases
    assert set(WEIGHT_DECAY) == {family_of(choice.backbone) for choice in BACKBONES.values()}


@pytest.mark.parametrize('name', BACKBONES)
def test_every_choice_can_be_built_and_loads_weights_of_its_family(name):
    choice = BACKBONES[name]
    with torch.device('meta'):
        assert choice.backbone(**choice.arguments).out_channels
    assert choice.release is None or choice.release in RELEASES_OF[family_of(choice.backbone)]


@pytest.mark.parametrize(
    ('name', 'arguments', 'release', 'normalisation'),
    [
        ('vit_small', dict(arch='small'), 'vit_small_augreg', HALVES),
        ('vit_huge', dict(arch='huge'), None, IMAGENET),
        ('deit_base_distilled_384', dict(arch='base', pos_resize='bicubic', dist_token=True, img_size=384),
         'deit_base_distilled_384', IMAGENET),
        ('mae_vit_huge', dict(arch='huge', pos_resize='bicubic', patch_size=14), 'mae_vit_huge', IMAGENET),
        ('vit_large_orig_384', dict(arch='large', img_size=384), 'vit_large_orig_384', HALVES),
        ('swin_base_w12_22k', dict(arch='base', window_size=12), 'swin_base_w12_22k', IMAGENET),
        ('swin_v2_base_w16', dict(arch='base', window_size=16, pretrained_window_sizes=(0, 0, 0, 8)),
         'swin_v2_base_w16', IMAGENET),
    ],
)  # fmt: skip
def test_the_name_of_a_release_says_what_differs(name, arguments, release, normalisation):
    choice = BACKBONES[name]
    assert (choice.arguments, choice.release, choice.normalisation) == (arguments, release, normalisation)


@pytest.mark.parametrize(
    ('name', 'neck', 'out_indices'),
    [
        (RETINANET, dict(scale_factors=[2, 1, 0.5], out_channels=256, num_outs=5), None),
        ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', dict(scale_factors=[4, 2, 1, 0.5], num_outs=5), None),
        ('mmdet::libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py', dict(scale_factors=[4, 2, 1, 0.5]), None),
        ('mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py', dict(num_outs=4, out_channels=256), None),
        (DEFORMABLE_DETR, dict(scale_factors=[2, 1, 0.5], num_outs=3), None),
        ('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', dict(scale_factors=[2, 1, 0.5], num_outs=3), None),
        ('mmdet::maskformer/maskformer_r50_ms-16xb1-75e_coco.py', dict(scale_factors=[4, 2, 1, 0.5], num_outs=4), None),
        (UPERNET, dict(type='Feature2Pyramid', embed_dim=192, rescales=[4, 2, 1, 0.5]), (2, 5, 8, 11)),
        ('mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-160k_ade20k-512x512.py', dict(type='Feature2Pyramid'),
         (2, 5, 8, 11)),
        ('mmseg::vit/vit_deit-b16_mln_upernet_8xb2-160k_ade20k-512x512.py', dict(type='Feature2Pyramid'),
         (2, 5, 8, 11)),
    ],
)  # fmt: skip
def test_a_pyramid_goes_between_one_stride_and_several(name, neck, out_indices):
    cfg, changes = swapped(name, 'vit_tiny')
    first = cfg.model.neck[0] if isinstance(cfg.model.neck, list) else cfg.model.neck
    assert {key: first[key] for key in neck} == neck
    assert first.type in ('vitdense.SimpleFeaturePyramid', 'Feature2Pyramid')
    assert cfg.model.backbone.get('out_indices') == out_indices
    assert any('of strides' in change for change in changes)
    assert list(misfits(cfg.model, [192] * len(out_indices or [0]))) == []


@pytest.mark.parametrize(
    ('name', 'out_indices'),
    [
        ('mmdet::detr/detr_r50_8xb2-150e_coco.py', None),
        ('mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py', None),
        ('mmseg::pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512.py', (8, 11)),
    ],
)
def test_no_pyramid_where_one_stride_is_enough(name, out_indices):
    before = load_config(name).model.get('neck')
    cfg, _ = swapped(name, 'vit_tiny')
    assert (cfg.model.get('neck') or {}).get('type') == (before or {}).get('type')
    assert cfg.model.backbone.get('out_indices') == out_indices
    assert list(misfits(cfg.model, [192] * len(out_indices or [0]))) == []


def test_what_follows_an_inserted_pyramid_reads_its_channels():
    cfg, _ = swapped(DEFORMABLE_DETR, 'vit_tiny')
    assert [neck.type for neck in cfg.model.neck] == ['vitdense.SimpleFeaturePyramid', 'ChannelMapper']
    assert cfg.model.neck[1].in_channels == [256, 256, 256]
    cfg, _ = swapped('mmdet::maskformer/maskformer_r50_ms-16xb1-75e_coco.py', 'vit_tiny')
    assert cfg.model.panoptic_head.in_channels == [256] * 4


@pytest.mark.parametrize('name', [RETINANET, DEFORMABLE_DETR, UPERNET])
def test_a_pyramid_goes_when_a_backbone_has_its_own(name):
    direct, _ = swapped(name, 'pvt_tiny')
    cfg, _ = swapped(name, 'vit_tiny')
    swap_backbone(cfg, 'pvt_tiny', pretrained=False)
    if name == RETINANET:  # whose own FPN starts at the second map
        fpn = dict(type='FPN', in_channels=PVT_CHANNELS[1:], out_channels=256, num_outs=5)
        assert (cfg.model.neck, cfg.model.backbone.out_indices) == (fpn, (1, 2, 3))
        return
    assert cfg.model.backbone == direct.model.backbone
    if name == DEFORMABLE_DETR:
        assert [neck.type for neck in cfg.model.neck] == ['FPN', 'ChannelMapper']
    else:
        assert 'neck' not in cfg.model
        assert cfg.model.decode_head == direct.model.decode_head


def test_the_pyramid_of_mmseg_goes_and_comes():
    cfg, changes = swapped(MAE)
    assert 'neck' not in cfg.model
    assert any('LayerDecayOptimizerConstructor removed' in change for change in changes)
    assert cfg.optim_wrapper.paramwise_cfg == {}
    assert cfg.model.decode_head.in_channels == PVT_CHANNELS
    swap_backbone(cfg, 'deit_small', pretrained=False)
    assert cfg.model.neck.embed_dim == 384
    assert cfg.model.decode_head.in_channels == [384] * 4


def test_heads_of_mmseg_train_on_the_pyramid_over_vit():
    cfg, _ = swapped(UPERNET, 'deit_tiny_distilled')
    init_default_scope('mmseg')
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).train()
    sizes = [tuple(level.shape[1:]) for level in model.extract_feat(torch.randn(2, 3, 64, 96))]
    assert sizes == [(192, 64 // stride, 96 // stride) for stride in (4, 8, 16, 32)]
    model(torch.randn(2, 3, 64, 96), mode='tensor').square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.neck.parameters())
    assert all(p.grad is not None for p in model.backbone.parameters())


@pytest.mark.parametrize(
    ('strides', 'read', 'old', 'expected'),
    [
        ([4, 8, 16, 32], [0, 1, 2, 3], (0, 1, 2, 3), [0, 1, 2, 3]),
        ([4, 8, 16, 32], [1, 3], None, [1, 3]),
        ([8, 16, 32], [0, 1, 2], (2, 3, 4), [1, 2, 3]),
        ([4, 8, 8, 8], [2, 3], (0, 1, 2, 3), [2, 3]),  # dilated: the stages keep their meaning
        ([4, 8, 8, 8], [0, 3], (1, 2, 4, 6), [0, 3]),  # MobileNetV2
        ([16], [0], (3,), [2]),
        ([32], [0], None, [3]),
        ([8, 8, 16], [0, 1, 2], (0, 1, 2), [1, 1, 2]),  # BiSeNet, whose indices are of branches
        ([2, 4, 8], [2], None, [1]),  # the others are not read
    ],
)
def test_stages_are_matched_by_stride(strides, read, old, expected):
    assert matching_stages(strides, read, old, (4, 8, 16, 32)) == dict(zip(read, expected, strict=True))


@pytest.mark.parametrize(('strides', 'read'), [([2, 4], [0, 1]), ([4, 4], [0, 1]), ([16] * 4, [0, 1, 2, 3])])
def test_maps_that_no_stage_stands_for(strides, read):
    with pytest.raises(ValueError, match=rf'strides \[{strides[0]}, {strides[1]}.*cannot be told'):
        matching_stages(strides, read, None, (4, 8, 16, 32))


def test_what_cannot_be_told_is_an_error():
    with pytest.raises(ValueError, match=r"--backbone 'pvt_smal': did you mean 'pvt_small'"):
        swapped(RETINANET, 'pvt_smal')
    with pytest.raises(ValueError, match=r'strides \[8, 16, 32\], which cannot be made of maps of stride 14'):
        swapped(RETINANET, 'mae_vit_huge')
    with pytest.raises(ValueError, match='shared_head'):
        swapped('mmdet::faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py')


def test_channels_that_do_not_fit_are_named_with_both_numbers():
    model = ConfigDict(backbone=dict(type='vitdense.PVT'), neck=dict(type='FPN', in_channels=[256, 512, 1024, 2048]))
    [(where, found, expected)] = misfits(model, PVT_CHANNELS)
    assert (where, found) == ('model.neck.in_channels', '[256, 512, 1024, 2048]')
    assert '[64, 128, 320, 512]' in expected
    model = ConfigDict(backbone=dict(type='vitdense.PVT'), decode_head=dict(in_channels=512, in_index=3))
    [(where, found, expected)] = misfits(model, PVT_CHANNELS[:2])
    assert (where, found) == ('model.decode_head.in_channels', '[512], of the backbone maps [3]')
    assert expected.startswith('maps of the 2 that vitdense.PVT returns')
