"""ViT and its descendants: DeiT, MAE, augreg, BEiT, ViTDet; the backbones of SETR have the keys of timm."""

import math
import re

import torch
from torch import Tensor

from vitdense.models.layers.pos_embed import resize_positions
from vitdense.models.layers.rel_pos import resize_bias_table, resize_linear

from .family import Family, Layout, State

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
    """A relative bias table of a square image to that of a grid ``hw``."""
    side = (math.isqrt(table.shape[0] - 3) + 1) // 2
    return resize_bias_table(table, (side, side), hw)


def _split_qkv_bias(state: State, own: State) -> State:
    """Biases of queries and values, without that of keys, which changes no softmax, where a backbone has only these."""
    split = dict(state)
    for key in own:
        joined = key.replace('.q_bias', '.qkv.bias')
        if key.endswith('.attn.q_bias') and joined in split:
            split[key], _, split[key.replace('.q_bias', '.v_bias')] = split.pop(joined).chunk(3)
    return split


def _spread_shared_bias(state: State) -> State:
    """Give each block the relative bias table that a BEiT has only once before fine-tuning."""
    shared = state.pop('relative_position_bias_table', None)
    if shared is not None:
        blocks = {match[1] for key in state if (match := re.match(r'(blocks\.\d+)\.', key))}
        state |= {f'{block}.attn.relative_position_bias_table': shared.clone() for block in blocks}
    return state


def _drop_class_position(state: State) -> State:
    """Drop the class entry of ``pos_embed``, which ViTDet stores and never uses."""
    return {key: value[:, 1:] if key == 'pos_embed' else value for key, value in state.items()}


def _join_qkv(state: State) -> State:
    """Join ``attn.q``, ``attn.k`` and ``attn.v`` (C, ...) to ``attn.qkv`` (3C, ...)."""
    joined = {}
    for key, value in state.items():
        if '.attn.q.' in key:
            parts = [value, *(state[key.replace('.attn.q.', f'.attn.{part}.')] for part in 'kv')]
            joined[key.replace('.attn.q.', '.attn.qkv.')] = torch.cat(parts)
        elif '.attn.k.' not in key and '.attn.v.' not in key:
            joined[key] = value
    return joined


def _add_patch_bias(state: State) -> State:
    """Give the patch embedding a bias of zeros where it has none."""
    weight = state.get('patch_embed.proj.weight')
    bias = {} if weight is None else {'patch_embed.proj.bias': torch.zeros_like(weight[:, 0, 0, 0])}
    return bias | state


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

    return _join_qkv({key: transpose(key, value).contiguous() for key, value in state.items()})


_DEIT, _MAE = 'https://dl.fbaipublicfiles.com/deit', 'https://dl.fbaipublicfiles.com/mae/pretrain'
_DETECTRON2 = 'https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MAE'
_TIMM = 'https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-vitjx'
_AUGREG = 'https://storage.googleapis.com/vit_models/augreg'
_AUGREG_FILES = {
    'tiny': 'Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0',
    'small': 'S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0',
    'base': 'B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0',
    'large': 'L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1',
}

VIT = Family(
    releases={
        'deit_tiny': f'{_DEIT}/deit_tiny_patch16_224-a1311bcf.pth',
        'deit_small': f'{_DEIT}/deit_small_patch16_224-cd65a155.pth',
        'deit_base': f'{_DEIT}/deit_base_patch16_224-b5f2ef4d.pth',
        'deit_base_384': f'{_DEIT}/deit_base_patch16_384-8de9b5d1.pth',
        'deit_tiny_distilled': f'{_DEIT}/deit_tiny_distilled_patch16_224-b40b3cf7.pth',
        'deit_small_distilled': f'{_DEIT}/deit_small_distilled_patch16_224-649709d9.pth',
        'deit_base_distilled': f'{_DEIT}/deit_base_distilled_patch16_224-df68dfff.pth',
        'deit_base_distilled_384': f'{_DEIT}/deit_base_distilled_patch16_384-d0272ac0.pth',
        **{f'mae_vit_{arch}': f'{_MAE}/mae_pretrain_vit_{arch}.pth' for arch in ('base', 'large', 'huge')},
        'mae_vit_huge_p14to16': f'{_DETECTRON2}/mae_pretrain_vit_huge_p14to16.pth',  # patches resized for ViTDet
        'vit_base_orig': f'{_TIMM}/jx_vit_base_p16_224-80ecf9dd.pth',
        'vit_base_orig_384': f'{_TIMM}/jx_vit_base_p16_384-83fb41ba.pth',
        'vit_large_orig_384': f'{_TIMM}/jx_vit_large_p16_384-b3be5167.pth',
        **{f'vit_{arch}_augreg': f'{_AUGREG}/{name}.npz' for arch, name in _AUGREG_FILES.items()},
    },
    fit=_split_qkv_bias,
    tables=(
        (r'^pos_embed$', fit_positions),
        (r'relative_position_bias_table$', fit_bias_table),
        (r'rel_pos_[hw]$', lambda table, shape: resize_linear(table, shape[0])),
    ),
    layouts=(
        Layout(
            'timm, DeiT, MAE, BEiT',
            probe=r'blocks\.0\.attn\.qkv\.',
            places=(
                (r'blocks\.\d+\.attn\.relative_position_index|rel_pos_bias\.relative_position_index', None),
                (r'rel_pos_bias\.', ''),
                (r'(cls_token|dist_token|reg_token|pos_embed|patch_embed|blocks|norm)\b', r'\1'),
                (r'(head|head_dist|fc_norm|pre_logits|mask_token|lm_head)\b|decoder_', None),
            ),
            parts=(('gamma_1', 'ls1.gamma'), ('gamma_2', 'ls2.gamma')),
            tensors=_spread_shared_bias,
        ),
        Layout(
            'detectron2',
            probe=r'net\.blocks\.0\.attn\.qkv\.',
            places=((r'net\.', ''), (r'simfp_', None)),
            tensors=_drop_class_position,
        ),
        Layout(
            'transformers, ViTDet',
            probe=r'(vitdet\.)?encoder\.layer\.0\.attention\.qkv\.',
            places=(
                (r'(?:vitdet\.)?embeddings\.position_embeddings', 'pos_embed'),
                (r'(?:vitdet\.)?embeddings\.projection\.', 'patch_embed.proj.'),
                (r'(?:vitdet\.)?encoder\.layer\.(\d+)\.', r'blocks.\1.'),
            ),
            parts=(('attention.', 'attn.'),),
            tensors=_drop_class_position,
        ),
        Layout(
            'transformers, ViT and DeiT',
            probe=r'((vit|deit)\.)?(encoder\.layer|layers)\.0\.layernorm_before\.',
            places=(
                (r'(?:vit\.|deit\.)?embeddings\.cls_token', 'cls_token'),
                (r'(?:vit\.|deit\.)?embeddings\.distillation_token', 'dist_token'),
                (r'(?:vit\.|deit\.)?embeddings\.position_embeddings', 'pos_embed'),
                (r'(?:vit\.|deit\.)?embeddings\.patch_embeddings\.projection\.', 'patch_embed.proj.'),
                (r'(?:vit\.|deit\.)?(?:encoder\.layer|layers)\.(\d+)\.', r'blocks.\1.'),
                (r'(?:vit\.|deit\.)?layernorm\.', 'norm.'),
                (r'(?:vit\.|deit\.)?(pooler|classifier|cls_classifier|distillation_classifier)\.', None),
            ),
            parts=(
                ('layernorm_before.', 'norm1.'),
                ('layernorm_after.', 'norm2.'),
                ('attention.attention.query.', 'attn.q.'),
                ('attention.attention.key.', 'attn.k.'),
                ('attention.attention.value.', 'attn.v.'),
                ('attention.output.dense.', 'attn.proj.'),
                ('attention.o_proj.', 'attn.proj.'),
                ('attention.q_proj.', 'attn.q.'),
                ('attention.k_proj.', 'attn.k.'),
                ('attention.v_proj.', 'attn.v.'),
                ('intermediate.dense.', 'mlp.fc1.'),
                ('output.dense.', 'mlp.fc2.'),
            ),
            tensors=_join_qkv,
        ),
        Layout(
            'mmseg',
            probe=r'layers\.0\.attn\.attn\.',
            places=(
                (r'(cls_token|pos_embed)$', r'\1'),
                (r'patch_embed\.projection\.', 'patch_embed.proj.'),
                (r'layers\.(\d+)\.', r'blocks.\1.'),
                (r'ln1\.', 'norm.'),
            ),
            parts=(
                ('ln1.', 'norm1.'),
                ('ln2.', 'norm2.'),
                ('attn.attn.in_proj_', 'attn.qkv.'),
                ('attn.attn.out_proj.', 'attn.proj.'),
                ('ffn.layers.0.0.', 'mlp.fc1.'),
                ('ffn.layers.1.', 'mlp.fc2.'),
            ),
            tensors=_add_patch_bias,
        ),
        Layout(
            'JAX',
            probe=r'Transformer/encoderblock_0/',
            places=(
                (r'cls$', 'cls_token'),
                (r'embedding/', 'patch_embed.proj.'),
                (r'Transformer/posembed_input/pos_embedding', 'pos_embed'),
                (r'Transformer/encoder_norm/', 'norm.'),
                (r'Transformer/encoderblock_(\d+)/', r'blocks.\1.'),
                (r'(head|pre_logits)/', None),
            ),
            parts=(
                ('LayerNorm_0/', 'norm1.'),
                ('LayerNorm_2/', 'norm2.'),
                ('MultiHeadDotProductAttention_1/', 'attn.'),
                ('query/', 'q.'),
                ('key/', 'k.'),
                ('value/', 'v.'),
                ('out/', 'proj.'),
                ('MlpBlock_3/Dense_0/', 'mlp.fc1.'),
                ('MlpBlock_3/Dense_1/', 'mlp.fc2.'),
                ('kernel', 'weight'),
                ('scale', 'weight'),
            ),
            tensors=_from_jax,
        ),
    ),
)

VIT_ADAPTER = Family(
    layouts=(
        Layout(
            'official ViT-Adapter',
            probe=r'spm\.stem\.',
            places=((r'(pos_embed|patch_embed|blocks|level_embed|spm|interactions|up|norm\d)\b', r'\1'),),
            parts=(('gamma1', 'ls1.gamma'), ('gamma2', 'ls2.gamma')),
            tensors=_drop_class_position,
        ),
        *VIT.layouts,
    ),
    releases={f'vit_adapter_{arch}': VIT.releases[f'deit_{arch}'] for arch in ('tiny', 'small', 'base')},  # its start
    tables=VIT.tables,
)
