"""Whole segmentors: inference on whole images and in windows, images of any size."""

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from support import CONFIGS
from support.backbones import randomize_
from torch import nn
from torch.nn import functional as F

from vitdense.config.load import load_config

CROP = 64
MODELS_OF = {
    'SETR': ('setr/setr_pup_vit-l_8xb2-160k_ade20k-512x512.py', dict(arch='tiny', depth=4, out_indices=(0, 1, 2, 3))),
    'Semantic FPN': ('pvt_v2/sem-fpn_pvtv2-b0_8xb4-40k_ade20k-512x512.py', dict()),
    'UPerNet': ('swin/upernet_swin-t_8xb2-160k_ade20k-512x512.py', dict(depths=(1, 1, 1, 1))),
    'Trans2Seg': ('trans2seg/trans2seg_pvt-s_4xb4-40k_ade20k-512x512.py', dict(arch='tiny')),
}


@pytest.fixture(scope='module', params=MODELS_OF)
def model(request) -> nn.Module:
    init_default_scope('mmseg')
    leaf, changes = MODELS_OF[request.param]
    config = load_config(str(CONFIGS / leaf)).model
    config.backbone.pop('init_cfg')
    config.backbone.update(changes)
    for head in (config.decode_head, *config.get('auxiliary_head', [])) if request.param == 'SETR' else ():
        head.in_channels = 192
    config.test_cfg = dict(mode='whole', crop_size=(CROP, CROP), stride=(40, 40))
    return randomize_(revert_sync_batchnorm(MODELS.build(config)))


def image(height: int, width: int) -> torch.Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(height * width))


def logits(model: nn.Module, x: torch.Tensor, mode: str) -> torch.Tensor:
    """(1, K, H, W), of the image's size."""
    model.test_cfg.mode = mode
    meta = dict(img_shape=x.shape[2:], ori_shape=x.shape[2:], pad_shape=x.shape[2:])
    with torch.no_grad():
        found = model.inference(x, [meta])
    assert found.shape == (1, model.num_classes, *x.shape[2:])
    return found


@pytest.mark.slow
@pytest.mark.parametrize('hw', [(CROP, CROP), (50, 37), (33, CROP)])
def test_windows_are_the_whole_of_an_image_that_fits_in_one(model, hw):
    """Also of sides that no stride divides."""
    x = image(*hw)
    whole = logits(model, x, 'whole')
    assert whole.std() > 1e-3
    torch.testing.assert_close(logits(model, x, 'slide'), whole, rtol=0, atol=1e-5)


def test_windows_are_averaged_where_they_overlap(model):
    """An image of 64 x 104 has two windows, which share the columns 40 to 63."""
    x = image(CROP, 104)
    left, right = (logits(model, x[..., start : start + CROP], 'whole') for start in (0, 40))
    total = F.pad(left, (0, 40)) + F.pad(right, (40, 0))
    total[..., 40:CROP] /= 2
    torch.testing.assert_close(logits(model, x, 'slide'), total, rtol=0, atol=1e-5)
    assert (logits(model, x, 'whole') - total).abs().max() > 1e-3, 'a transformer sees beyond a window'
