"""Checkpoint files, rewritten in another layout and back."""

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from itertools import permutations
from pathlib import Path

import pytest
import timm
import torch
import transformers
from backbone_samples import layout_of, randomize_
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from safetensors import safe_open
from torch import Tensor

from vitdense.checkpoint.adapt import adapt
from vitdense.checkpoint.layouts import FAMILIES
from vitdense.checkpoint.layouts.family import State
from vitdense.checkpoint.pretrained import Pretrained
from vitdense.checkpoint.read import read
from vitdense.checkpoint.rewrite import rewrite, weights_of
from vitdense.engine.config import load_config
from vitdense.engine.fit import check_fit
from vitdense.models.backbones import PVT, YOLOS, HybridViT, PVTv2, Swin, SwinV2, ViT, ViTAdapter

ROOT = Path(__file__).parents[1]
TOOL = ROOT / 'tools/convert_checkpoint.py'
NARROW = dict(embed_dims=48, num_heads=3, depth=2, img_size=48)
STAGES = dict(depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8))
MAPS = dict(depths=(1, 1, 1, 1), embed_dims=(8, 16, 40, 64))
FOUR_BLOCKS = dict(depth=4, embed_dims=48, num_heads=3)
DETR = 'detr/detr_r50_8xb2-150e_coco.py'
DEFORMABLE = 'deformable_detr/deformable-detr_r50_8xb4-50e_coco.py'
SETR = 'setr/setr_{}_vit-l_8xb2-160k_ade20k-512x512.py'
ONE_LAYER = dict(encoder_layers=1, decoder_layers=1)


def alone(build: Callable, without: str = '(?!)') -> State:
    state = randomize_(build()).state_dict()
    return {key: value for key, value in state.items() if not re.match(without, key)}


def whole(leaf: str, backbone: dict | None = None, head: dict | None = None, zero: str = '(?!)') -> State:
    """Values for the model of a config, in few channels, the same where it shares them."""
    model = model_of(leaf)
    model.backbone.update(backbone or {})
    model.get('bbox_head', {}).update(head or {})
    with torch.device('meta'):
        built = MODELS.build(model)
    sources = dict(built.named_parameters(remove_duplicate=False)) | dict(built.named_buffers())
    torch.manual_seed(0)
    values = {id(source): few(name, source) for name, source in sources.items()}
    state = {key: values[id(sources[key])] for key in built.state_dict()}
    return {key: torch.zeros_like(value) if re.fullmatch(zero, key) else value for key, value in state.items()}


def few(name: str, source: Tensor) -> Tensor:
    if name.endswith('pos_embed'):
        return torch.randn(1, source.shape[1], 4)
    shape = [side // 32 or min(side, 3) for side in source.shape]
    return torch.randn(shape) if source.is_floating_point() else torch.ones(shape, dtype=source.dtype)


def model_of(leaf: str):
    """The model of one of our configs, or another's, ``scope::leaf``."""
    cfg = load_config(leaf if '::' in leaf else str(ROOT / 'configs' / leaf))
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.pop('init_cfg', None)
    return cfg.model


def setr_mla() -> State:
    """As others can have it: no bias in auxiliary heads, and a classifier that sees only the pixel itself."""
    state = whole(SETR.format('mla'), dict(FOUR_BLOCKS, out_indices=(0, 1, 2, 3)), zero=r'auxiliary.*conv_seg\.bias')
    state['decode_head.conv_seg.weight'] *= torch.zeros(3, 3).index_put((torch.tensor(1), torch.tensor(1)), torch.ones(()))
    return state


SAMPLES = {
    'PVT': (('pvt',), partial(alone, partial(PVT, 'tiny', **MAPS)), 'official transformers mmdet'),
    'PVTv2': (('pvt_v2',), partial(alone, partial(PVTv2, 'b0', **MAPS)), 'official timm transformers mmdet'),
    'PVTv2-li': (('pvt_v2',), partial(alone, partial(PVTv2, 'b2_li', **MAPS)), 'official timm mmdet'),
    'Swin': (
        ('swin',),
        partial(alone, partial(Swin, 'tiny', embed_dims=16, **STAGES)),
        'official transformers mmdet mmseg',
    ),
    'Swin without norms of maps': (
        ('swin',),
        partial(alone, partial(Swin, 'tiny', embed_dims=16, **STAGES), r'norm\d'),
        'official timm transformers mmdet mmseg',
    ),
    'SwinV2': (('swin_v2',), partial(alone, partial(SwinV2, 'tiny', embed_dims=16, **STAGES)), 'official'),
    'SwinV2 without norms of maps': (
        ('swin_v2',),
        partial(alone, partial(SwinV2, 'tiny', embed_dims=16, **STAGES), r'norm\d'),
        'official timm transformers',
    ),
    'ViT': (('vit',), partial(alone, partial(ViT, 'tiny', **NARROW)), 'official timm transformers mmseg'),
    'DeiT with final norm': (
        ('vit',),
        partial(alone, partial(ViT, 'tiny', **NARROW, dist_token=True, final_norm=True)),
        'official timm transformers',
    ),
    'ViT of ViTDet': (
        ('vit',),
        partial(alone, partial(ViT, 'tiny', **NARROW, class_token=False, rel_pos='decomposed')),
        'official timm transformers detectron2',
    ),
    'BEiT': (
        ('vit',),
        partial(alone, partial(ViT, 'tiny', **NARROW | dict(pos_embed=None), rel_pos='bias_table', layer_scale=0.1)),
        'official timm mmseg',
    ),
    'ViT-Adapter': (
        ('vit_adapter',),
        partial(alone, partial(ViTAdapter, 'tiny', **NARROW | dict(depth=4), conv_inplane=8)),
        'official',
    ),
    'HybridViT': (
        ('hybrid_vit',),
        partial(alone, partial(HybridViT, 'base', embed_dims=48, num_heads=3, depth=1)),
        'timm',
    ),
    'YOLOS': (
        ('yolos',),
        partial(alone, partial(YOLOS, 'small', **NARROW | dict(depth=3), det_tokens=5)),
        'official transformers',
    ),
    'DETR': (('detr',), partial(whole, DETR, dict(depth=18), ONE_LAYER), 'official transformers mmdet'),
    'DETR + PVT': (
        ('detr', 'pvt'),
        partial(whole, 'detr/detr_pvt-s_8xb2-50e_coco.py', dict(depths=(1, 1, 1, 1)), ONE_LAYER),
        'mmdet',
    ),
    'DETR + Swin': (
        ('detr', 'swin'),
        partial(whole, 'detr/detr_swin-t_8xb2-150e_coco.py', dict(depths=(1, 1, 1, 1)), ONE_LAYER),
        'mmdet',
    ),
    'Deformable DETR': (
        ('deformable_detr',),
        partial(whole, DEFORMABLE, dict(depth=18), ONE_LAYER, r'neck\..*conv\.bias'),
        'official transformers mmdet',
    ),
    'Deformable DETR, two stages': (
        ('deformable_detr',),
        partial(
            whole, DEFORMABLE, dict(depth=18), ONE_LAYER | dict(with_box_refine=True, two_stage=True), 'neck.*conv.bias'
        ),
        'official transformers mmdet',
    ),
    'YOLOS detector': (
        ('yolos_detector', 'yolos'),
        partial(whole, 'yolos/yolos-ti_8xb2-300e_coco.py', dict(depth=3)),
        'official transformers',
    ),
    'ViTDet': (
        ('vitdet_detector', 'vit'),
        partial(whole, 'vitdet/mask-rcnn_vitdet-b_100e_coco.py', dict(depth=2, global_blocks=(1,))),
        'official detectron2',
    ),
    'Mask R-CNN + Swin': (
        (None, 'swin'),
        partial(whole, 'swin/mask-rcnn_swin-t_fpn_1x_coco.py', dict(depths=(1, 1, 1, 1))),
        'official mmdet mmseg',
    ),
    'UPerNet + ViT': (
        (None, 'vit'),
        partial(whole, 'vit_upernet/upernet_deit-s_8xb2-160k_ade20k-512x512.py', dict(depth=4, out_indices=(0, 1, 2, 3))),
        'official mmseg',
    ),
    **{
        f'SETR {decoder}': (
            ('setr', 'vit'),
            partial(
                whole,
                SETR.format(decoder),
                dict(FOUR_BLOCKS, out_indices=(0, 1, 2, 3)),
                zero=r'.*_head.*convs\.\d\.conv\.bias',
            ),
            'official mmseg',
        )
        for decoder in ('naive', 'pup')
    },
    'SETR mla': (('setr', 'vit'), setr_mla, 'official mmseg'),
    'Trans2Seg': (('trans2seg',), partial(whole, 'trans2seg/trans2seg_r50-d16_4xb4-40k_ade20k-512x512.py'), ''),
    'Trans2Seg + PVT': (
        ('trans2seg', 'pvt'),
        partial(whole, 'trans2seg/trans2seg_pvt-s_4xb4-40k_ade20k-512x512.py', dict(depths=(1, 1, 1, 1))),
        '',
    ),
}
"""Families of model and backbone, weights under our names, and the targets that have a place for them."""


@cache
def sample(name: str) -> State:
    return SAMPLES[name][1]()


def same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def without_counters(state: State) -> State:
    return {key: value for key, value in state.items() if 'num_batches_tracked' not in key}


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path
