"""Weights to rewrite: of each family under our names, in few channels, with the layouts that have a place for them."""

import re
from collections.abc import Callable
from functools import cache, partial

import torch
from mmengine.registry import MODELS
from torch import Tensor
from torch.nn import functional as F

from support.backbones import randomize_
from support.configs import model_of
from vitdense.checkpoint.layouts.family import State
from vitdense.models.backbones import PVT, YOLOS, HybridViT, PVTv2, Swin, SwinV2, ViT, ViTAdapter

DECODERS = ('naive', 'pup', 'mla')
NARROW = dict(embed_dims=48, num_heads=3, depth=2, img_size=48)
WINDOWS = dict(depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), embed_dims=16)
MAPS = dict(depths=(1, 1, 1, 1), embed_dims=(8, 16, 40, 64))
FOUR_BLOCKS = dict(depth=4, embed_dims=96, num_heads=3, out_indices=(0, 1, 2, 3))
ONE_BLOCK_EACH = dict(depths=(1, 1, 1, 1))
DETR = 'detr/detr_r50_8xb2-150e_coco.py'
DETR_PVT = 'detr/detr_pvt-s_8xb2-50e_coco.py'
DEFORMABLE = 'deformable_detr/deformable-detr_r50_8xb4-50e_coco.py'
SETR = 'setr/setr_{}_vit-l_8xb2-160k_ade20k-512x512.py'
ONE_LAYER = dict(encoder_layers=1, decoder_layers=1)


def alone(build: Callable, without: str = '(?!)') -> State:
    state = randomize_(build()).state_dict()
    return {key: value for key, value in state.items() if not re.match(without, key)}


def whole(leaf: str, backbone: dict | None = None, head: dict | None = None, zero: str = '(?!)') -> State:
    """Values for the model of a config, in few channels, the same where it shares them."""
    model = model_of(leaf, **(backbone or {}))
    if head:
        model.bbox_head.update(head)
    with torch.device('meta'):
        built = MODELS.build(model)
    parameters = dict(built.named_parameters(remove_duplicate=False)) | dict(built.named_buffers())
    values = {id(value): few(value, keep=name.endswith('pos_embed')) for name, value in parameters.items()}
    state = {key: values[id(parameters[key])] for key in built.state_dict()}
    return {key: torch.zeros_like(value) if re.fullmatch(zero, key) else value for key, value in state.items()}


def few(value: Tensor, keep: bool = False) -> Tensor:
    """Random values of the shape of ``value`` divided by 32; ``keep`` says that the second dimension stays."""
    shape = [side // 32 or min(side, 3) for side in value.shape]
    if keep:
        shape[1] = value.shape[1]
    return torch.randn(shape) if value.is_floating_point() else torch.ones(shape, dtype=value.dtype)


def hybrid() -> State:
    state = HybridViT('base', embed_dims=48, num_heads=3, depth=1).state_dict()
    return {key: few(value, keep=key == 'pos_embed') for key, value in state.items()}


def setr(decoder: str) -> State:
    """As others can have it: no biases before norms, and a classifier after aggregation that sees one pixel."""
    zero = r'auxiliary.*conv_seg\.bias' if decoder == 'mla' else r'.*_head.*convs\.\d\.conv\.bias'
    state = whole(SETR.format(decoder), FOUR_BLOCKS, zero=zero)
    if decoder == 'mla':
        middle = state['decode_head.conv_seg.weight'][..., 1:2, 1:2]
        state['decode_head.conv_seg.weight'] = F.pad(middle, (1, 1, 1, 1))
    return state


def backbone(cls: type, *args, without: str = '(?!)', **kwargs) -> Callable[[], State]:
    return partial(alone, partial(cls, *args, **kwargs), without)


NO_MAP_NORMS = dict(without=r'norm\d')
SAMPLES = {
    'PVT': ('pvt', backbone(PVT, 'tiny', **MAPS), 'official transformers mmdet'),
    'PVTv2': ('pvt_v2', backbone(PVTv2, 'b0', **MAPS), 'official timm transformers mmdet'),
    'Swin': ('swin', backbone(Swin, 'tiny', **WINDOWS), 'official transformers mmdet mmseg'),
    'Swin of a classifier': ('swin', backbone(Swin, 'tiny', **WINDOWS, **NO_MAP_NORMS), 'official timm transformers'),
    'SwinV2': ('swin_v2', backbone(SwinV2, 'tiny', **WINDOWS), 'official'),
    'SwinV2 of a classifier': (
        'swin_v2',
        backbone(SwinV2, 'tiny', **WINDOWS, **NO_MAP_NORMS),
        'official timm transformers',
    ),
    'ViT': ('vit', backbone(ViT, 'tiny', **NARROW), 'official timm transformers mmseg'),
    'DeiT': ('vit', backbone(ViT, 'tiny', **NARROW, dist_token=True, final_norm=True), 'official timm transformers'),
    'ViT of ViTDet': (
        'vit',
        backbone(ViT, 'tiny', **NARROW, class_token=False, rel_pos='decomposed'),
        'official timm transformers detectron2',
    ),
    'BEiT': (
        'vit',
        backbone(ViT, 'tiny', **NARROW, pos_embed=None, rel_pos='bias_table', layer_scale=0.1),
        'official timm mmseg',
    ),
    'ViT-Adapter': ('vit_adapter', backbone(ViTAdapter, 'tiny', **NARROW | dict(depth=4), conv_inplane=8), 'official'),
    'HybridViT': ('hybrid_vit', hybrid, 'timm'),
    'YOLOS': ('yolos', backbone(YOLOS, 'small', **NARROW | dict(depth=3), det_tokens=5), 'official transformers'),
    'DETR': ('detr', partial(whole, DETR, dict(depth=18), ONE_LAYER), 'official transformers mmdet'),
    'DETR + PVT': ('detr with pvt', partial(whole, DETR_PVT, ONE_BLOCK_EACH, ONE_LAYER), 'mmdet'),
    'DETR + Swin': (
        'detr with swin',
        partial(whole, 'detr/detr_swin-t_8xb2-150e_coco.py', ONE_BLOCK_EACH, ONE_LAYER),
        'mmdet',
    ),
    'Deformable DETR': (
        'deformable_detr',
        partial(whole, DEFORMABLE, dict(depth=18), ONE_LAYER | dict(decoder_layers=2), r'neck\..*conv\.bias'),
        'official transformers mmdet',
    ),
    'YOLOS, whole': (
        'yolos_detector with yolos',
        partial(whole, 'yolos/yolos-ti_8xb2-300e_coco.py', dict(depth=3)),
        'official transformers',
    ),
    'ViTDet': (
        'vitdet_detector with vit',
        partial(whole, 'vitdet/mask-rcnn_vitdet-b_100e_coco.py', dict(depth=2, global_blocks=(1,))),
        'official detectron2',
    ),
    'Mask R-CNN + Swin': (
        'a model with swin',
        partial(whole, 'swin/mask-rcnn_swin-t_fpn_1x_coco.py', ONE_BLOCK_EACH),
        'official mmdet',
    ),
    **{f'SETR, {decoder}': ('setr with vit', partial(setr, decoder), 'official mmseg') for decoder in DECODERS},
}
"""What is recognised, weights under our names, and the targets that have a place for them."""


@cache
def sample(name: str) -> State:
    torch.manual_seed(0)
    return SAMPLES[name][1]()
