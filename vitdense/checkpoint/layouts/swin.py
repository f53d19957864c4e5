"""Swin and SwinV2."""

import math
from functools import partial

from torch import Tensor

from vitdense.models.layers.pos_embed import resize_grid

from .family import Family, Layout, State, same
from .templates import Pairs
from .tensors import Rows
from .vit import transformers_block

MAP_NORMS = tuple(rf'norm{stage}\.' for stage in range(4))
"""Norms of the returned maps, which classification does not have."""

_PROJECTIONS = Rows('.attn.qkv.', ('.attn.query.', '.attn.key.', '.attn.value.'))


def resize_window(table: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Resize a bias table ((2 * window - 1) ** 2, M) to another window, bicubically."""
    old, new = math.isqrt(table.shape[0]), math.isqrt(shape[0])
    return resize_grid(table[None], (old, old), (new, new), mode='bicubic')[0]


def _reverse_axes(state: State, shape: tuple[int, int, int]) -> State:
    """Order what patch merging joins by position in the 2 x 2 block, columns first, or as mmdet by channel first."""

    def reverse(value: Tensor) -> Tensor:
        return value.unflatten(-1, shape).transpose(-3, -1).flatten(-3)

    return {key: reverse(value) if '.downsample.' in key else value for key, value in state.items()}


def _blocks(place: str, parts: Pairs) -> tuple[tuple[str, str], ...]:
    return tuple((place + theirs, 'layers.{i}.blocks.{j}.' + ours) for theirs, ours in parts)


_PARTS = same('norm1.', 'norm2.', 'attn.qkv.', 'attn.proj.', 'mlp.fc1.', 'mlp.fc2.')
_V1_PARTS = (*_PARTS, *same('attn.relative_position_bias_table'))
_V2_PARTS = (*_PARTS, *same('attn.logit_scale', 'attn.q_bias', 'attn.v_bias', 'attn.cpb_mlp.'))
_BUFFERS = 'blocks.{j}.[attn_mask|attn.relative_position_index|attn.relative_coords_table]'
_TRANSFORMERS_V1_PARTS = (
    *transformers_block('self', _PROJECTIONS),
    ('attention.[self|relative_position_bias].relative_position_bias_table', 'attn.relative_position_bias_table'),
)
_TRANSFORMERS_V2_PARTS = (
    ('attention.self.query.bias', 'attn.q_bias'),
    ('attention.self.value.bias', 'attn.v_bias'),
    ('attention.self.logit_scale', 'attn.logit_scale'),
    ('attention.self.continuous_position_bias_mlp.', 'attn.cpb_mlp.'),
    *transformers_block('self', _PROJECTIONS),
)


def _timm(parts: Pairs) -> Layout:
    return Layout(
        'timm',
        probe=r'layers(_0|\.3\.downsample)\.',
        places=(
            *same('patch_embed.'),
            *_blocks('layers[.|_]{i}.blocks.{j}.', parts),
            ('layers[.|_]{i+1}.downsample.', 'layers.{i}.downsample.'),
        ),
        dropped=('layers[.|_]{i}.' + _BUFFERS, 'norm', 'head'),
        targets=('timm',),
    )


def _release(name: str, parts: Pairs) -> Layout:
    return Layout(
        name,
        probe=r'layers\.0\.blocks\.0\.',
        places=(
            *same('patch_embed.', 'layers.{i}.downsample.', 'norm{i}.'),
            *_blocks('layers.{i}.blocks.{j}.', parts),
        ),
        dropped=('layers.{i}.' + _BUFFERS, 'norm', 'head'),
        targets=('official',),
        wrapper='model',
    )


def _transformers(model: str, parts: Pairs, norms: Pairs = ()) -> Layout:
    prefix = f'[{model}.|]'
    return Layout(
        'transformers',
        probe=rf'({model}\.)?encoder\.layers\.0\.',
        places=(
            (prefix + 'embeddings.patch_embeddings.projection.', 'patch_embed.proj.'),
            (prefix + 'embeddings.norm.', 'patch_embed.norm.'),
            *_blocks(prefix + 'encoder.layers.{i}.blocks.{j}.', parts),
            (prefix + 'encoder.layers.{i}.downsample.', 'layers.{i}.downsample.'),
            *norms,
        ),
        dropped=(
            prefix + 'encoder.layers.{i}.blocks.{j}.attention.self.[relative_position_index|relative_coords_table]',
            prefix + 'embeddings.mask_token',
            prefix + 'layernorm.',
            'classifier.',
        ),
        tensors=_PROJECTIONS.join,
        inverse=_PROJECTIONS.split,
        targets=('transformers',),
    )


SWIN = Family(
    classes=('Swin',),
    fresh=MAP_NORMS,
    tables=((r'\.relative_position_bias_table$', resize_window),),
    layouts=(
        _timm(_V1_PARTS),
        _release('Swin release', _V1_PARTS),
        _transformers('swin', _TRANSFORMERS_V1_PARTS, norms=(('hidden_states_norms.stage{i+1}.', 'norm{i}.'),)),
        Layout(
            'mmdet',
            probe=r'stages\.0\.blocks\.0\.attn\.w_msa\.',
            places=(
                ('patch_embed.projection.', 'patch_embed.proj.'),
                ('stages.{i}.downsample.', 'layers.{i}.downsample.'),
                *same('patch_embed.norm.', 'norm{i}.'),
                *_blocks(
                    'stages.{i}.blocks.{j}.',
                    (
                        *same('norm1.', 'norm2.'),
                        ('attn.w_msa.qkv.', 'attn.qkv.'),
                        ('attn.w_msa.proj.', 'attn.proj.'),
                        ('attn.w_msa.relative_position_bias_table', 'attn.relative_position_bias_table'),
                        ('ffn.layers.0.0.', 'mlp.fc1.'),
                        ('ffn.layers.1.', 'mlp.fc2.'),
                    ),
                ),
            ),
            dropped=('stages.{i}.blocks.{j}.attn.w_msa.relative_position_index',),
            tensors=partial(_reverse_axes, shape=(-1, 2, 2)),
            inverse=partial(_reverse_axes, shape=(2, 2, -1)),
            targets=('mmdet', 'mmseg'),
            wrapper='state_dict',
        ),
    ),
)

SWIN_V2 = Family(
    classes=('SwinV2',),
    fresh=MAP_NORMS,
    layouts=(
        _timm(_V2_PARTS),
        _release('SwinV2 release', _V2_PARTS),
        _transformers('swinv2', _TRANSFORMERS_V2_PARTS),
    ),
)
"""Position biases are computed, so that the window may change without any resizing."""
