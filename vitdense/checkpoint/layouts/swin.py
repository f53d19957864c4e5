"""Swin and SwinV2."""

import math
import re

import torch
from torch import Tensor

from vitdense.models.layers.pos_embed import resize_grid

from .family import Family, Layout, State


def resize_window(table: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A bias table ((2 * window - 1) ** 2, M) to that of another window, bicubically."""
    old, new = math.isqrt(table.shape[0]), math.isqrt(shape[0])
    return resize_grid(table[None], (old, old), (new, new), mode='bicubic')[0]


def _merge_by_position(state: State) -> State:
    """Order what patch merging joins by position in the 2 x 2 block, columns first.

    mmdet's merging orders it by channel, then by row and column of the block.
    """

    def order(value: Tensor) -> Tensor:
        return value.unflatten(-1, (-1, 2, 2)).movedim(-3, -1).transpose(-3, -2).flatten(-3)

    return {key: order(value) if '.downsample.' in key else value for key, value in state.items()}


def _join_projections(state: State) -> State:
    """Join queries, keys and values. Without a bias of keys, the others are on their own (version 2)."""
    joined = {}
    for key, value in state.items():
        found = re.fullmatch(r'(.*\.attn\.)(query|key|value)\.(weight|bias)', key)
        if not found:
            joined[key] = value
        elif found[3] == 'bias' and f'{found[1]}key.bias' not in state:
            joined[f'{found[1]}{found[2][0]}_bias'] = value
        elif found[2] == 'query':
            parts = [state[f'{found[1]}{part}.{found[3]}'] for part in ('query', 'key', 'value')]
            joined[f'{found[1]}qkv.{found[3]}'] = torch.cat(parts)
    return joined


_BUFFERS = (r'.*\.(relative_position_index|relative_coords_table|attn_mask)$', None)
_LAYOUTS = (
    Layout(
        'timm',
        probe=r'layers(_0|\.3\.downsample)\.',
        places=(
            _BUFFERS,
            (r'patch_embed\.', 'patch_embed.'),
            (r'layers[._](\d)\.downsample\.', r'layers.{\1-1}.downsample.'),
            (r'layers[._](\d)\.', r'layers.\1.'),
            (r'(norm|head)\.', None),
        ),
    ),
    Layout(
        'official',
        probe=r'layers\.0\.blocks\.0\.',
        places=(_BUFFERS, (r'(patch_embed|layers|norm\d)\.', r'\1.'), (r'(norm|head)\.', None)),
    ),
    Layout(
        'transformers',
        probe=r'(swin\.|swinv2\.)?encoder\.layers\.0\.',
        places=(
            _BUFFERS,
            (r'(?:swin\.|swinv2\.)?embeddings\.patch_embeddings\.projection\.', 'patch_embed.proj.'),
            (r'(?:swin\.|swinv2\.)?embeddings\.norm\.', 'patch_embed.norm.'),
            (r'(?:swin\.|swinv2\.)?encoder\.layers\.', 'layers.'),
            (r'hidden_states_norms\.stage(\d)\.', r'norm{\1-1}.'),
            (r'(?:swin\.|swinv2\.)?(embeddings\.mask_token|layernorm\.)|classifier\.', None),
        ),
        parts=(
            ('layernorm_before.', 'norm1.'),
            ('layernorm_after.', 'norm2.'),
            ('attention.output.dense.', 'attn.proj.'),
            ('attention.self.', 'attn.'),
            ('attention.', 'attn.'),
            ('q_proj.', 'query.'),
            ('k_proj.', 'key.'),
            ('v_proj.', 'value.'),
            ('o_proj.', 'proj.'),
            ('relative_position_bias.', ''),
            ('continuous_position_bias_mlp.', 'cpb_mlp.'),
            ('intermediate.dense.', 'mlp.fc1.'),
            ('output.dense.', 'mlp.fc2.'),
        ),
        tensors=_join_projections,
    ),
)
_MMDET = Layout(
    'mmdet',
    probe=r'stages\.0\.blocks\.0\.attn\.w_msa\.',
    places=(
        _BUFFERS,
        (r'patch_embed\.projection\.', 'patch_embed.proj.'),
        (r'patch_embed\.norm\.', 'patch_embed.norm.'),
        (r'stages\.', 'layers.'),
        (r'norm(\d)\.', r'norm\1.'),
    ),
    parts=(('attn.w_msa.', 'attn.'), ('ffn.layers.0.0.', 'mlp.fc1.'), ('ffn.layers.1.', 'mlp.fc2.')),
    tensors=_merge_by_position,
)

_URL = 'https://github.com/SwinTransformer/storage/releases/download'
_V2_ARCHS = ('tiny', 'small', 'base')

SWIN = Family(
    releases={
        'swin_tiny': f'{_URL}/v1.0.0/swin_tiny_patch4_window7_224.pth',
        'swin_small': f'{_URL}/v1.0.0/swin_small_patch4_window7_224.pth',
        'swin_base': f'{_URL}/v1.0.0/swin_base_patch4_window7_224.pth',
        'swin_base_22k': f'{_URL}/v1.0.0/swin_base_patch4_window7_224_22k.pth',
        'swin_base_w12_22k': f'{_URL}/v1.0.0/swin_base_patch4_window12_384_22k.pth',
        'swin_large': f'{_URL}/v1.0.0/swin_large_patch4_window7_224_22k.pth',
        'swin_large_w12': f'{_URL}/v1.0.0/swin_large_patch4_window12_384_22k.pth',
    },
    tables=((r'\.relative_position_bias_table$', resize_window),),
    layouts=(*_LAYOUTS, _MMDET),
)

SWIN_V2 = Family(
    releases={
        **{f'swin_v2_{arch}': f'{_URL}/v2.0.0/swinv2_{arch}_patch4_window8_256.pth' for arch in _V2_ARCHS},
        **{f'swin_v2_{arch}_w16': f'{_URL}/v2.0.0/swinv2_{arch}_patch4_window16_256.pth' for arch in _V2_ARCHS},
        'swin_v2_large': f'{_URL}/v2.0.0/swinv2_large_patch4_window12to16_192to256_22kto1k_ft.pth',
    },
    layouts=_LAYOUTS,
)
"""Position biases are computed, so that the window may change without any resizing."""
