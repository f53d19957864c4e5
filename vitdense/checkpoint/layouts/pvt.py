"""PVT and PVTv2."""

import math
import re

import torch
from torch import Tensor

from vitdense.models.layers.pos_embed import resize_grid

from .family import Family, Layout, State


def _drop_class_position(state: State) -> State:
    """Drop the class entry of a position table (1, 1 + H*W, C) of a square image."""

    def drop(table: Tensor) -> Tensor:
        return table if math.isqrt(table.shape[1]) ** 2 == table.shape[1] else table[:, 1:]

    return {key: drop(value) if key.startswith('pos_embed') else value for key, value in state.items()}


def _join_key_value(state: State) -> State:
    """Join ``attn.k`` and ``attn.v`` (C, C) to ``attn.kv`` (2C, C), keys first."""
    joined = {}
    for key, value in state.items():
        if '.attn.k.' in key:
            joined[key.replace('.attn.k.', '.attn.kv.')] = torch.cat(
                [value, state[key.replace('.attn.k.', '.attn.v.')]]
            )
        elif '.attn.v.' not in key:
            joined[key] = value
    return joined


def _split_in_proj(state: State) -> State:
    """Split the ``in_proj`` (3C, C) of ``nn.MultiheadAttention``; make 1 x 1 convolutions linear layers."""
    split = {}
    for key, value in state.items():
        if '.attn.in_proj_' in key:
            channels = value.shape[0] // 3
            split[key.replace('in_proj_', 'q.')] = value[:channels]
            split[key.replace('in_proj_', 'kv.')] = value[channels:]
        else:
            split[key] = value.flatten(1) if re.search(r'\.fc[12]\.weight$', key) else value
    return split


_HEAD = (r'(norm|head|cls_token|mask_token)\b', None)
_TRANSFORMERS_PARTS = (
    ('layer_norm_', 'norm'),
    ('attention.self.', 'attn.'),
    ('attention.output.dense.', 'attn.proj.'),
    ('attention.', 'attn.'),
    ('query.', 'q.'),
    ('key.', 'k.'),
    ('value.', 'v.'),
    ('sequence_reduction.', 'sr.'),
    ('spatial_reduction.', 'sr.'),
    ('layer_norm.', 'norm.'),
    ('dense', 'fc'),
)
_MMDET_ATTENTION = (('attn.attn.', 'attn.'), ('out_proj.', 'proj.'), ('ffn.layers.0.', 'mlp.fc1.'))

_URL = 'https://github.com/whai362/PVT/releases/download/v2'


def resize_square(table: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A position table (1, H*W, C) of a square image to another square one, bilinearly."""
    old, new = math.isqrt(table.shape[1]), math.isqrt(shape[1])
    return resize_grid(table, (old, old), (new, new))


PVT = Family(
    releases={f'pvt_{arch}': f'{_URL}/pvt_{arch}.pth' for arch in ('tiny', 'small', 'medium', 'large')},
    tables=((r'pos_embed\d$', resize_square),),
    layouts=(
        Layout(
            'official',
            probe=r'block1\.0\.attn\.q\.',
            places=((r'(patch_embed|pos_embed|block)(\d)', r'\1\2'), _HEAD),
            tensors=_drop_class_position,
        ),
        Layout(
            'transformers',
            probe=r'(pvt\.)?encoder\.patch_embeddings\.0\.',
            places=(
                (r'(?:pvt\.)?encoder\.patch_embeddings\.\d\.cls_token', None),
                (r'(?:pvt\.)?encoder\.patch_embeddings\.(\d)\.position_embeddings', r'pos_embed{\1+1}'),
                (r'(?:pvt\.)?encoder\.patch_embeddings\.(\d)\.projection\.', r'patch_embed{\1+1}.proj.'),
                (r'(?:pvt\.)?encoder\.patch_embeddings\.(\d)\.layer_norm\.', r'patch_embed{\1+1}.norm.'),
                (r'(?:pvt\.)?encoder\.block\.(\d)\.(\d+)\.', r'block{\1+1}.\2.'),
                (r'(?:pvt\.)?encoder\.layer_norm\.|classifier\.', None),
            ),
            parts=_TRANSFORMERS_PARTS,
            tensors=lambda state: _drop_class_position(_join_key_value(state)),
        ),
        Layout(
            'mmdet',
            probe=r'layers\.0\.1\.0\.pos_embed',
            places=(
                (r'layers\.(\d)\.0\.projection\.', r'patch_embed{\1+1}.proj.'),
                (r'layers\.(\d)\.0\.norm\.', r'patch_embed{\1+1}.norm.'),
                (r'layers\.(\d)\.1\.0\.pos_embed', r'pos_embed{\1+1}'),
                (r'layers\.(\d)\.1\.(\d+)\.', r'block{\1+1}.{\2-1}.'),
            ),
            parts=(*_MMDET_ATTENTION, ('ffn.layers.3.', 'mlp.fc2.')),
            tensors=_split_in_proj,
        ),
    ),
)

PVT_V2 = Family(
    releases={f'pvt_v2_{arch}': f'{_URL}/pvt_v2_{arch}.pth' for arch in ('b0', 'b1', 'b2', 'b2_li', 'b3', 'b4', 'b5')},
    layouts=(
        Layout(
            'official',
            probe=r'block1\.0\.attn\.q\.',
            places=((r'(patch_embed|block|norm)(\d)', r'\1\2'), _HEAD),
        ),
        Layout(
            'timm',
            probe=r'stages\.0\.blocks\.0\.attn\.q\.',
            places=(
                (r'patch_embed\.', 'patch_embed1.'),
                (r'stages\.(\d)\.downsample\.', r'patch_embed{\1+1}.'),
                (r'stages\.(\d)\.blocks\.', r'block{\1+1}.'),
                (r'stages\.(\d)\.norm\.', r'norm{\1+1}.'),
                _HEAD,
            ),
            parts=(('mlp.dwconv.', 'mlp.dwconv.dwconv.'),),
        ),
        Layout(
            'transformers',
            probe=r'(pvt_v2\.)?encoder\.layers\.0\.patch_embedding\.',
            places=(
                (r'(?:pvt_v2\.)?encoder\.layers\.(\d)\.patch_embedding\.', r'patch_embed{\1+1}.'),
                (r'(?:pvt_v2\.)?encoder\.layers\.(\d)\.blocks\.', r'block{\1+1}.'),
                (r'(?:pvt_v2\.)?encoder\.layers\.(\d)\.layer_norm\.', r'norm{\1+1}.'),
                (r'classifier\.', None),
            ),
            parts=_TRANSFORMERS_PARTS,
            tensors=_join_key_value,
        ),
        Layout(
            'mmdet',
            probe=r'layers\.0\.0\.projection\.',
            places=(
                (r'layers\.(\d)\.0\.projection\.', r'patch_embed{\1+1}.proj.'),
                (r'layers\.(\d)\.0\.norm\.', r'patch_embed{\1+1}.norm.'),
                (r'layers\.(\d)\.1\.(\d+)\.', r'block{\1+1}.\2.'),
                (r'layers\.(\d)\.2\.', r'norm{\1+1}.'),
            ),
            parts=(*_MMDET_ATTENTION, ('ffn.layers.1.', 'mlp.dwconv.dwconv.'), ('ffn.layers.4.', 'mlp.fc2.')),
            tensors=_split_in_proj,
        ),
    ),
)
