"""SETR's neck and decoders against mmseg's, with the same weights: logits and losses."""

import copy

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.models.decode_heads import FCNHead
from mmseg.models.decode_heads import SETRMLAHead as MMSegMLAHead
from mmseg.models.decode_heads import SETRUPHead as MMSegUPHead
from mmseg.models.necks import MLANeck as MMSegMLANeck
from mmseg.structures import SegDataSample
from support.backbones import assert_maps_close, randomize_
from torch import nn

from vitdense.models.heads import SETRMLAHead, SETRUPHead
from vitdense.models.necks import MLANeck

BN = dict(norm_cfg=dict(type='BN'))
CLASSES = 7
UP = {
    'naive': dict(num_convs=1, kernel_size=1, up_scale=4),
    'PUP': dict(num_convs=4, kernel_size=3, up_scale=2),
    'auxiliary of PUP': dict(num_convs=1, kernel_size=3, up_scale=4),
}


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope('mmseg')


def maps_of(count: int, channels: int) -> list[torch.Tensor]:
    """Maps of two images that are not square."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, channels, 5, 7, generator=generator) for _ in range(count)]


def samples() -> list[SegDataSample]:
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(CLASSES, (2, 1, 80, 112), generator=generator)
    labels[:, :, :9] = 255
    return [SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=dict(img_shape=(80, 112))) for label in labels]


def copy_in_order(theirs: nn.Module, ours: nn.Module) -> None:
    """The same weights where both have the same parts in the same order; convolutions without bias get one of zeros."""
    values = iter(value for key, value in theirs.state_dict().items())
    state = {}
    for key, own in ours.state_dict().items():
        if key.endswith('conv.bias'):
            state[key] = torch.zeros_like(own)
            continue
        value = next(values)
        if value.shape != own.shape:  # 1 x 1 in the middle of 3 x 3
            value = nn.functional.pad(value, (1, 1, 1, 1))
        state[key] = value
    assert next(values, None) is None
    ours.load_state_dict(state)


def assert_same_losses(ours: nn.Module, theirs: nn.Module, maps, other=None) -> None:
    ours.train()
    theirs.train()
    for key, loss in theirs.loss(other or maps, samples(), {}).items():
        assert loss > 0
        torch.testing.assert_close(ours.loss(maps, samples(), {})[key], loss, rtol=0, atol=1e-5)


@pytest.mark.parametrize('name', UP)
def test_upsampling_heads_equal_mmseg(name):
    options = dict(in_channels=24, channels=16, num_classes=CLASSES, in_index=1, dropout_ratio=0, **BN, **UP[name])
    theirs, ours = randomize_(MMSegUPHead(**options)), SETRUPHead(**options).eval()
    conv_seg = {key: theirs.state_dict()[key] for key in theirs.state_dict() if key.startswith('conv_seg')}
    assert list(ours.state_dict())[:2] == list(conv_seg)
    copy_in_order(theirs, ours)
    maps = maps_of(2, 24)
    with torch.no_grad():
        assert_maps_close([ours(maps)], [theirs(maps)])
    assert_same_losses(ours, theirs, maps)


def reverse_(modules: nn.ModuleList) -> None:
    parts = list(modules)
    for i, module in enumerate(reversed(parts)):
        modules[i] = module


def mla(up_align_corners: bool) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module]:
    """mmseg's neck and head, whose later parts are for shallower maps, and ours."""
    neck = randomize_(MMSegMLANeck([24] * 4, 16, act_cfg=dict(type='ReLU'), **BN))
    options = dict(in_channels=[16] * 4, channels=32, in_index=[0, 1, 2, 3], num_classes=CLASSES, dropout_ratio=0, **BN)
    head = randomize_(MMSegMLAHead(mla_channels=8, **options))
    ours = MLANeck([24] * 4, 16, **BN).eval(), SETRMLAHead(up_align_corners=up_align_corners, **options).eval()
    their_neck, their_head = copy.deepcopy(neck), copy.deepcopy(head)
    reverse_(neck.mla.feat_extract)
    reverse_(head.up_convs)
    weight = head.conv_seg.weight.data
    head.conv_seg.weight.data = torch.cat(weight.split(8, dim=1)[::-1], dim=1)
    copy_in_order(neck, ours[0])
    copy_in_order(head, ours[1])
    return their_neck, their_head, *ours


def test_multi_level_aggregation_equals_mmseg():
    their_neck, their_head, neck, head = mla(up_align_corners=False)
    maps = maps_of(4, 24)
    with torch.no_grad():
        theirs, ours = their_neck(maps), neck(maps)
        assert_maps_close(ours, theirs[::-1])
        assert_maps_close([head(ours)], [their_head(theirs)])
    assert_same_losses(head, their_head, ours, theirs)


def test_the_release_aligns_corners_where_mmseg_does_not():
    *_, neck, head = mla(up_align_corners=True)
    maps = neck(maps_of(4, 24))
    branches = [
        nn.functional.interpolate(conv(x), scale_factor=4, mode='bilinear', align_corners=True)
        for conv, x in zip(head.convs, maps, strict=True)
    ]
    torch.testing.assert_close(head(maps), head.conv_seg(torch.cat(branches, dim=1)))


def test_logits_of_the_naive_decoder_have_the_size_of_its_map():
    head = SETRUPHead(in_channels=24, channels=16, num_classes=CLASSES, kernel_size=1, up_scale=1, in_index=0, **BN)
    assert head.eval()(maps_of(1, 24)).shape == (2, CLASSES, 5, 7)


@pytest.mark.parametrize('builds', [FCNHead, SETRUPHead])
def test_auxiliary_heads_of_mmseg_read_the_neck(builds):
    neck = MLANeck([24] * 4, 16, **BN)
    options = dict(num_convs=0, kernel_size=1, concat_input=False) if builds is FCNHead else dict(kernel_size=1)
    head = builds(in_channels=16, channels=16, in_index=2, num_classes=CLASSES, **BN, **options)
    losses = head.loss(neck(maps_of(4, 24)), samples(), {})
    losses['loss_ce'].backward()
    assert neck.project[3].conv.weight.grad.any()
    assert neck.project[1].conv.weight.grad is None


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match='kernel_size must be 1 or 3, got 2'):
        SETRUPHead(in_channels=24, channels=16, num_classes=CLASSES, kernel_size=2)
    with pytest.raises(ValueError, match='channels 18 must be a multiple of the 4 maps'):
        SETRMLAHead(in_channels=[16] * 4, in_index=[0, 1, 2, 3], channels=18, num_classes=CLASSES)
