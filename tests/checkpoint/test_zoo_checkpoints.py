"""Checkpoints of the zoos of mmdet and mmseg, of models whose backbones we have, load whole and compute the same."""

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from support import CONFIGS
from support.backbones import assert_maps_close, image, layout_of, randomize_
from support.configs import model_of
from torch import nn

from vitdense.checkpoint.check import check_fit
from vitdense.checkpoint.into_model import adapt
from vitdense.config.load import load_config

SHALLOW = dict(depths=(1, 1, 1, 1))
ONE_EACH = dict(num_layers=(1, 1, 1, 1))
FOUR = dict(num_layers=4, out_indices=(0, 1, 2, 3))
OUR_FOUR = dict(depth=4, out_indices=(0, 1, 2, 3))
SIZE = (96, 160)
PAIRS = {
    'mmdet, Mask R-CNN + Swin': (
        ('mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py', SHALLOW),
        ('swin/mask-rcnn_swin-t_fpn_1x_coco.py', SHALLOW),
    ),
    'mmseg, UPerNet + Swin': (
        ('mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py', SHALLOW),
        ('swin/upernet_swin-t_8xb2-160k_ade20k-512x512.py', SHALLOW),
    ),
    'mmdet, RetinaNet + PVT': (
        ('mmdet::pvt/retinanet_pvt-t_fpn_1x_coco.py', ONE_EACH),
        ('pvt/retinanet_pvt-t_fpn_1x_coco.py', SHALLOW),
    ),
    'mmdet, RetinaNet + PVTv2': (
        ('mmdet::pvt/retinanet_pvtv2-b0_fpn_1x_coco.py', ONE_EACH),
        ('pvt_v2/retinanet_pvtv2-b0_fpn_1x_coco.py', SHALLOW),
    ),
    'mmseg, UPerNet + MAE': (
        ('mmseg::mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py', dict(**FOUR, img_size=SIZE)),
        ('vit_upernet/upernet_mae-b_8xb2-amp-160k_ade20k-512x512.py', dict(**OUR_FOUR, img_size=SIZE)),
    ),
    'mmseg, UPerNet + DeiT': (
        ('mmseg::vit/vit_deit-s16_mln_upernet_8xb2-160k_ade20k-512x512.py', FOUR),
        ('vit_upernet/upernet_deit-s_8xb2-160k_ade20k-512x512.py', OUR_FOUR),
    ),
}


def build(config: str, changes: dict) -> nn.Module:
    return randomize_(revert_sync_batchnorm(MODELS.build(model_of(config, **changes))))


def outputs(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Logits of a segmentor, all maps of the dense head of a detector."""
    maps = model.extract_feat(x)
    if hasattr(model, 'decode_head'):
        return [model.decode_head(maps), model.auxiliary_head(maps)]
    head = model.rpn_head if hasattr(model, 'rpn_head') else model.bbox_head
    return [level for kind in head(maps) for level in kind]


@pytest.mark.slow
@pytest.mark.parametrize('name', PAIRS)
def test_model_of_the_zoo_computes_the_same_in_our_config(name):
    (their_config, their_changes), (leaf, changes) = PAIRS[name]
    theirs = build(their_config, their_changes)
    ours = build(leaf, changes)
    checkpoint, changes = adapt(dict(meta={}, state_dict=theirs.state_dict()), ours)
    line = check_fit(ours, checkpoint, 'a.pth', purpose='checkpoint', changes=changes)
    assert line.startswith('loaded 100 % of parameters from a.pth (mm')
    ours.load_state_dict(checkpoint['state_dict'])
    x = image(SIZE)
    with torch.no_grad():
        assert_maps_close(outputs(ours, x), outputs(theirs, x))


@pytest.mark.parametrize('arch', ['tiny', 'small'])
def test_detectors_of_the_pvt_release_lose_the_unused_class_position(arch):
    """Their names are ours already; the last table has an entry before those of the patches."""
    cfg = load_config(str(CONFIGS / f'pvt/retinanet_pvt-{arch[0]}_fpn_1x_coco.py'))
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.init_cfg = None
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    state = dict(model.state_dict())
    backbone = layout_of(f'pvt_{arch}')['extra_layouts']['detection_backbone']
    state |= {f'backbone.{key}': torch.zeros(shape) for key, shape, _ in backbone}
    table = state['backbone.pos_embed4'] = torch.randn(1, 50, 512)
    checkpoint, changes = adapt(dict(meta={}, state_dict=state), model)
    line = check_fit(model, checkpoint, 'a.pth', purpose='checkpoint', changes=changes)
    assert line == 'loaded 100 % of parameters from a.pth (PVT release)'
    assert torch.equal(checkpoint['state_dict']['backbone.pos_embed4'], table[:, 1:])
