"""ViT and its descendants: DeiT, MAE, augreg, BEiT, ViTDet; the backbones of SETR have the keys of timm."""

import math
import re
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from vitdense.models.backbones.vit_adapter import ADDED
from vitdense.models.layers.pos_embed import resize_positions
from vitdense.models.layers.rel_pos import resize_bias_table, resize_linear

from .family import Family, Layout, State, nest, same
from .tensors import Rows, add_biases, add_class_entry, drop_class_entry

MOST_PREFIX = 16
"""More entries than these before a square grid mean that the grid is not square."""


def fit_positions(table: Tensor, shape: tuple[int, ...], prefix: int, hw: tuple[int, int], rule: str) -> Tensor:
    """A position table (1, P + H*H, C) of a square image to ``shape``: ``prefix`` entries and a grid ``hw``.

    Raises:
        ValueError: the table is not that of a square image, or has less than ``prefix`` entries before the grid.
    """
    side = math.isqrt(table.shape[1])
    found = table.shape[1] - side**2
    if found > MOST_PREFIX:
        raise ValueError(f'pos_embed with {table.shape[1]} entries is not the table of a square image')
    if found < prefix:
        raise ValueError(f'pos_embed has {found} entries before those of the {side} x {side} patches, not {prefix}')
    kept = torch.cat([table[:, :prefix], table[:, found:]], dim=1)
    return resize_positions(kept, prefix, (side, side), hw, rule).reshape(shape)


def fit_bias_table(table: Tensor, shape: tuple[int, ...], hw: tuple[int, int]) -> Tensor:
    """Resize a relative bias table of a square image to a grid ``hw``."""
    side = (math.isqrt(table.shape[0] - 3) + 1) // 2
    return resize_bias_table(table, (side, side), hw)


def _split_qkv_bias(state: State, own: State) -> State:
    """Split off the biases of queries and values if a backbone has only these; a bias of keys changes no softmax."""
    split = dict(state)
    for key in own:
        joined = key.replace('.q_bias', '.qkv.bias')
        if key.endswith('.attn.q_bias') and joined in split:
            split[key], _, split[key.replace('.q_bias', '.v_bias')] = split.pop(joined).chunk(3)
    return split


def _spread_shared_bias(state: State) -> State:
    """Give each block the relative bias table that a BEiT has only once before fine-tuning."""
    spread = dict(state)
    shared = spread.pop('rel_pos_bias.relative_position_bias_table', None)
    if shared is not None:
        blocks = {match[1] for key in spread if (match := re.match(r'(blocks\.\d+)\.', key))}
        spread |= {f'{block}.attn.relative_position_bias_table': shared.clone() for block in blocks}
    return spread


def _name_as_beit(state: State) -> State:
    """Give LayerScale the name of BEiT, where a model has the relative positions of BEiT."""
    if not any(key.endswith('.relative_position_bias_table') for key in state):
        return state
    return {re.sub(r'\.ls([12])\.gamma$', r'.gamma_\1', key): value for key, value in state.items()}


def _drop_class_position(state: State) -> State:
    """Without the class entry of ``pos_embed``, where no class token goes with it."""
    return state if 'cls_token' in state else drop_class_entry(state, 'pos_embed')


def _add_class_position(state: State) -> State:
    """With a class entry of zeros in ``pos_embed``, where others store one that they never use."""
    for token in ('cls_token', 'dist_token', 'reg_token'):
        if token in state:
            raise ValueError(f'{token} has no place in this layout: its models have only patches')
    return add_class_entry(state, 'pos_embed')


def _need_class_token(state: State) -> State:
    if not any(key.endswith('cls_token') for key in state):
        raise ValueError('cls_token is missing: models of this layout always have one')
    return state


_QKV = Rows('.attn.qkv.', ('.attn.q.', '.attn.k.', '.attn.v.'))


def _from_jax(state: State) -> State:
    """Transpose kernels, which JAX stores with inputs before outputs, and flatten heads: (C, M, D) and (M, D, C)."""

    def transpose(key: str, value: Tensor) -> Tensor:
        if value.ndim == 4:  # of a convolution
            return value.permute(3, 2, 0, 1)
        if re.search(r'\.attn\.[qkv]\.', key):
            value = value.flatten(-2)
        elif key.endswith('.attn.proj.weight'):
            value = value.flatten(0, 1)
        return value.T if re.search(r'\.(attn|mlp)\..*weight$', key) else value

    return _QKV.join({key: transpose(key, value).contiguous() for key, value in state.items()})


def _vitdet_blocks(place: str, attn: str) -> tuple[tuple[str, str], ...]:
    attention = nest(same('qkv', 'proj', 'rel_pos_h', 'rel_pos_w'), f'{attn}.', 'attn.')
    return nest((*same('norm1', 'norm2', 'mlp'), *attention), f'{place}.{{i}}.', 'blocks.{i}.')


def transformers_block(attention: str, rows: Rows) -> tuple[tuple[str, str], ...]:
    """Parts of a block in ``transformers``, whose models call what holds queries, keys and values ``attention``."""
    names = zip(('query', 'key', 'value'), rows.parts, strict=True)
    return (
        ('layernorm_before.', 'norm1.'),
        ('layernorm_after.', 'norm2.'),
        *((f'attention.[{attention}.{name}|{name[0]}_proj].', part.removeprefix('.')) for name, part in names),
        ('attention.[output.dense|o_proj].', 'attn.proj.'),
        ('[intermediate.dense|mlp.fc1].', 'mlp.fc1.'),
        ('[output.dense|mlp.fc2].', 'mlp.fc2.'),
    )


TRANSFORMERS_PLACES = (
    ('embeddings.cls_token', 'cls_token'),
    ('embeddings.distillation_token', 'dist_token'),
    ('embeddings.position_embeddings', 'pos_embed'),
    ('embeddings.patch_embeddings.projection.', 'patch_embed.proj.'),
    *nest(transformers_block('attention', _QKV), '[encoder.layer|layers].{i}.', 'blocks.{i}.'),
    ('layernorm.', 'norm.'),
)
"""Names of ``transformers`` in the files on its hub, and since version 5 in memory."""

RELEASE = Layout(
    'timm/DeiT/MAE/BEiT',
    probe=r'blocks\.0\.attn\.qkv\.',
    places=(
        *same('cls_token', 'dist_token', 'reg_token', 'pos_embed', 'patch_embed.proj', 'blocks.{i}.', 'norm'),
        *same('rel_pos_bias.relative_position_bias_table'),
    ),
    parts=(('[ls1.gamma|gamma_1]', 'ls1.gamma'), ('[ls2.gamma|gamma_2]', 'ls2.gamma')),
    dropped=(
        'rel_pos_bias.relative_position_index',
        'blocks.{i}.attn.relative_position_index',
        '[head|head_dist|fc_norm|pre_logits|mask_token|lm_head]',
        'decoder_',
    ),
    tensors=_spread_shared_bias,
    inverse=_name_as_beit,
    targets=('official', 'timm'),
    wrapper='model',
)

DETECTRON2 = Layout(
    'detectron2',
    probe=r'net\.blocks\.0\.attn\.qkv\.',
    places=(*nest(same('pos_embed', 'patch_embed.proj'), 'net.'), *_vitdet_blocks('net.blocks', 'attn')),
    dropped=('simfp_',),
    tensors=_drop_class_position,
    inverse=_add_class_position,
    targets=('detectron2',),
    wrapper='model',
)

TRANSFORMERS = Layout(
    'transformers ViT/DeiT',
    probe=r'((vit|deit)\.)?(encoder\.layer|layers)\.0\.layernorm_before\.',
    places=nest(TRANSFORMERS_PLACES, '[|vit.|deit.]'),
    dropped=('[|vit.|deit.]pooler.', '[classifier|cls_classifier|distillation_classifier|decoder].'),
    tensors=_QKV.join,
    inverse=lambda state: _QKV.split(_need_class_token(state)),
    targets=('transformers',),
)

TRANSFORMERS_VITDET = Layout(
    'transformers ViTDet',
    probe=r'(vitdet\.)?encoder\.layer\.0\.attention\.qkv\.',
    places=nest(
        (
            ('embeddings.position_embeddings', 'pos_embed'),
            ('embeddings.projection.', 'patch_embed.proj.'),
            *_vitdet_blocks('encoder.layer', 'attention'),
        ),
        '[|vitdet.]',
    ),
    tensors=_drop_class_position,
    inverse=_add_class_position,
    targets=('transformers',),
)


def _mmseg_places(*others: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    mlp = (('ffn.layers.0.0.', 'mlp.fc1.'), ('ffn.layers.1.', 'mlp.fc2.'))
    return (
        *same('cls_token', 'pos_embed'),
        ('patch_embed.projection.', 'patch_embed.proj.'),
        *nest((('ln1.', 'norm1.'), ('ln2.', 'norm2.'), *mlp, *others), 'layers.{i}.', 'blocks.{i}.'),
        ('ln1.', 'norm.'),
    )


MMSEG = Layout(
    'mmseg',
    probe=r'layers\.0\.attn\.attn\.',
    places=_mmseg_places(('attn.attn.in_proj_', 'attn.qkv.'), ('attn.attn.out_proj.', 'attn.proj.')),
    tensors=partial(add_biases, pattern=r'patch_embed\.proj\.weight'),
    inverse=_need_class_token,
    targets=('mmseg',),
    wrapper='state_dict',
)

MMSEG_BEIT = Layout(
    'mmseg BEiT/MAE',
    probe=r'layers\.0\.attn\.qkv\.',
    places=_mmseg_places(('gamma_1', 'ls1.gamma'), ('gamma_2', 'ls2.gamma'), *same('attn')),
    dropped=('layers.{i}.attn.relative_position_index',),
    inverse=_need_class_token,
    targets=('mmseg',),
    wrapper='state_dict',
)

JAX = Layout(
    'JAX',
    probe=r'Transformer/encoderblock_0/',
    places=(
        ('cls', 'cls_token'),
        ('embedding/', 'patch_embed.proj.'),
        ('Transformer/posembed_input/pos_embedding', 'pos_embed'),
        ('Transformer/encoder_norm/', 'norm.'),
        *nest(
            (
                ('LayerNorm_0/', 'norm1.'),
                ('LayerNorm_2/', 'norm2.'),
                ('MultiHeadDotProductAttention_1/query/', 'attn.q.'),
                ('MultiHeadDotProductAttention_1/key/', 'attn.k.'),
                ('MultiHeadDotProductAttention_1/value/', 'attn.v.'),
                ('MultiHeadDotProductAttention_1/out/', 'attn.proj.'),
                ('MlpBlock_3/Dense_0/', 'mlp.fc1.'),
                ('MlpBlock_3/Dense_1/', 'mlp.fc2.'),
            ),
            'Transformer/encoderblock_{i}/',
            'blocks.{i}.',
        ),
    ),
    parts=(('[kernel|scale]', 'weight'),),
    dropped=('[head|pre_logits]/',),
    tensors=_from_jax,
)

VIT = Family(
    classes=('ViT',),
    fresh=(r'blocks\.\d+\.attn\.(rel_pos_[hw]|relative_position_bias_table)', r'blocks\.\d+\.ls[12]\.'),
    fit=_split_qkv_bias,
    tables=(
        (r'^pos_embed$', fit_positions),
        (r'relative_position_bias_table$', fit_bias_table),
        (r'rel_pos_[hw]$', lambda table, shape: resize_linear(table, shape[0])),
    ),
    layouts=(RELEASE, DETECTRON2, TRANSFORMERS, TRANSFORMERS_VITDET, MMSEG, MMSEG_BEIT, JAX),
)

STARTS = tuple(replace(layout, targets=()) for layout in VIT.layouts)
"""Layouts of a ViT for the backbones that are trained from one."""

VIT_ADAPTER = Family(
    classes=('ViTAdapter',),
    fresh=(ADDED, *VIT.fresh),
    layouts=(
        Layout(
            'ViT-Adapter release',
            probe=r'spm\.stem\.',
            places=same(
                *('cls_token', 'dist_token', 'reg_token', 'pos_embed', 'patch_embed.proj', 'blocks.{i}.'),
                *('level_embed', 'spm', 'interactions', 'up', 'norm{i}'),
            ),
            parts=(('[gamma1|ls1.gamma]', 'ls1.gamma'), ('[gamma2|ls2.gamma]', 'ls2.gamma')),
            tensors=_drop_class_position,
            inverse=_add_class_position,
            targets=('official',),
            wrapper='state_dict',
        ),
        *STARTS,
    ),
    tables=VIT.tables,
)
