"""Arguments of backbones: rows of their tables with columns replaced, and answers to those that do not exist."""

import inspect
from dataclasses import fields, replace
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from vitdense.names import unknown

NORMS = 'leave it out, norms are the LayerNorms of the release'
FIXED = 'leave it out, it is that of the paper'

ELSEWHERE = {
    'norm_cfg': NORMS,
    'norm_layer': NORMS,
    'norm_eval': 'leave it out, a LayerNorm does the same in training and evaluation',
    'act_cfg': 'leave it out, activations are those of the release',
    'act_layer': 'leave it out, activations are those of the release',
    'pretrained': "write init_cfg=dict(type='vitdense.Pretrained', checkpoint=...)",
    'convert_weights': 'leave it out, checkpoints of mmdet, mmseg, timm and the official code are recognised',
    'qk_scale': FIXED,
    'patch_norm': FIXED,
    'num_fcs': FIXED,
    'in_chans': "it is 'in_channels'",
    'embed_dim': "it is 'embed_dims'",
    'attn_drop': "it is 'attn_drop_rate'",
    'drop': "it is 'drop_rate'",
    'drop_path': "it is 'drop_path_rate'",
}
"""Arguments that backbones of mmdet, mmseg or timm have and ours do not, and what to do."""

PYRAMIDS_ELSEWHERE = {
    'num_layers': "it is 'depths', which arch sets",
    'depth': "it is 'depths'",
    'num_stages': 'leave it out, there are four; out_indices says which are built',
    'strides': FIXED,
    'patch_size': FIXED,
    'patch_sizes': FIXED,
    'paddings': FIXED,
    'pretrain_img_size': 'leave it out, images have any size, and positions are fitted to it',
    'img_size': 'leave it out, images have any size',
    'use_abs_pos_embed': FIXED,
    'use_conv_ffn': 'leave it out, PVTv2 has it and PVT has not',
    'norm_after_stage': 'leave it out, PVTv2 has it and PVT has not',
    'mlp_ratio': "it is 'mlp_ratios', one a stage",
}
"""The same for networks of four stages."""

COLUMNS_ELSEWHERE = {
    'num_layers': "it is 'depth', which arch sets",
    'depths': "it is 'depth'",
    'with_cls_token': "it is 'class_token'",
    'interpolate_mode': "it is 'pos_resize', e.g. 'bicubic' or 'bilinear'",
    'pretrain_img_size': "it is 'img_size'",
    'output_cls_token': 'leave it out, only maps are returned',
    'out_origin': 'leave it out, only maps after blocks are returned',
    'patch_pad': 'leave it out, images are padded at the right and the bottom',
    'patch_bias': 'leave it out, patches have a bias',
    'pre_norm': FIXED,
    'frozen_exclude': 'write frozen_stages',
    'init_values': "it is 'layer_scale'",
    'qv_bias': "it is 'qkv_bias'",
}
"""The same for networks of equal blocks."""


def resolve_arch(owner: Any, arch: str, overrides: dict[str, Any]) -> Any:
    """The row ``arch`` of the table of a backbone, with the columns in ``overrides`` replaced.

    Args:
        owner: class of the backbone, which has the table ``ARCHS``.
        arch: name of a row.
        overrides: values by the names of columns.

    Raises:
        ValueError: unknown row; the message lists the rows, nearest first.
        TypeError: an argument that does not exist, or a value that is no such column; the message says what is wanted.
    """
    if arch not in owner.ARCHS:
        raise ValueError(f'{owner.__name__}: ' + unknown('arch', arch, owner.ARCHS))
    row = owner.ARCHS[arch]
    wanted = get_type_hints(type(row))
    columns = [field.name for field in fields(row)]
    for name, value in overrides.items():
        if name not in columns:
            raise TypeError(f'{owner.__name__}: ' + _no_argument(owner, name, [*columns, *_keywords(owner)]))
        if not _fits(value, wanted[name]):
            example = getattr(row, name)
            raise TypeError(f'{owner.__name__}: {name} must be {_described(wanted[name], example)}, got {value!r}')
    return replace(row, **overrides)


def _no_argument(owner: Any, name: str, valid: list[str]) -> str:
    if hint := owner.ELSEWHERE.get(name):
        return f'unknown argument {name!r}: {hint}'
    return unknown('argument', name, valid)


def _keywords(owner: type) -> list[str]:
    """Keywords of a constructor and of those that it hands its keywords on to."""
    found = []
    for base in owner.__mro__:
        if 'overrides' in found or '__init__' not in vars(base):
            continue
        found += [
            parameter.name
            for parameter in inspect.signature(vars(base)['__init__']).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY or parameter.name in ('arch', 'overrides')
        ]
    return [name for name in found if name != 'overrides']


def _fits(value: Any, kind: Any) -> bool:
    """Is ``value`` of an annotated ``kind``? Lists are tuples, and whole numbers stand for fractions and for flags."""
    if isinstance(kind, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple)
    if kind in (float, bool):
        return isinstance(value, int | kind)
    return isinstance(value, kind)


def _described(kind: Any, example: Any) -> str:
    """A sentence's words for what an annotation allows."""
    words = {int: 'a whole number', float: 'a number', str: 'a name', bool: 'True or False', type(None): 'None'}
    allowed = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    such = '' if example is None else f', such as {example!r}'
    return ' or '.join(words.get(one, 'a sequence') for one in allowed) + such
