"""``--backbone`` on configs whose parts have more of the backbone in them than channels of its maps."""

import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.config import ConfigDict
from mmengine.model import BaseModule, revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope

from vitdense.config.channels import misfits
from vitdense.config.load import load_config
from vitdense.config.swap.backbone import swap_backbone
from vitdense.config.swap.measure import build_weightless, measure, scope_of, without_weights

RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
PSPNET = 'mmseg::pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512.py'
DEEPLAB = 'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-160k_ade20k-512x512.py'
ENCNET = 'mmseg::encnet/encnet_r50-d8_4xb4-80k_ade20k-512x512.py'
KNET = 'mmseg::knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py'
FASTFCN = 'mmseg::fastfcn/fastfcn_r50-d32_jpu_psp_4xb4-80k_ade20k-512x512.py'
BISENET = 'mmseg::bisenetv1/bisenetv1_r101-d32-in1k-pre_4xb4-160k_coco-stuff164k-512x512.py'
FASTSCNN = 'mmseg::fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py'
SEGMENTER = 'mmseg::segmenter/segmenter_vit-s_fcn_8xb1-160k_ade20k-512x512.py'
DC5 = 'mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py'
SEGNEXT = 'mmseg::segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py'
NAS_FCOS = 'mmdet::nas_fcos/nas-fcos_r50-caffe_fpn_fcoshead-gn-head_4xb4-1x_coco.py'
SWIN = [96, 192, 384, 768]


def swapped(name: str, backbone: str):
    cfg = load_config(name)
    return cfg, swap_backbone(cfg, backbone, pretrained=False)


def listed(one):
    return list(one) if isinstance(one, list | torch.nn.ModuleList) else [one] if one is not None else []


def segmentor(cfg):
    for head in ('decode_head', 'auxiliary_head'):
        for node in listed(cfg.model.get(head)):
            if 'channels' in node and node.get('num_convs') != 0:
                node.channels = 16
    init_default_scope('mmseg')
    return revert_sync_batchnorm(MODELS.build(cfg.model)).eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'stages', 'index'),
    [(PSPNET, (2, 3), (1, 0)), (DEEPLAB, (0, 2, 3), (2, 1)), (FASTFCN, (1, 2, 3), (2, 1))],
)
def test_maps_that_no_head_reads_are_not_made(name, stages, index):
    cfg, _ = swapped(name, 'swin_tiny')
    assert cfg.model.backbone.out_indices == stages
    assert (cfg.model.decode_head.in_index, cfg.model.auxiliary_head.in_index) == index
    model = segmentor(cfg)
    maps = model.extract_feat(torch.randn(1, 3, 64, 64))
    sum(head(maps).square().mean() for head in (model.decode_head, model.auxiliary_head)).backward()
    assert [name for name, p in model.backbone.named_parameters() if p.grad is None] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'side'),
    [
        (RETINANET, 64),
        pytest.param('mmdet::nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco.py', 128, marks=pytest.mark.slow),
    ],
)
def test_maps_below_the_first_level_of_a_pyramid_are_not_made(name, side):
    cfg, changes = swapped(name, 'swin_tiny')
    assert (cfg.model.neck.in_channels, cfg.model.neck.start_level) == (SWIN[1:], 0)
    assert cfg.model.backbone.out_indices == (1, 2, 3)
    assert 'model.neck.in_channels: without the first 1, which are not read' in changes
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model).eval()
    levels = model.extract_feat(torch.randn(1, 3, side, side))
    before = load_config(name).model
    assert len(levels) == before.neck.num_outs
    assert [level.shape[2] for level in levels[:3]] == [side // stride for stride in (8, 16, 32)]
    sum(level.square().mean() for level in levels).backward()
    assert [name for name, p in model.backbone.named_parameters() if p.grad is None] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'backbone', 'idle'),
    [
        (ENCNET, 'swin_tiny', 'backbone.norm1.weight'),
        (ENCNET, 'pvt_tiny', ''),
        (DEEPLAB, 'deit_tiny', 'neck.upsample'),
        (SEGNEXT, 'deit_tiny', 'neck.upsample'),
        (NAS_FCOS, 'swin_tiny', 'backbone.norm0.weight'),
    ],
)
def test_parameters_that_stay_without_gradient_are_told_to_the_wrapper(name, backbone, idle):
    cfg, changes = swapped(name, backbone)
    assert cfg.get('find_unused_parameters', False) == bool(idle)
    assert any(change.startswith('find_unused_parameters') and idle in change for change in changes) == bool(idle)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'backbone', 'expected'),
    [
        (
            KNET,
            'pvt_tiny',
            {'decode_head.kernel_generate_head.in_channels': [512], 'auxiliary_head.in_channels': [320]},
        ),
        (FASTFCN, 'pvt_tiny', {'neck.in_channels': [128, 320, 512], 'auxiliary_head.in_channels': [320]}),
        (SEGMENTER, 'pvt_tiny', {'decode_head.in_channels': [320], 'decode_head.channels': [320]}),
        (
            DC5,
            'pvt_tiny',
            {
                'rpn_head.in_channels': [320],
                'roi_head.bbox_roi_extractor.out_channels': [320],
                'roi_head.bbox_head.in_channels': [320],
            },
        ),
        (
            'mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py',
            'pvt_tiny',
            {'neck.in_channels': [512, 320, 128]},
        ),
    ],
)
def test_channels_follow_into_all_that_reads_the_maps(name, backbone, expected):
    cfg, changes = swapped(name, backbone)
    for place, channels in expected.items():
        assert any(change.startswith(f'model.{place}: ') and f'-> {channels}' in change for change in changes), place
    assert list(misfits(cfg.model, measure(cfg, cfg.model.backbone).channels)) == []


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'backbone'), [(KNET, 'pvt_v2_b0'), (SEGMENTER, 'pvt_v2_b0'), (FASTSCNN, 'pvt_v2_b0')])
def test_such_segmentors_run(name, backbone):
    cfg, _ = swapped(name, backbone)
    model = segmentor(cfg)
    maps = model.extract_feat(torch.randn(1, 3, 64, 64))
    for head in [model.decode_head, *listed(getattr(model, 'auxiliary_head', None))]:
        assert all(one.isfinite().all() for one in listed(head(maps)))


@pytest.mark.slow
def test_a_detector_with_a_dilated_stage_trains():
    cfg, _ = swapped(DC5, 'pvt_v2_b0')
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    data = model.data_preprocessor(demo_mm_inputs(2, (3, 64, 64), num_classes=80), training=True)
    losses = model(**data, mode='loss')
    assert all(torch.as_tensor(one).isfinite().all() for loss in losses.values() for one in listed(loss))


@pytest.mark.parametrize(
    ('name', 'lines'),
    [
        (PSPNET, ['model.decode_head.in_channels: [2048] -> [512], stages [3], strides [8] -> [32]']),
        (BISENET, ['model.decode_head.in_channels: [1024] -> [128], stages [1]',
                   'model.auxiliary_head[1].in_channels: [512] -> [320], stages [2]']),
        (FASTSCNN, ['model.decode_head.in_index: -1 -> 0',
                    'model.decode_head.in_channels: [128] -> [128], stages [1]']),
    ],
)  # fmt: skip
def test_what_a_head_reads_now_is_told(name, lines):
    _, changes = swapped(name, 'pvt_tiny')
    assert set(lines) <= set(changes)


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('mmseg::ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py', 'DDRNet is a whole network'),
        ('mmseg::pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py', 'PIDNet is a whole network'),
        ('mmseg::dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512.py', 'VisionTransformer returns more than maps'),
        ('mmdet::ssd/ssd300_coco.py', 'model.neck, a SSDNeck, gives the maps'),
        ('mmdet::detectors/detectors_cascade-rcnn_r50_1x_coco.py', 'model.neck, a RFP, runs copies'),
        ('mmseg::setr/setr_vit-l_pup_8xb1-80k_cityscapes-768x768.py', r'strides \[16, 16, 16, 16\]'),
        ('mmseg::ocrnet/ocrnet_r101-d8_8xb2-40k_cityscapes-512x1024.py', r'one stride.* have strides \[16, 32\]'),
        ('mmseg::unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64.py', r'strides \[2, 1\]'),
        ('mmdet::misc/d2_retinanet_r50-caffe_fpn_ms-90k_coco.py', 'no model.backbone'),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(name, reason):
    with pytest.raises(ValueError, match=f'^--backbone: .*{reason}'):
        swapped(name, 'pvt_tiny')


@pytest.mark.parametrize(
    'name',
    [
        'mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py',
        'mmdet::clrnet/clrnet.py',
        'mmdet::detectors/detectors_cascade-rcnn_r50_1x_coco.py',
        'mmdet::libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py',
        FASTFCN,
        KNET,
        SEGMENTER,
        DC5,
        BISENET,
    ],
)
def test_a_valid_config_is_not_blamed(name):
    cfg = load_config(name)
    assert list(misfits(cfg.model, measure(cfg, cfg.model.backbone).channels)) == []


def test_foreign_backbones_are_measured_without_weights():
    cfg = load_config('mmseg::setr/setr_vit-l_pup_8xb1-80k_cityscapes-768x768.py')
    with scope_of(cfg):
        module = build_weightless(without_weights(cfg.model.backbone))
    assert {p.device.type for p in module.parameters()} == {'meta'}
    assert sum(p.numel() for p in module.parameters()) > 300e6
    assert measure(cfg, cfg.model.backbone) == ([1024] * 4, [16] * 4)


class Halves(BaseModule):
    """A neck that takes maps of even numbers of 32 channels only."""

    def __init__(self, in_channels, out_channels) -> None:
        super().__init__()
        if any(channels % 64 for channels in in_channels):
            raise ValueError(f'{in_channels} must be multiples of 64')
        self.convs = torch.nn.ModuleList(torch.nn.Conv2d(channels, out_channels, 1) for channels in in_channels)

    def forward(self, maps):
        return [conv(one) for conv, one in zip(self.convs, maps, strict=True)]


def with_neck(out_channels: int | str):
    cfg = load_config(RETINANET)
    MODELS.register_module(module=Halves, force=True)
    cfg.model.neck = ConfigDict(type='Halves', in_channels=[256, 512, 1024, 2048], out_channels=out_channels)
    return cfg


@pytest.mark.slow
def test_a_model_that_does_not_take_the_new_maps_is_refused_with_its_own_words():
    swap_backbone(with_neck(256), 'pvt_tiny', pretrained=False)
    with pytest.raises(
        ValueError, match=r'^--backbone: the model does not run .*\[32, 64, 160, 256\] must be multiples'
    ):
        swap_backbone(with_neck(256), 'pvt_v2_b0', pretrained=False)


@pytest.mark.slow
def test_group_norms_that_the_new_channels_do_not_divide_into():
    name = 'mmdet::rtmdet/rtmdet_l_swin_b_4xb32-100e_coco.py'
    swapped(name, 'pvt_tiny')
    with pytest.raises(ValueError, match=r'^--backbone: the model does not run .*divisible by num_groups'):
        swapped(name, 'pvt_v2_b0')


def test_a_model_that_cannot_be_tried_at_all_is_not_blamed_on_the_backbone():
    swap_backbone(with_neck('many'), 'pvt_tiny', pretrained=False)
