"""Every published file whose names and shapes are known fills the model of our config, and nothing of it is left over.

The values of each parameter of a file are one number of its own, so that the place of each can be told afterwards.
"""

import argparse
import pickle
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from support import CONFIGS
from support.backbones import layout_of
from torch import Tensor, nn

from vitdense.checkpoint.layouts import FAMILIES, family_of
from vitdense.checkpoint.pretrained import Pretrained
from vitdense.checkpoint.read import read
from vitdense.checkpoint.translate import convert, recognise, unwrap
from vitdense.config.load import load_config
from vitdense.config.swap.choices import BACKBONES
from vitdense.engine.hooks import ConvertCheckpointHook

RUN = dict(optimizer={'state': {}, 'param_groups': []}, lr_scheduler={'last_epoch': 49}, epoch=49)
META = dict(mmcv_version='1.2.0', time='Fri Dec  4 2020', config='model = dict()', CLASSES=('wall', 'sky'))


def plain(state: dict) -> dict:
    return state


def in_model(state: dict) -> dict:
    return {'model': state}


def of_a_run(state: dict) -> dict:
    """As the scripts of DETR's descendants write it."""
    return {'model': state, **RUN, 'args': argparse.Namespace(lr=1e-4, dataset_file='coco')}


def of_mmcv(state: dict) -> dict:
    return {'meta': META, 'state_dict': state, 'optimizer': RUN['optimizer']}


def constants(keys: list, shared: list[list[str]] = ()) -> dict[str, Tensor]:
    """A number of its own for each parameter, which takes no memory; the same where names share one; integers are 0."""
    state = {}
    for number, (key, shape, dtype) in enumerate(keys, start=1):
        value = torch.tensor(float(number)) if dtype == 'float32' else torch.tensor(0)
        state[key] = value.expand(shape)
    return state | {key: state[first] for first, *others in shared for key in others}


def numbers(state: dict[str, Tensor]) -> set[int]:
    """The numbers in a state dict: one in each parameter, or several where parameters were joined."""
    return {round(number) for value in state.values() if value.is_floating_point() for number in _parts(value)}


def _parts(value: Tensor) -> list[float]:
    if 0 in value.stride() and value.stride().count(0) == value.ndim:
        return [value.flatten()[0].item()]
    low, high = (bound.item() for bound in value.aminmax())
    return [low] if low == high else value.round().unique().tolist()


def left_over(state: dict[str, Tensor], declared: tuple[str, ...]) -> dict[str, Tensor]:
    """``state`` without the keys that begin with, or end in, one of ``declared``."""
    return {key: value for key, value in state.items() if not key.startswith(declared) and not key.endswith(declared)}


CLASSIFIER = ('head.', 'norm.')
WINDOWS = ('relative_position_index', 'relative_coords_table', 'attn_mask')
BACKBONE_FILES = {
    'pvt_tiny': ('pvt/retinanet_pvt-t_fpn_1x_coco.py', plain, ('cls_token', *CLASSIFIER)),
    'pvt_small': ('pvt/sem-fpn_pvt-s_8xb4-40k_ade20k-512x512.py', plain, ('cls_token', *CLASSIFIER)),
    'pvt_v2_b0': ('pvt_v2/retinanet_pvtv2-b0_fpn_1x_coco.py', plain, ('head.',)),
    'pvt_v2_b2': ('pvt_v2/mask-rcnn_pvtv2-b2_fpn_1x_coco.py', plain, ('head.',)),
    'pvt_v2_b2_li': ('pvt_v2/mask-rcnn_pvtv2-b2-li_fpn_1x_coco.py', plain, ('head.',)),
    'swin_tiny': ('swin/mask-rcnn_swin-t_fpn_1x_coco.py', in_model, (*CLASSIFIER, *WINDOWS)),
    'swin_small': ('swin/cascade-mask-rcnn_swin-s_fpn_ms-3x_coco.py', in_model, (*CLASSIFIER, *WINDOWS)),
    'swin_base': ('swin/upernet_swin-b_8xb2-160k_ade20k-512x512.py', in_model, (*CLASSIFIER, *WINDOWS)),
    'swinv2_tiny': ('swin_v2_tiny', in_model, (*CLASSIFIER, *WINDOWS)),
    'deit_tiny_patch16_224': ('yolos/yolos-ti_8xb2-300e_coco.py', in_model, ('head.',)),
    'deit_small_patch16_224': ('vit_adapter/mask-rcnn_vit-adapter-s_3x_coco.py', in_model, ('cls_token', *CLASSIFIER)),
    'deit_base_patch16_224': ('vit_upernet/upernet_deit-b_8xb2-160k_ade20k-512x512.py', in_model, CLASSIFIER),
    'vit_base_patch16_224': ('vit_upernet/upernet_vit-b_8xb2-160k_ade20k-512x512.py', plain, ('head.',)),
    'vit_large_patch16_384': ('setr/setr_pup_vit-l_8xb2-160k_ade20k-512x512.py', plain, CLASSIFIER),
    'vit_small_patch16_224_augreg': ('vit_small', plain, CLASSIFIER),
    'mae_vit_base': ('vitdet/mask-rcnn_vitdet-b_100e_coco.py', in_model, ('cls_token', 'norm.')),
}
"""Config or name of a backbone, wrapper of the file, and what of it a backbone does not use."""


def empty_backbone(name: str) -> nn.Module:
    """The backbone of a config, or of a name that ``--backbone`` takes; with memory, but without values."""
    if name in BACKBONES:
        choice = BACKBONES[name]
        with torch.device('meta'):
            return choice.backbone(**choice.arguments).to_empty(device='cpu')
    cfg = load_config(str(CONFIGS / name))
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.init_cfg = None
    with torch.device('meta'):
        return MODELS.build(cfg.model.backbone).to_empty(device='cpu')


@pytest.mark.slow
@pytest.mark.parametrize('name', BACKBONE_FILES)
def test_pretrained_backbone(tmp_path, log, name):
    config, wrap, unused = BACKBONE_FILES[name]
    state = constants(layout_of(name)['keys'])
    torch.save(wrap(state), tmp_path / 'file.pth')
    model = empty_backbone(config)
    fresh = {key: value.fill_(-1.0) for key, value in model.state_dict().items()}
    Pretrained(str(tmp_path / 'file.pth'))(model)
    filled = {key: value for key, value in model.state_dict().items() if not (value == -1).all()}
    assert numbers(filled) - {-1} == numbers(left_over(state, unused))  # positions of new tokens stay as they are
    declared = FAMILIES[family_of(type(model))].fresh
    assert all(re.match('|'.join(declared), key) for key in fresh.keys() - filled.keys())
    assert 'missing' not in log[0]
    assert 'unexpected' not in log[0]
    assert ('fresh' in log[0]) == (filled.keys() != fresh.keys())
    assert log[0].startswith('loaded 100 %') == (filled.keys() == fresh.keys())


WHOLE_FILES: dict[str, tuple[str, Any, tuple[str, ...]]] = {
    'detr_r50': ('detr/detr_r50_8xb2-500e_coco.py', in_model, ()),
    'detr_r50_dc5': ('detr/detr_r50-dc5_8xb2-500e_coco.py', in_model, ()),
    'deformable_detr_r50': ('deformable_detr/deformable-detr_r50_8xb4-50e_coco.py', of_a_run, ()),
    'deformable_detr_r50_refine': ('deformable_detr/deformable-detr_refine_r50_8xb4-50e_coco.py', of_a_run, ()),
    'deformable_detr_r50_two_stage': (
        'deformable_detr/deformable-detr_refine_two-stage_r50_8xb4-50e_coco.py', of_a_run, (),
    ),
    'yolos_ti': ('yolos/yolos-ti_8xb2-300e_coco.py', of_a_run, ()),
    'yolos_s': ('yolos/yolos-s_8xb1-150e_coco.py', of_a_run, ()),
    'yolos_s_dwr': ('yolos/yolos-s-dwr_8xb1-150e_coco.py', of_a_run, ()),
    'yolos_b': ('yolos/yolos-b_8xb1-150e_coco.py', of_a_run, ()),
    'setr_naive': ('setr/setr_naive_vit-l_8xb2-160k_ade20k-512x512.py', of_mmcv, ('conv_seg.weight', 'conv_seg.bias')),
    'setr_pup': ('setr/setr_pup_vit-l_8xb2-160k_ade20k-512x512.py', of_mmcv, ('conv_seg.weight', 'conv_seg.bias')),
    'setr_mla': (
        'setr/setr_mla_vit-l_8xb2-160k_ade20k-512x512.py', of_mmcv,
        ('backbone.cls_token', 'conv_seg.weight', 'conv_seg.bias'),
    ),
    'vitdet_vit_b': ('vitdet/mask-rcnn_vitdet-b_100e_coco.py', in_model, ()),
}  # fmt: skip
"""Config, wrapper of the file, and what of it the model does not use."""


def keys_of(name: str) -> list:
    """What is in the released file: of SETR at its size of images, of ViTDet the whole detector."""
    layout = layout_of(name)
    extra = layout.get('extra_layouts') or {}
    return extra.get('released_512') or extra.get('mask_rcnn_vitdet_b') or layout['keys']


def write(folder: Path, name: str, content: dict) -> Path:
    """The file as it is published: that of ViTDet is a pickle of arrays."""
    path = folder / ('file.pkl' if name == 'vitdet_vit_b' else 'file.pth')
    if path.suffix == '.pth':
        torch.save(content, path)
        return path
    arrays = {key: np.full(value.shape, value.flatten()[0], np.float16) for key, value in content['model'].items()}
    with path.open('wb') as file:
        pickle.dump({'model': arrays, '__author__': 'detectron2'}, file)
    return path


@pytest.mark.slow
@pytest.mark.parametrize('name', WHOLE_FILES)
def test_whole_model(tmp_path, monkeypatch, name):
    """As ``tools/test.py`` loads it, which needs all parameters."""
    lines: list[str] = []
    monkeypatch.setattr('vitdense.engine.hooks.convert_checkpoint.say', lines.append)
    config, wrap, unused = WHOLE_FILES[name]
    state = constants(keys_of(name), layout_of(name).get('shared') or ())
    path = write(tmp_path, name, wrap(state))
    cfg = load_config(str(CONFIGS / config))
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = revert_sync_batchnorm(MODELS.build(cfg.model)).to_empty(device='cpu')
    for key, value in model.state_dict().items():
        if 'class_embed' in key:  # of the first of two stages, only one logit comes from the file
            value.zero_()
    checkpoint = dict(read(path))
    runner = SimpleNamespace(model=model, _resume=False, _train_loop=None, _load_from=str(path))
    ConvertCheckpointHook().after_load_checkpoint(runner, checkpoint)
    converted = checkpoint['state_dict']
    assert numbers(converted) - {0} == numbers(left_over(state, unused))  # biases that were added are zeros
    assert converted.keys() <= model.state_dict().keys()
    assert len(lines) == 1
    assert lines[0].startswith(f'loaded 100 % of parameters from {path} (')
    assert 'fresh' not in lines[0]


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in WHOLE_FILES if not re.search('detr', name)])
def test_backbone_of_a_whole_model(tmp_path, log, name):
    """Its layout is told by the keys of the whole: the official MLA decoder of SETR lies inside the backbone."""
    config, wrap, _ = WHOLE_FILES[name]
    path = write(tmp_path, name, wrap(constants(keys_of(name))))
    model = empty_backbone(config)
    Pretrained(str(path))(model)
    assert re.match(r'loaded 100 % of backbone parameters from \S+ \(', log[0])
    whole, _ = convert(read(path), recognise(unwrap(read(path)))[0])
    for key, value in model.state_dict().items():
        assert torch.equal(value, whole[f'backbone.{key}'].float()), key
